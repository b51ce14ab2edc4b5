// Messages on their way, from Enter until the agent's history shows them.
//
// A message is sent once. If its answer never came it is `unknown`, and the history decides: the agent stores our id
// as the user message's clientId, so it was taken, or the text goes back to who wrote it. Nothing is sent again here.

import { Disconnected, RpcError } from './connection.js';

export const REFUSED = -32600; // the agent did not do it; any other error leaves open what happened
const TRIES = 3;

const pause = (ms) => new Promise((done) => setTimeout(done, ms));

/** An id that nobody else has. (crypto.randomUUID is missing on plain http.) */
export function newId() {
  return [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, '0')).join('');
}

export class Outbox {
  /**
   * `saved` is what `save(entries)` kept, over a reload too. `giveBack(text, why)`: not sent; `takeBack(text)`: a text
   * that was given back had arrived after all.
   */
  constructor(saved, { save, giveBack, takeBack }) {
    Object.assign(this, { giveBack, takeBack, returned: new Map() });
    this.entries = (saved ?? []).map((entry) => ({ ...entry, state: 'unknown' }));
    this.save = () => save(this.entries.length ? this.entries : null);
  }

  add(text, id = newId()) {
    const entry = { id, text, thread: null, state: 'sending', at: Date.now() };
    this.entries.push(entry);
    this.save();
    return entry;
  }

  /** It goes to this thread now. Before that it was certainly not sent. */
  leaves(entry, thread) {
    entry.thread = thread;
    this.save();
  }

  taken(entry) {
    if (entry.state === 'sending') entry.state = 'taken';
  }

  /** Sending it failed. True if it must be settled to know whether it arrived. */
  failed(entry, error) {
    if (!(error instanceof RpcError || error instanceof Disconnected)) throw error;
    entry.state = 'unknown';
    const known = error.code === REFUSED || !entry.thread;
    if (known) this.#return(entry, `Not sent: ${error.message}`);
    return !known && error instanceof RpcError;
  }

  /** The history shows a message of this id. */
  seen(id) {
    this.#remove(id);
    if (this.returned.has(id)) this.takeBack(this.returned.get(id));
    this.returned.delete(id);
  }

  /** The connection broke: of none of these is it known whether it arrived. */
  doubt() {
    for (const entry of this.entries) entry.state = 'unknown';
  }

  /** Find out which unknown ones arrived; give the others back. `read(threadId, sinceMs)` gets a thread's turns. */
  async settle(read) {
    for (const entry of this.entries.filter(({ state }) => state === 'unknown')) {
      if (entry.thread && (await this.#arrived(entry, read))) this.seen(entry.id);
      else this.#return(entry, 'Not sent: the connection broke before the agent had this message.');
    }
  }

  async #arrived(entry, read) {
    for (let tries = 0; tries < TRIES; tries += 1) {
      if (tries) await pause(1000); // it may still be on its way to the agent
      if (!this.entries.includes(entry)) return true; // the stream had it
      const turns = await read(entry.thread, entry.at ?? 0).catch((error) => {
        if (error.code === REFUSED) return []; // no such thread: it never had a turn
        throw error;
      });
      if (turns.some((turn) => turn.items.some((item) => item.clientId === entry.id))) return true;
    }
    return false;
  }

  #return(entry, why) {
    if (!this.entries.includes(entry)) return;
    this.#remove(entry.id);
    this.returned.set(entry.id, entry.text);
    this.giveBack(entry.text, why);
  }

  #remove(id) {
    this.entries = this.entries.filter((entry) => entry.id !== id);
    this.save();
  }
}
