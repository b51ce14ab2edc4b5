// Follow-ups: what is said while a turn runs. The gateway keeps them and says them in order, page or no page.
//
// An entry is *posted* (POST /sessions/ID/inputs) under its own id as Idempotency-Key, again and again until the
// gateway's word is known, so it is one input whatever breaks; then it is the gateway's (inputs.js) and forgotten here.
// It is posted only once the agent has all messages of the outbox: a turn/start behind it would come out of order.
//
// What is *taken back* (Stop, Send now, edit) is written down here first, then removed from the gateway's queue. If it
// was begun by then, the note goes; if that can't be known, it is decided when the gateway's list comes next. So a text
// is either here or there, and never in both to be said twice.

import { ApiError, inputOf, postInput, removeInput } from './api.js';
import { newId } from './outbox.js';

const WAITS_MS = [1000, 2000, 5000, 10_000];
const isRefusal = ({ status }) => status >= 400 && status < 500 && ![401, 408, 425, 429].includes(status);

export class Queue {
  #timer = 0; #failures = 0; #posting = null;

  /**
   * `tab` keeps it over a reload. `ready()`: whether posting may go on; `accepted(inputId)`: the gateway has it;
   * `giveBack(text, why)`: it was refused; `changed()`.
   */
  constructor(session, tab, on) {
    Object.assign(this, { session, tab, on, why: '' });
    this.posts = tab.get('posts') ?? []; // {id, text, thread: null until the thread is known}
    const held = (tab.get('held') ?? []).filter(({ id }) => !on.sent(id)); // {id, text, thread, input, reason}
    this.held = held.map((note) => ({ ...note, doubt: Boolean(note.input) }));
    this.#hold((entry) => !entry.thread, 'The page was loaded again.'); // its conversation never began
  }

  /** Posts that `which` names and that the gateway surely has not seen wait for “Send now”. */
  #hold(which, reason) {
    const back = this.posts.filter((entry) => !entry.tried && which(entry));
    this.posts = this.posts.filter((entry) => !back.includes(entry));
    this.held.push(...back.map(({ id, text, thread }) => ({ id, text, thread, input: null, reason })));
  }

  #save() {
    this.tab.set('posts', this.posts.length ? this.posts : null);
    const held = this.held.map(({ busy, doubt, ...note }) => note);
    this.tab.set('held', held.length ? held : null);
    this.on.changed();
  }

  stop() {
    clearTimeout(this.#timer);
    this.stopped = true;
  }

  // -- on their way to the gateway

  add(text, thread) {
    this.posts.push({ id: newId(), text, thread });
    this.#save();
    this.flush();
  }

  /** It is known now which thread these are for. */
  adopt(thread) {
    if (!this.posts.some((entry) => !entry.thread)) return;
    for (const entry of this.posts) entry.thread ??= thread;
    this.#save();
  }

  /** What was not posted yet waits; what may have arrived is taken back as soon as the gateway says that it did. */
  holdPosts(reason) {
    if (!this.posts.length) return;
    this.#hold(() => true, reason);
    for (const entry of this.posts) entry.hold = reason;
    this.#save();
  }

  /** Post what there is, one after the other. Resolves when no more can be done for now. */
  flush() {
    clearTimeout(this.#timer);
    this.#posting ??= this.#post().finally(() => {
      this.#posting = null;
    });
    return this.#posting;
  }

  async #post() {
    while (!this.stopped && this.posts[0]?.thread && this.on.ready()) {
      const entry = this.posts[0];
      entry.tried = true;
      this.#save();
      try {
        const { inputId } = await postInput(this.session, entry.id, entry.text, entry.thread);
        await this.on.accepted(inputId);
        const taken = entry.hold && this.takeBack([{ inputId, text: entry.text }], entry.thread, entry.hold);
        this.#posted(entry, '');
        await taken;
      } catch (error) {
        if (!(error instanceof ApiError)) throw error;
        if (!isRefusal(error)) return this.#later(error);
        this.#posted(entry, '');
        this.on.giveBack(entry.text, `Not queued: ${error.message}`);
      }
    }
    return undefined;
  }

  #posted(entry, why) {
    this.posts = this.posts.filter((each) => each !== entry);
    this.#failures = 0;
    this.why = why;
    this.#save();
  }

  #later(error) {
    const wait = WAITS_MS[Math.min(this.#failures, WAITS_MS.length - 1)];
    this.#failures += 1;
    this.why = `Not with the gateway yet (${error.message}) Trying again.`;
    this.on.changed();
    if (!this.stopped && error.status !== 401) this.#timer = setTimeout(() => this.flush(), wait);
  }

  // -- taken back

  /** Take inputs out of the gateway's queue; the notes of those that were still there. */
  async takeBack(inputs, thread, reason) {
    const notes = inputs.map(({ inputId, text }) => ({ id: newId(), text, thread, input: inputId, reason }));
    this.held.push(...notes);
    this.#save();
    await Promise.all(notes.map((note) => this.#remove(note)));
    return notes.filter((note) => this.held.includes(note) && !note.input);
  }

  async #remove(note) {
    note.busy = true;
    try {
      await removeInput(note.input);
      note.input = null;
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      if (error.status === 404) note.input = null; // the gateway has lost it: the text is here
      else if (isRefusal(error)) await this.#refused(note);
      else note.doubt = true;
    }
    note.busy = false;
    this.#save();
  }

  /** It does not wait any more: it was begun, or an earlier attempt of ours had removed it. */
  async #refused(note) {
    const state = note.doubt ? (await inputOf(note.input).catch(() => ({}))).state : 'begun';
    if (state) this.#decide(note, state);
  }

  #decide(note, state) {
    if (state === 'removed') note.input = null;
    else this.held = this.held.filter((each) => each !== note);
  }

  /** Notes of unknown outcome. `stateOf(inputId)`: what the gateway says of an input; undefined: not known. */
  settle(stateOf) {
    for (const note of this.held.filter(({ input, busy }) => input && !busy)) {
      const state = stateOf(note.input);
      if (state === 'queued') this.#remove(note);
      else if (state) this.#decide(note, state);
    }
    this.#save();
  }

  /** Texts of a thread that wait for “Send now”. */
  heldOf(thread) {
    return this.held.filter((note) => [thread, null].includes(note.thread) && !note.input);
  }

  /** Take a note out; undefined if it is not there. */
  drop(id) {
    const note = this.held.find((each) => each.id === id);
    this.held = this.held.filter((each) => each !== note);
    this.#save();
    return note;
  }
}
