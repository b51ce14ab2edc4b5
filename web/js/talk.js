// A conversation: one session's connection and the thread shown of it. Views draw its fields and call its methods.
//
// How a reload in mid-turn loses and doubles nothing. The history (history.js) has no text that is still being
// written, the gateway's replay has it, so the page must connect from before the running turn's beginning:
//   1. When a turn is asked for, the newest cursor, and at turn/started the one just before it (seq - 1), is kept in
//      sessionStorage, the *anchor*, until the turn ends. A page that finds one connects with it: turn/started and all
//      deltas come again, once, in order.
//   2. Without an anchor (another tab or device, the turn began while nobody looked) it connects without a cursor. If
//      the history then shows a running turn whose beginning was not streamed, it forgets what it has, and connects
//      once more from the epoch's beginning, `<epoch>:0`: all that the gateway still keeps.
//   3. If that is too old (resume: gap), the text's beginning is missing; this is said, and the whole text comes with
//      item/completed, or with the history that is read again when the turn ends.
// thread.js gives each turn to either the stream or the history, so it does not matter which of them comes first.

import * as api from './api.js';
import { Connection, Disconnected, RpcError } from './connection.js';
import { History } from './history.js';
import { Inputs, isTyped } from './inputs.js';
import * as keep from './keep.js';
import { Outbox } from './outbox.js';
import { Queue } from './queue.js';
import * as asks from './requests.js';
import * as threads from './thread.js';
import { Threads } from './threads.js';
import { answeredWords } from './words.js';

const { applyFrame, applyOlder, applySnapshot, emptyThread, runningTurn, threadOf, warn } = threads;

const INITIALIZE = { clientInfo: { name: 'argus_page', title: 'Argus page', version: '0.1.0' } };
const NEW_THREAD = { cwd: '/workspace', approvalPolicy: 'on-request', sandbox: 'workspace-write' };
const UNANSWERED_MS = 5000;
const TAKE_BACK_MS = 1500; // Stop waits no longer for what is queued
const LISTEN_MS = 4000; // an agent that goes on after Stop for longer is ended by the gateway

const pause = (ms) => new Promise((done) => setTimeout(done, ms));

