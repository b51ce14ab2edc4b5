// Where one writes. Enter sends, Shift+Enter makes a new line; what is not sent stays.

import { el, icon } from '../dom.js';

export class Composer {
  /** `send(text)` takes the text, or returns false if it can't now; `save(text)` keeps a draft; `up()`: ↑ when empty. */
  constructor({ label, example = label, send, save = () => {}, up = () => {}, draft = '' }) {
    Object.assign(this, { send, save, up });
    this.area = el('textarea', {
      rows: '1', 'aria-label': label, placeholder: example, dir: 'auto', autocomplete: 'off', enterkeyhint: 'send',
      oninput: () => this.#changed(), onkeydown: (event) => this.#key(event),
    });
    this.button = el('button', { class: 'send primary', type: 'submit', 'aria-label': 'Send' }, icon('send'));
    this.why = el('p', { class: 'why', role: 'status', dir: 'auto' });
    const submit = (event) => {
      event.preventDefault();
      this.submit();
    };
    const press = (event) => event.target === event.currentTarget && this.focus();
    const field = el('div', { class: 'field', onclick: press }, this.area, this.button);
    this.node = el('form', { class: 'composer', onsubmit: submit }, this.why, field);
    this.set(draft);
  }

  get text() {
    return this.area.value;
  }

  set(text) {
    this.area.value = text;
    this.#changed();
  }

  /** Say something about what is written here; an empty text takes it back. */
  note(text) {
    this.why.textContent = text;
  }

  /** A text that was not sent comes back, before what was written since. */
  giveBack(text, why) {
    this.set(this.text ? `${text}\n\n${this.text}` : text);
    this.note(why);
  }

  /** A text that was given back had arrived after all. */
  takeBack(text) {
    if (this.text === text) this.set('');
    this.note('It had arrived after all.');
  }

  focus() {
    this.area.focus({ preventScroll: true });
  }

  submit() {
    const text = this.text.trim();
    if (!text || this.send(text) === false) return;
    this.set('');
    this.note('');
  }

  #changed() {
    this.button.disabled = !this.text.trim();
    requestAnimationFrame(() => this.#fit());
    this.save(this.text);
  }

  /** As high as its text; a detached field has no height to measure. */
  #fit() {
    this.area.style.height = 'auto';
    if (this.area.isConnected) this.area.style.height = `${this.area.scrollHeight}px`;
  }

  #key(event) {
    if (event.isComposing) return;
    if (event.key === 'ArrowUp' && !this.text && !event.shiftKey && this.up()) event.preventDefault();
    if (event.key !== 'Enter' || event.shiftKey || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    this.submit();
  }
}
