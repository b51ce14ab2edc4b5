// In place of a view whose code could not be loaded: the gateway is away, or has become another version.

import { el } from '../dom.js';

export function mount(root, { menu }) {
  const again = el('button', { class: 'primary', type: 'button', onclick: () => location.reload() }, 'Load the page again');
  root.replaceChildren(
    el('header', { class: 'bar' }, menu, el('div', { class: 'names' }, el('h1', {}, 'Argus'))),
    el('div', { class: 'start' },
      el('h2', {}, 'This part of the page could not be loaded'),
      el('p', { role: 'alert' }, 'The gateway does not answer. Nothing is lost: sessions go on by themselves, and drafts are kept.'),
      again),
  );
  return { unmount: () => root.replaceChildren() };
}
