// What is queued for when the turn is over: each can be changed, taken out, or said at once.

import { el, iconButton, keyed, setText } from '../dom.js';

export class Waiting {
  /** `edit(text)` puts a text back into the composer. */
  constructor(talk, edit) {
    Object.assign(this, { talk, edit });
    this.why = el('p', { class: 'caption' });
    this.list = el('ul', {});
    this.node = el('section', { class: 'queue', 'aria-label': 'Queued messages', hidden: true }, this.why, this.list);
  }

  draw() {
    const { entries, held } = this.talk.queue;
    this.node.hidden = !entries.length;
    setText(this.why, held ? `${held} Queued messages wait for “Send now”.` : 'Sent when the agent is done:');
    keyed(this.list, entries, (entry) => entry.id, ({ id }) => this.#row(id));
  }

  /** Take the last one back into the composer; false if there is none. */
  editLast() {
    const { last } = this.talk.queue;
    if (last) this.#edit(last.id);
    return Boolean(last);
  }

  #edit(id) {
    this.edit(this.talk.queue.remove(id).text);
    this.talk.on.changed();
  }

  #row(id) {
    const text = el('span', { class: 'text', dir: 'auto' });
    const now = el('button', { type: 'button', onclick: () => this.#now(id) }, 'Send now');
    const remove = () => {
      this.talk.queue.remove(id);
      this.talk.on.changed();
    };
    const node = el(
      'li', {}, text, now, iconButton('edit', 'Edit', () => this.#edit(id)), iconButton('close', 'Remove', remove),
    );
    const update = (entry) => {
      setText(text, entry.text);
      now.disabled = !this.talk.connection.live || !this.talk.loaded;
    };
    return { node, update };
  }

  #now(id) {
    const entry = this.talk.queue.entries.find((each) => each.id === id);
    if (entry && this.talk.connection.live) this.talk.send(entry.text, id);
  }
}