export class Talk {
  /**
   * `threadId`: the one to show, 'new' for one that begins, null for the one that was shown last.
   * `on`: changed() to draw; shown(threadId); turnEnded(); ended(why), for ever; giveBack(text, why) and
   * takeBack(text): see Outbox.
   */
  constructor(session, on, threadId = null) {
    Object.assign(this, { session, on, tab: keep.tab(session), fresh: threadId === 'new' });
    this.thread = emptyThread(this.fresh ? null : threadId ?? keep.thread.get(session));
    this.requests = asks.noRequests();
    const save = (entries) => this.tab.set('outbox', entries);
    this.outbox = new Outbox(this.tab.get('outbox'), { save, giveBack: (...back) => this.#gaveBack(...back), takeBack: on.takeBack });
    this.threads = new Threads(session, (...asked) => this.#ask(...asked));
    this.history = new History((...asked) => this.#ask(...asked));
    const changed = () => on.changed();
    this.queue = new Queue(session, this.tab, {
      changed, giveBack: on.giveBack, accepted: (id) => this.inputs.read(id), ready: () => this.#agentHasAll(),
      sent: (id) => this.outbox.entries.some((entry) => entry.id === id),
    });
    this.inputs = new Inputs(session, this.tab, { changed, settled: (stateOf) => this.queue.settle(stateOf) });
    this.status = { state: 'connecting' };
    this.runtime = { state: '', reason: '' };
    const flags = { loaded: this.fresh, gap: false, stopping: null, model: '', fetching: false };
    Object.assign(this, { ...flags, early: [], widened: new Set() });
    this.connection = new Connection(session, this.#handlers(), { client: this.tab.get('client') });
  }

  start() {
    const anchor = this.tab.get('anchor');
    const usable = anchor && !this.fresh && [undefined, null, this.thread.id].includes(anchor.thread);
    this.connection.restart(usable ? { epoch: anchor.epoch, seq: anchor.seq } : null);
  }

  stop() {
    this.connection.stop();
    this.queue.stop();
  }

  get running() {
    return runningTurn(this.thread);
  }

  /** Whether what is said now would cut into something. */
  get busy() {
    const posted = this.queue.posts.some(({ thread }) => !thread || thread === this.thread.id);
    return Boolean(this.running || this.outbox.entries.length || posted || this.inputs.waiting.length);
  }

  // -- what a person does

  /** Say something: at once if nothing is before it, else by the gateway's queue. */
  say(text) {
    if (this.busy) this.queue.add(text, this.thread.id);
    else this.send(text);
  }

  /** Send a text to the agent, once; a running turn is steered. `id`: of the note that it was kept under. */
  async send(text, id) {
    const entry = this.outbox.add(text, id);
    if (id) this.queue.drop(id);
    const late = setTimeout(() => this.connection.check(), UNANSWERED_MS);
    this.on.changed();
    try {
      const threadId = this.thread.id ?? (await this.#startThread());
      this.outbox.leaves(entry, threadId);
      if (!this.running) this.#anchor(this.connection.cursor);
      const input = [{ type: 'text', text, text_elements: [] }];
      await this.#ask('turn/start', { threadId, clientUserMessageId: entry.id, input });
      this.outbox.taken(entry);
    } catch (error) {
      if (this.outbox.failed(entry, error)) this.#settle();
    }
    clearTimeout(late);
    this.queue.flush();
    this.on.changed();
  }

  /** Interrupt the running turn. What was typed in pages and waits is taken back first: it would begin at once. */
  async interrupt() {
    const turn = this.running;
    if (!turn || this.stopping === turn.id) return;
    this.stopping = turn.id;
    this.on.changed();
    try {
      await Promise.race([this.#takeAllBack(), pause(TAKE_BACK_MS)]);
      pause(LISTEN_MS).then(() => {
        if (this.stopping === turn.id) this.#ask('argus/turn/cancel', { threadId: this.thread.id }).catch(() => {});
      });
      await this.#ask('turn/interrupt', { threadId: this.thread.id, turnId: turn.id });
    } catch {
      this.stopping = null; // it had ended, or the connection broke: the stream or the history will say
    }
    this.on.changed();
  }

  /** Answer a question: accept, acceptForSession or decline, with what was filled in. */
  decide(request, decision, given) {
    if (!request.mine || request.answered) return;
    if (!this.connection.answer(request.id, asks.answerTo(request, decision, given))) return;
    asks.answered(this.requests, request.id, decision);
    threads.noteAnswer(this.thread, request.params, answeredWords(decision, 'you'), false);
    this.on.changed();
  }

  /** Make a question of another client this one's to answer. Rejects with the gateway's reason. */
  async take(request) {
    request.taking = true;
    this.on.changed();
    try {
      await this.#ask('argus/question/take', { id: request.id });
    } finally {
      request.taking = false;
      this.on.changed();
    }
  }

  /** Show the page of history before what is shown; false if there is none or it is on its way. */
  async loadOlder() {
    const { thread } = this;
    if (!thread.older || this.fetching || !this.connection.live) return false;
    this.fetching = true;
    try {
      const { turns, older } = await this.history.page(thread.id, thread.older);
      if (thread === this.thread) applyOlder(thread, turns, older);
    } catch (error) {
      this.#troubled(error);
    } finally {
      this.fetching = false;
    }
    this.on.changed();
    return true;
  }

  // -- what waits for the turn's end

  /** Whether what is posted now stands behind everything that was sent before. */
  #agentHasAll() {
    return this.outbox.entries.every((entry) => entry.state === 'taken');
  }

  async #takeAllBack() {
    const { queue } = this;
    if (queue.posts.length) await queue.flush();
    queue.holdPosts('The turn was stopped.');
    await queue.takeBack(this.inputs.waiting.filter(isTyped), this.thread.id, 'The turn was stopped.');
  }

  /** Take an input back that a page queued; its note, or undefined if it was begun by now. */
  async takeBack(input) {
    const [note] = await this.queue.takeBack([input], this.thread.id, '');
    return note;
  }

  #gaveBack(text, why) {
    this.queue.adopt(this.thread.id);
    this.queue.holdPosts('The message before was not sent.');
    this.on.giveBack(text, why);
  }

  #anchor(cursor) {
    this.tab.set('anchor', cursor && { ...cursor, thread: this.thread.id });
  }

  // -- the connection

  #handlers() {
    return {
      ticket: api.socketTicket,
      hello: (params, how) => this.#hello(params, how),
      frame: (message) => this.#frame(message),
      ended: (why) => this.on.ended(why),
      status: (status) => {
        this.status = { ...status, at: Date.now(), gap: this.gap };
        this.on.changed();
      },
    };
  }

  #ask(method, params) {
    return this.connection.request(method, params);
  }

  #hello(params, how) {
    this.tab.set('client', params.client);
    asks.doubt(this.requests);
    this.outbox.doubt();
    this.gap = how !== 'ok' && (this.gap || this.loaded); // what was shown had to be loaded again
    this.status = { state: 'live', gap: this.gap };
    if (how !== 'ok') this.#forget();
    this.#begin();
  }

  /** What is shown has a hole, or will come again: start over with this thread. */
  #forget() {
    this.thread = emptyThread(this.thread.id);
    this.#anchor(null);
    this.loaded = this.fresh && !this.thread.id;
    this.early = [];
  }

