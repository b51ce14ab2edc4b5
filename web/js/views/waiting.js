// What waits: in the gateway's queue, on its way there, taken back by Stop, or come to nothing without a turn.

import { retryInput } from '../api.js';
import { el, iconButton, keyed, setText } from '../dom.js';
import { isTyped, sourceWords } from '../inputs.js';

const actions = () => import('./input_actions.js');

export class Waiting {
  /** `edit(text)` puts a text back into the composer. */
  constructor(talk, edit) {
    Object.assign(this, { talk, edit });
    const part = (label) => {
      const why = el('p', { class: 'caption', role: 'status' });
      const list = el('ul', {});
      return { why, list, node: el('section', { class: 'queue', 'aria-label': label, hidden: true }, why, list) };
    };
    this.failed = part('Not answered');
    this.queued = part('Queued messages');
    this.held = part('Messages taken back');
    this.node = el('div', { class: 'queues' }, this.failed.node, this.held.node, this.queued.node);
  }

  draw() {
    const { inputs, queue, thread, running } = this.talk;
    this.#part(this.failed, inputs.troubled(), 'Not answered:', (input) => input.inputId, (input) => this.#failedRow(input));
    const held = queue.heldOf(thread.id);
    const why = held.find(({ reason }) => reason)?.reason ?? '';
    this.#part(this.held, held, `${why} These wait for “Send now”.`.trim(), ({ id }) => id, (note) => this.#heldRow(note));
    const posts = queue.posts.filter((post) => [thread.id, null].includes(post.thread));
    const rows = [...inputs.waiting, ...posts];
    const words = running ? 'Sent when the agent is done, in this order:' : 'Sent next:';
    const said = queue.why && posts.length ? queue.why : inputs.problem || words;
    this.#part(this.queued, rows, said, ({ inputId, id }) => inputId ?? id, (row) => this.#queuedRow(row));
  }

  #part({ node, why, list }, things, words, keyOf, make) {
    node.hidden = !things.length;
    setText(why, things.length ? words : '');
    keyed(list, things, keyOf, make);
  }

  /** Take the last one of a page back into the composer; false if there is none. */
  editLast() {
    const { inputs, queue, thread } = this.talk;
    const input = inputs.waiting.findLast(isTyped);
    const note = queue.heldOf(thread.id).at(-1);
    if (input) this.#toComposer(input);
    else if (note) this.edit(queue.drop(note.id).text);
    return Boolean(input || note);
  }

  async #toComposer(input) {
    const note = await this.talk.takeBack(input);
    if (note && this.talk.queue.drop(note.id)) this.edit(note.text);
  }

  // -- rows

  #row(text, from, ...buttons) {
    const label = from ? el('span', { class: 'from', dir: 'auto' }, from) : null;
    return el('li', {}, el('span', { class: 'words' }, label, text), ...buttons);
  }

  /** An input that waits, or one that is on its way to the queue. */
  #queuedRow(first) {
    const text = el('span', { class: 'text', dir: 'auto' });
    let entry = first;
    const now = el('button', { type: 'button', onclick: () => this.#sayNow(entry) }, 'Send now');
    const edit = iconButton('edit', 'Edit', async () => (await actions()).editWaiting(this.talk, entry));
    const remove = iconButton('close', 'Remove', async () => (await actions()).remove(this.talk, entry));
    const on = el('span', { class: 'sending' }, 'sending…');
    const isInput = Boolean(first.inputId);
    const buttons = isInput ? [isTyped(first) ? now : null, edit, remove] : [on];
    const node = this.#row(text, isInput ? sourceWords(first) : '', ...buttons);
    const update = (next) => {
      entry = next;
      setText(text, next.text.slice(0, 2000));
      now.disabled = !this.talk.connection.live || !this.talk.loaded;
    };
    return { node, update };
  }

  async #sayNow(input) {
    const note = await this.talk.takeBack(input);
    if (note && this.talk.connection.live) this.talk.send(note.text, note.id);
  }

  #heldRow({ id }) {
    const { talk } = this;
    const text = el('span', { class: 'text', dir: 'auto' });
    const say = () => {
      const note = talk.queue.held.find((each) => each.id === id);
      if (note && talk.connection.live) talk.send(note.text, id);
    };
    const now = el('button', { type: 'button', onclick: say }, 'Send now');
    const edit = iconButton('edit', 'Edit', () => this.edit(talk.queue.drop(id).text));
    const update = (note) => {
      setText(text, note.text.slice(0, 2000));
      now.disabled = !talk.connection.live || !talk.loaded;
    };
    return { node: this.#row(text, '', now, edit, iconButton('close', 'Remove', () => talk.queue.drop(id))), update };
  }

  #failedRow({ inputId }) {
    const text = el('span', { class: 'text', dir: 'auto' });
    const why = el('span', { class: 'from', dir: 'auto' });
    const again = runAgain(inputId);
    const receipt = iconButton('receipt', 'Receipt', async () => (await actions()).showReceipt(inputId));
    const put = iconButton('close', 'Dismiss', () => this.talk.inputs.dismiss(inputId));
    const update = (input) => {
      setText(text, input.text.slice(0, 2000));
      setText(why, [sourceWords(input), input.error].filter(Boolean).join(': '));
    };
    return { node: el('li', { class: 'failed' }, el('span', { class: 'words' }, text, why), again, receipt, put), update };
  }
}

/** A button that says an input again. What became of that, argus/input tells. */
export function runAgain(inputId) {
  const press = async () => {
    button.disabled = true;
    try {
      await retryInput(inputId);
    } catch (error) {
      button.disabled = false;
      button.textContent = `Run it again (it did not work: ${error.message})`;
    }
  };
  const button = el('button', { type: 'button', onclick: press }, 'Run it again');
  return button;
}
