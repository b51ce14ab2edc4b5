// Inputs: what was said by the durable way, as the gateway tells of it. It says by `argus/input` that one has changed;
// then that one is asked for again.

import { ApiError, deadDeliveries, inputOf, inputsOf } from './api.js';

const MANY = 20; // more than this changed at once: the whole list is one request
const IDS = /^in_[0-9a-f]+$/;
const RECENT_MS = 7 * 24 * 60 * 60 * 1000;
const OVER = ['interrupted', 'failed'];

const rank = (state) => ['queued', 'started'].indexOf(state) + 1 || 3;

/** The channel that the page's own follow-ups name. */
export const PAGE = 'page';

/** Where an input came from, in a word or two; empty for what was typed in a page. */
export function sourceWords({ source }) {
  if (source?.channel === PAGE) return '';
  const words = [source?.channel, source?.chatKey].filter((word) => typeof word === 'string' && word);
  return words.join(' · ').slice(0, 80) || 'API';
}

export const isTyped = (input) => input.source?.channel === PAGE;

export class Inputs {
  #dirty = new Set(); #asked = new Set(); #reading = null;

  /** `changed()`: there is something new to draw. `settled(stateOf)`: the list was read. */
  constructor(session, tab, on) {
    Object.assign(this, { session, tab, on, thread: null, revision: 0, problem: '', dead: new Map() });
    this.byId = new Map();
  }

  /** Read the newest inputs of a thread. */
  async load(thread) {
    if (thread !== this.thread) this.byId.clear();
    Object.assign(this, { thread });
    if (!thread) return;
    await this.#guarded(async () => {
      const [inputs, dead] = await Promise.all([inputsOf(this.session, thread), deadDeliveries(this.session)]);
      if (thread !== this.thread) return;
      this.#asked.clear();
      this.dead = Map.groupBy(dead, ({ inputId }) => inputId);
      for (const input of inputs.reverse()) this.#put(input);
      this.on.settled((id) => this.byId.get(id)?.state);
    });
  }

  /** argus/input: one of the session has changed. */
  told({ inputId, threadId, delivery }) {
    const isHere = this.byId.has(inputId) || (!delivery && threadId && threadId === this.thread);
    if (!isHere) return;
    this.#dirty.add(inputId);
    this.#reading ??= this.#readDirty().finally(() => {
      this.#reading = null;
    });
  }

  async #readDirty() {
    while (this.#dirty.size) {
      const ids = [...this.#dirty];
      this.#dirty.clear();
      if (ids.length > MANY) await this.load(this.thread);
      else await Promise.all(ids.map((id) => this.read(id)));
    }
  }

  /** Ask for one; its receipt, or undefined if that did not work. */
  read(id) {
    return this.#guarded(async () => {
      const { thread } = this;
      const receipt = await inputOf(id);
      if (receipt.sessionId === this.session && thread === this.thread) this.#put(receipt);
      return receipt;
    });
  }

  /** States only go forward: an answer that was overtaken by a newer one is dropped. */
  #put(input) {
    const had = this.byId.get(input.inputId);
    if (had && rank(had.state) > rank(input.state)) return;
    this.byId.set(input.inputId, input);
    this.revision += 1;
    this.on.changed();
  }

  async #guarded(act) {
    try {
      const found = await act();
      this.problem = '';
      return found;
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      if (error.status && error.status !== 404) this.problem = `What waits could not be read: ${error.message}`;
      this.on.changed();
      return undefined;
    }
  }

  /** The agent has a user message of this id: what it says does not wait any more. */
  seen(clientId) {
    for (const input of this.byId.values()) {
      if (input.messageId === clientId && input.state === 'queued') this.#put({ ...input, state: 'started' });
    }
  }

  // -- what is known

  /**
   * The inputs that a user message with this clientId says: several if they were merged; [] if it is no input; null if
   * that is being found out.
   */
  saidBy(clientId) {
    if (!IDS.test(clientId ?? '')) return [];
    const found = [...this.byId.values()].filter((input) => input.messageId === clientId);
    if (found.length) return found;
    if (this.#asked.has(clientId)) return this.#asked.has(`${clientId}!`) ? [] : null;
    this.#asked.add(clientId);
    this.read(clientId).then(() => {
      this.#asked.add(`${clientId}!`);
      this.revision += 1;
      this.on.changed();
    });
    return null;
  }

  /** The inputs of a turn. */
  ofTurn(turnId) {
    return [...this.byId.values()].filter((input) => input.turnId === turnId);
  }

  /** What waits, in the order in which it will be said. */
  get waiting() {
    const queued = [...this.byId.values()].filter(({ state }) => state === 'queued');
    const after = ({ mode }) => (mode === 'interrupt' ? 0 : 1);
    return queued.sort((a, b) => after(a) - after(b) || a.acceptedAtMs - b.acceptedAtMs);
  }

  /** Whether an input was not answered and was not said again. */
  isOpenEnd({ inputId, state }) {
    return OVER.includes(state) && ![...this.byId.values()].some(({ retryOf }) => retryOf === inputId);
  }

  /** What came to nothing before it had a turn, in the last days. */
  troubled() {
    const put = new Set(this.tab.get('dismissed') ?? []);
    const since = Date.now() - RECENT_MS;
    const isNews = ({ inputId, turnId, endedAtMs }) => !turnId && endedAtMs > since && !put.has(inputId);
    return [...this.byId.values()].filter((input) => this.isOpenEnd(input) && isNews(input));
  }

  /** Deliveries of its answer that were given up. */
  deadOf({ inputId, deliveries }) {
    return (deliveries ?? this.dead.get(inputId) ?? []).filter(({ state }) => state === 'dead');
  }

  dismiss(id) {
    this.tab.set('dismissed', [...(this.tab.get('dismissed') ?? []), id].slice(-100));
    this.on.changed();
  }
}
