// The frame of all pages: the list beside, one view in the middle. On a phone the list slides over.

import * as api from '../api.js';
import { el, icon, logo } from '../dom.js';
import * as conversation from './conversation.js';
import * as home from './home.js';
import * as list from './list.js';

/** The frame. `state` is {app}; `show(route, message)` changes what is in the middle. */
export function mount(root, { app }) {
  return new Shell(root, app);
}

class Shell {
  constructor(root, app) {
    Object.assign(this, { root, app, route: {}, view: null });
    this.main = el('main');
    const listed = el('nav', { 'aria-label': 'Sessions' });
    const add = el('a', { class: 'bare', href: '#/', title: 'New session', 'aria-label': 'New session' }, icon('plus'));
    const out = el('button', { class: 'bare quiet', type: 'button', onclick: () => this.#signOut() }, 'Sign out');
    this.side = el(
      'aside', { class: 'side', id: 'side' },
      el('div', { class: 'brand' }, logo(), el('span', {}, 'Argus'), add), listed, el('div', { class: 'foot' }, out),
    );
    this.veil = el('div', { class: 'veil', onclick: () => this.#open(false) });
    root.replaceChildren(el('div', { class: 'shell' }, this.side, this.veil, this.main));
    this.list = list.mount(listed, { app, current: () => this.route.session });
    this.key = (event) => {
      if (event.key !== 'Escape' || !this.#isOpen()) return;
      event.preventDefault(); // it stops nothing else
      this.#open(false);
    };
    document.addEventListener('keydown', this.key, { capture: true });
  }

  show(route, message = '') {
    const same = this.view && route.session === this.route.session && route.thread === this.route.thread;
    this.route = route;
    this.#open(false);
    this.list.draw();
    if (same && !message) return;
    this.view?.unmount();
    const state = { app: this.app, menu: this.#menu(), message, ...route };
    this.view = (route.session ? conversation : home).mount(this.main, state);
  }

  unmount() {
    this.view?.unmount();
    this.list.unmount();
    document.removeEventListener('keydown', this.key, { capture: true });
    this.root.replaceChildren();
  }

  #menu() {
    const open = () => this.#open(!this.#isOpen());
    const label = { 'aria-label': 'Sessions', 'aria-controls': 'side', 'aria-expanded': 'false' };
    return el('button', { class: 'bare menu', type: 'button', onclick: open, ...label }, icon('menu'));
  }

  #isOpen() {
    return this.root.firstChild.classList.contains('open');
  }

  #open(open) {
    this.root.firstChild.classList.toggle('open', open);
    this.main.querySelector('.menu')?.setAttribute('aria-expanded', String(open));
  }

  async #signOut() {
    this.app.signedOut((await api.signOut()) || 'You are signed out.');
  }
}
