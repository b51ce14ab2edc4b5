// Signing in: by a link, or by pasting a token.

import * as api from '../api.js';
import { el, logo } from '../dom.js';

/** Show the sign-in. `state` is {message, calm?, retry?, signedIn()}: `retry()` tries a link again that could not be tried. */
export function mount(root, { message, calm, retry, signedIn }) {
  const said = el('p', { class: calm ? 'notice' : 'trouble', role: 'alert', hidden: !message }, message ?? '');
  const field = el('input', {
    type: 'password', name: 'token', id: 'token', autocomplete: 'off', spellcheck: 'false', required: true,
  });
  const button = el('button', { class: 'primary', type: 'submit' }, 'Sign in');
  const attempt = async (how) => {
    button.disabled = true;
    try {
      await how();
      signedIn();
    } catch (error) {
      said.hidden = false;
      said.className = 'trouble';
      said.textContent = wordsFor(error);
    }
    button.disabled = false;
  };
  const submit = (event) => {
    event.preventDefault();
    attempt(() => api.signInByToken(field.value.trim()));
  };
  const again = retry && el('button', { type: 'button', onclick: () => attempt(retry) }, 'Try the link again');
  document.title = 'Sign in · Argus';
  root.replaceChildren(el(
    'main', { class: 'signin' },
    logo(), el('h1', {}, 'Sign in to Argus'), said, again,
    el('p', {}, 'Run ', el('code', {}, './argus link'), ' where the gateway runs, and open the link it prints: it is good once, for ten minutes.'),
    el('form', { onsubmit: submit },
      el('label', { for: 'token' }, 'Or paste a token (there in gateway/token of its home, mostly ~/.argus)'),
      el('div', { class: 'pair' }, field, button)),
  ));
  return { unmount: () => root.replaceChildren() };
}

function wordsFor(error) {
  return error.status === 401 ? 'That token opens nothing here. Was all of it copied? A link of ./argus link works, too.' : error.message;
}
