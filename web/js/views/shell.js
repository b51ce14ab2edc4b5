// The frame of all pages: the list and the navigation beside, one view in the middle. On a phone the side slides over.

import * as api from '../api.js';
import { isOpen as dialogIsOpen } from '../dialog.js';
import { el, icon, iconButton, logo } from '../dom.js';
import { ROUTES, parse } from '../routes.js';
import * as list from './list.js';
import { themeButton } from './theme.js';

const MAC = /Mac|iP/.test(navigator.platform);

/** The frame. `state` is {app}; `show(hash, message)` changes what is in the middle. */
export function mount(root, { app }) {
  return new Shell(root, app);
}

class Shell {
  constructor(root, app) {
    Object.assign(this, { root, app, hash: null, parts: [], view: null, turn: 0 });
    this.main = el('main', { id: 'main' });
    const listed = el('nav', { class: 'list', 'aria-label': 'Sessions' });
    const add = el('a', { class: 'bare', href: '#/', title: 'New session', 'aria-label': 'New session' }, icon('plus'));
    const find = iconButton('search', `Jump to a session (${MAC ? '⌘' : 'Ctrl'} K)`, () => this.#jump());
    this.side = el(
      'aside', { class: 'side', id: 'side', 'aria-label': 'Sessions and settings' },
      el('div', { class: 'brand' }, logo(), el('span', {}, 'Argus'), find, add), listed, ...navigation(), this.#foot(),
    );
    this.veil = el('div', { class: 'veil', onclick: () => this.#open(false) });
    root.replaceChildren(el('div', { class: 'shell' }, this.side, this.veil, this.main));
    this.list = list.mount(listed, { app, current: () => this.parts[0] });
    this.key = (event) => this.#key(event);
    document.addEventListener('keydown', this.key, { capture: true });
  }

  /** Show what a fragment says; `again`: even if it is shown already. */
  async show(hash, message = '', again = false) {
    const { route, parts } = parse(hash);
    this.#open(false);
    if (hash === this.hash && !message && !again) return;
    Object.assign(this, { hash, parts });
    this.turn += 1;
    const { turn } = this;
    this.list.draw();
    const { mount: mountView } = await route.load().catch(() => import('./unloaded.js'));
    if (turn !== this.turn) return; // somebody went on meanwhile
    this.view?.unmount();
    this.view = mountView(this.main, { app: this.app, parts, message, menu: this.#menu() });
  }

  /** The URL was made more exact; what is shown is the same. */
  renamed(hash) {
    this.hash = hash;
  }

  unmount() {
    this.turn += 1;
    this.view?.unmount();
    this.list.unmount();
    document.removeEventListener('keydown', this.key, { capture: true });
    this.root.replaceChildren();
  }

  #foot() {
    const help = iconButton('help', 'Help and keys (?)', () => this.#help());
    const out = el('button', { class: 'bare', type: 'button', onclick: () => this.#signOut() }, icon('out'), 'Sign out');
    return el('div', { class: 'foot' }, out, themeButton(), help);
  }

  #menu() {
    const open = () => this.#open(!this.#isOpen());
    const label = { 'aria-label': 'Sessions', 'aria-controls': 'side', 'aria-expanded': 'false' };
    return el('button', { class: 'bare menu', type: 'button', onclick: open, ...label }, icon('menu'));
  }

  #key(event) {
    if (event.isComposing || dialogIsOpen()) return;
    const writing = /^(TEXTAREA|INPUT|SELECT)$/.test(event.target.tagName);
    if ((event.ctrlKey || event.metaKey) && event.key.toLowerCase() === 'k') this.#jump();
    else if (event.key === '?' && !(writing && event.target.value)) this.#help();
    else if (event.key === 'Escape' && this.#isOpen()) this.#open(false);
    else return;
    event.preventDefault(); // it does nothing else
    event.stopPropagation();
  }

  async #jump() {
    (await import('./jump.js')).show(this.app);
  }

  async #help() {
    (await import('./help.js')).show();
  }

  #isOpen() {
    return this.root.firstChild.classList.contains('open');
  }

  #open(open) {
    this.root.firstChild.classList.toggle('open', open);
    this.main.querySelector('.menu')?.setAttribute('aria-expanded', String(open));
  }

  async #signOut() {
    const wrong = await api.signOut();
    this.app.signedOut(wrong || 'You are signed out.', null, !wrong);
  }
}

/** Pages beside the sessions: those of ROUTES that have a label. A list of one or no element. */
function navigation() {
  const pages = ROUTES.filter(({ label }) => label);
  const link = ({ path, label, icon: sign }) => el('a', { class: 'bare', href: `#/${path}` }, icon(sign), label);
  return pages.length ? [el('nav', { class: 'pages', 'aria-label': 'Pages' }, pages.map(link))] : [];
}
