// The conversations (threads) of a session: open, begin, rename, put away, take back.

import { askText, openDialog } from '../dialog.js';
import { el, icon, iconButton, setText } from '../dom.js';
import { nameOfThread } from '../threads.js';
import { ago } from '../words.js';

/** Show them. `go(thread)` opens one; `new` begins one. */
export function show(talk, go) {
  const list = new List(talk, (thread) => {
    opened.close();
    go(thread);
  });
  const opened = openDialog('Conversations', list.node);
  list.load();
}

class List {
  constructor(talk, go) {
    Object.assign(this, { talk, go, archived: false });
    this.said = el('p', { class: 'quiet', role: 'status' }, 'Loading…');
    this.rows = el('ul', { class: 'rows' });
    const begin = el('button', { class: 'primary', type: 'button', onclick: () => go('new') }, icon('plus'), 'New conversation');
    this.other = el('button', { type: 'button', onclick: () => this.#flip() }, '');
    this.node = el('div', {}, el('div', { class: 'choices first' }, begin, this.other), this.said, this.rows);
  }

  async load() {
    setText(this.other, this.archived ? 'Back to the current ones' : 'Archived ones');
    try {
      const threads = await this.talk.threads.list(this.archived);
      this.rows.replaceChildren(...threads.map((thread) => this.#row(thread)));
      const none = this.archived ? 'Nothing is archived.' : 'No conversation yet: it begins with what you say.';
      setText(this.said, threads.length ? '' : none);
    } catch (error) {
      setText(this.said, `The agent did not give its list: ${error.message}`);
    }
  }

  #flip() {
    this.archived = !this.archived;
    this.rows.replaceChildren();
    setText(this.said, 'Loading…');
    this.load();
  }

  #row(thread) {
    const current = thread.id === this.talk.thread.id;
    const name = el('span', { class: 'name', dir: 'auto' }, nameOfThread(thread).slice(0, 200));
    const when = el('span', { class: 'when' }, ago((thread.updatedAt ?? 0) * 1000));
    const open = el(
      'button', { class: 'bare open', type: 'button', 'aria-current': current ? 'true' : null, disabled: this.archived,
        onclick: () => this.go(thread.id) }, name, when,
    );
    return el('li', {}, open, this.archived ? this.#putBack(thread) : this.#actions(thread));
  }

  #actions(thread) {
    const rename = () => askText('Rename conversation', { label: 'Name', value: thread.name ?? '', yes: 'Rename' }, async (name) => {
      await this.talk.threads.rename(thread.id, name);
      this.load();
    });
    return [
      iconButton('edit', `Rename ${nameOfThread(thread).slice(0, 80)}`, rename),
      iconButton('archive', `Archive ${nameOfThread(thread).slice(0, 80)}`, () => this.#archive(thread)),
    ];
  }

  #putBack(thread) {
    const back = () => this.#attempt(async () => {
      await this.talk.threads.unarchive(thread.id);
      this.go(thread.id);
    });
    return el('button', { type: 'button', onclick: back, 'aria-label': `Take back ${nameOfThread(thread).slice(0, 80)}` },
      icon('restore'), 'Take back');
  }

  #archive(thread) {
    return this.#attempt(async () => {
      await this.talk.threads.archive(thread.id);
      if (thread.id === this.talk.thread.id) this.go('new');
      else this.load();
    });
  }

  async #attempt(act) {
    try {
      await act();
    } catch (error) {
      setText(this.said, `It did not work: ${error.message}`);
    }
  }
}
