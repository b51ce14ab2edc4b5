// The start: a session begins with its first message.

import { el } from '../dom.js';
import { Composer } from './composer.js';

const ABOUT = 'A session begins with your first message. Its agent goes on while nobody looks.';
const EXAMPLE = 'For example: why does the nightly backup fail?';
const TOUCH = matchMedia('(pointer: coarse)');

/** Show the start. `state` is {app, menu, message}. */
export function mount(root, { app, menu, message }) {
  const begin = async (text) => {
    composer.area.disabled = true;
    try {
      app.begin(await app.sessions.create(text), text);
    } catch (error) {
      composer.area.disabled = false;
      composer.giveBack(text, error.message);
    }
  };
  const composer = new Composer({ label: 'What should be done?', example: EXAMPLE, send: (text) => void begin(text) });
  document.title = 'Argus';
  root.replaceChildren(
    el('header', { class: 'bar' }, menu, el('div', { class: 'names' }, el('h1', {}, 'New session'))),
    el('div', { class: 'start' },
      message && el('p', { class: 'notice', role: 'status' }, message),
      el('h2', {}, 'What should be done?'),
      el('p', { class: 'quiet' }, ABOUT),
      composer.node),
  );
  if (!TOUCH.matches) composer.focus();
  return { unmount: () => root.replaceChildren() };
}