  /** Connect once for each `why` from as far back as the gateway can; false if that was done. */
  #widen(why) {
    const { cursor } = this.connection;
    if (this.widened.has(why) || cursor.seq === 0) return false;
    this.widened.add(why);
    this.#forget();
    this.connection.restart({ epoch: cursor.epoch, seq: 0 });
    return true;
  }

  async #begin() {
    try {
      await this.#ask('initialize', INITIALIZE);
      this.connection.notify('initialized');
      this.runtime = { state: 'running', reason: '' };
      asks.settle(this.requests);
      if (!this.loaded) await this.#load();
      await this.#reread();
    } catch (error) {
      this.#troubled(error);
    }
    await this.#settle();
    await this.inputs.load(this.thread.id);
    this.queue.flush();
  }

  /** A part of opening did not work. A broken connection begins again by itself; a dead agent says when it is back. */
  #troubled(error) {
    if (error instanceof Disconnected) return;
    if (!(error instanceof RpcError || error instanceof api.ApiError)) throw error;
    this.runtime = { state: this.runtime.state || 'failed', reason: error.message };
    this.on.changed();
  }

  // -- the thread

  async #load() {
    if (!this.thread.id && this.#widen('which thread')) return;
    const known = this.thread.id ?? this.early.map(threadOf).findLast(Boolean);
    const failed = (unopened) => this.early.push({ unopened });
    const ours = async () => (await this.threads.list()).map(({ id }) => id).filter((id) => id !== known);
    const opened = (await this.threads.open([known], failed)) ?? (await this.threads.open(await ours(), failed));
    const id = opened?.thread.id ?? null;
    this.model = opened?.model ?? '';
    this.#show(id, opened?.thread.name);
    if (id) {
      const { turns, older } = await this.history.page(id);
      applySnapshot(this.thread, turns, older);
      if (this.running && !this.running.covered && this.#widen(this.running.id)) return;
    }
    this.loaded = true;
  }

  /** Show this thread; what was streamed before it was known which one it is goes in first. */
  #show(id, name) {
    if (id !== this.thread.id) this.thread = emptyThread(id);
    this.thread.name = name || this.thread.name;
    this.fresh = false;
    keep.thread.set(this.session, id);
    if (id) this.queue.adopt(id);
    if (id !== this.inputs.thread) this.inputs.load(id);
    this.on.shown(id);
    for (const message of this.early.splice(0)) {
      if (threadOf(message) === id) this.#fold(message);
      else if (message.unopened) warn(this.thread, message.unopened);
    }
  }

  async #startThread() {
    this.starting = true;
    try {
      const { thread, model } = await this.#ask('thread/start', NEW_THREAD);
      this.model = model ?? '';
      this.#show(thread.id);
      return thread.id;
    } finally {
      this.starting = false;
    }
  }

  // -- frames

  #frame(message) {
    try {
      this.#take(message);
    } catch (error) { // an agent may put anything anywhere: one bad frame must not end the page
      warn(this.thread, `The page could not read a message of the agent (${message.method}): ${error.message}`);
    }
    this.on.changed();
  }

  #take(message) {
    const { id, method, params } = message;
    if (method === undefined) asks.refused(this.requests, message.error?.code);
    else if (id !== undefined) this.#asked(message);
    else if (method === 'argus/runtime') this.#runtime(params);
    else if (method === 'argus/question') this.#told(params);
    else if (method === 'argus/input') this.inputs.told(params);
    else if (method === 'serverRequest/resolved') asks.resolved(this.requests, params.requestId);
    else if (method === 'configWarning') warn(this.thread, params.summary);
    else this.#notified(message);
  }

  #asked({ id, method, params }) {
    if (asks.isForPeople(method)) return asks.ask(this.requests, { id, method, params }, Date.now());
    this.connection.answer(id, { error: { code: -32601, message: `this client cannot answer ${method}` } });
    return warn(this.thread, `The agent asked for ${method}. This page can't answer that, and told it so.`);
  }

  /** What became of a question, whoever's it is. */
  #told(question) {
    if (!asks.told(this.requests, question, this.connection.client, Date.now())) return;
    const { threadId, turnId, itemId, decision } = question;
    const words = answeredWords(decision, 'another window');
    if (threadId === this.thread.id) threads.noteAnswer(this.thread, { turnId, itemId }, words, true);
  }

  #runtime({ state, reason }) {
    this.runtime = { state, reason };
    if (state !== 'running') this.thread.lost = reason || 'the agent stopped';
    else if (!this.loaded) this.#begin();
    else {
      if (!this.thread.turns.length) this.thread = emptyThread(); // it was only in the former process's memory
      this.#settle();
    }
  }

  #notified(message) {
    const id = threadOf(message);
    if (!this.thread.id && !this.loaded) this.early.push(message);
    else if (!this.thread.id && this.#isOthersThread(message)) this.#show(id);
    if (id && id === this.thread.id) this.#fold(message);
    if (message.method === 'turn/completed') asks.turnEnded(this.requests, id, message.params.turn.id);
  }

  /** A session that had no thread got one from another client. */
  #isOthersThread({ method, params }) {
    const isNew = method === 'thread/started' && !params.thread.parentThreadId;
    return !this.starting && (isNew || method === 'turn/started');
  }

  #fold(message) {
    const { method, params, seq } = message;
    applyFrame(this.thread, message);
    if (method === 'turn/started') this.#anchor({ epoch: this.connection.cursor.epoch, seq: seq - 1 });
    const said = params.item?.clientId;
    if (said) this.outbox.seen(said);
    if (said) this.inputs.seen(said);
    if (method === 'turn/completed') this.#turnEnded();
  }

  #turnEnded() {
    this.#anchor(null);
    this.stopping = null;
    this.on.turnEnded();
    if (this.thread.stale && this.loaded) this.#reread().catch((error) => this.#troubled(error));
  }

  /** Read the history until it has the end of a turn whose beginning was not streamed. */
  async #reread() {
    for (let tries = 0; this.thread.stale && tries < 5; tries += 1) {
      if (tries) await pause(1000);
      await this.#read(this.thread.id);
    }
  }

  /** What became of messages without an answer. */
  async #settle() {
    await this.outbox.settle((threadId, sinceMs) => this.#since(threadId, sinceMs)).catch((error) => this.#troubled(error));
    this.on.changed();
  }

  async #since(threadId, sinceMs) {
    const { turns, older } = await this.history.since(threadId, sinceMs);
    if (threadId === this.thread.id) applySnapshot(this.thread, turns, older);
    this.on.changed();
    return turns;
  }

  #read(threadId) {
    return this.#since(threadId, Infinity);
  }
}
