// A conversation: one session's connection and the thread shown of it. Views draw its fields and call its methods.
//
// How a reload in mid-turn loses and doubles nothing. The history (thread/read) has no text that is still being
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
import * as keep from './keep.js';
import { Outbox, REFUSED } from './outbox.js';
import * as asks from './requests.js';
import { applyFrame, applySnapshot, emptyThread, runningTurn, threadOf, warn } from './thread.js';

const INITIALIZE = { clientInfo: { name: 'argus_page', title: 'Argus page', version: '0.1.0' } };
const NEW_THREAD = { cwd: '/workspace', approvalPolicy: 'on-request', sandbox: 'workspace-write' };
const UNANSWERED_MS = 5000;

const pause = (ms) => new Promise((done) => setTimeout(done, ms));

export class Talk {
  /** `on`: changed() to draw; turnEnded(); ended(why), for ever; giveBack(text, why), takeBack(text): see Outbox. */
  constructor(session, on, threadId = null) {
    this.session = session;
    this.on = on;
    this.tab = keep.tab(session);
    this.thread = emptyThread(threadId ?? keep.thread.get(session));
    this.requests = asks.noRequests();
    const save = (entries) => this.tab.set('outbox', entries);
    this.outbox = new Outbox(this.tab.get('outbox'), { save, giveBack: on.giveBack, takeBack: on.takeBack });
    this.status = { state: 'connecting' };
    this.runtime = { state: '', reason: '' };
    Object.assign(this, { loaded: false, gap: false, stopping: null, early: [], widened: new Set() });
    this.connection = new Connection(session, this.#handlers(), { client: this.tab.get('client') });
  }

  start() {
    this.connection.restart(this.tab.get('anchor'));
  }

  stop() {
    this.connection.stop();
  }

  get running() {
    return runningTurn(this.thread);
  }

  // -- what a person does

  /** Send a text, once. */
  async send(text) {
    const entry = this.outbox.add(text);
    const late = setTimeout(() => this.connection.check(), UNANSWERED_MS);
    this.on.changed();
    try {
      const threadId = this.thread.id ?? (await this.#startThread());
      this.outbox.leaves(entry, threadId);
      if (!this.running) this.tab.set('anchor', this.connection.cursor);
      const input = [{ type: 'text', text, text_elements: [] }];
      await this.#ask('turn/start', { threadId, clientUserMessageId: entry.id, input });
      this.outbox.taken(entry);
    } catch (error) {
      if (this.outbox.failed(entry, error)) this.#settle();
    }
    clearTimeout(late);
    this.on.changed();
  }

  /** Interrupt the running turn. */
  async interrupt() {
    const turn = this.running;
    if (!turn || this.stopping === turn.id) return;
    this.stopping = turn.id;
    this.on.changed();
    try {
      await this.#ask('turn/interrupt', { threadId: this.thread.id, turnId: turn.id });
    } catch {
      this.stopping = null; // it had ended, or the connection broke: the stream or the history will say
    }
    this.on.changed();
  }

  /** Answer an approval: accept, acceptForSession or decline. */
  decide(request, decision) {
    if (request.answered || !this.connection.answer(request.id, { result: { decision } })) return;
    asks.answered(this.requests, request.id, decision);
    this.on.changed();
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
    this.tab.set('anchor', null);
    this.loaded = false;
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
    const id = (await this.#open([known])) ?? (await this.#open(await this.#listed(known)));
    this.#show(id);
    if (id) {
      const { thread } = await this.#ask('thread/read', { threadId: id, includeTurns: true });
      applySnapshot(this.thread, thread.turns);
      if (this.running && !this.running.covered && this.#widen(this.running.id)) return;
    }
    this.loaded = true;
  }

  /** The first of these threads that the agent opens. */
  async #open(ids) {
    for (const threadId of ids.filter(Boolean)) {
      try {
        await this.#ask('thread/resume', { threadId, excludeTurns: true });
        return threadId;
      } catch (error) {
        if (error.code !== REFUSED) throw error;
        // A thread that never had a turn is gone with its agent's process: nothing to tell. Else somebody has it open.
        const silent = /no rollout|not found/.test(error.message);
        if (!silent) this.early.push({ unopened: `A conversation could not be opened: ${error.message}` });
      }
    }
    return null;
  }

  /** Threads that may be this session's, newest first. */
  async #listed(known) {
    const session = await api.session(this.session);
    const { data } = await this.#ask('thread/list', { limit: 20, sortKey: 'updated_at' });
    const made = Math.floor(session.createdAtMs / 1000);
    return data.filter((thread) => thread.createdAt >= made && thread.id !== known).map((thread) => thread.id);
  }

  /** Show this thread; what was streamed before it was known which one it is goes in first. */
  #show(id) {
    if (id !== this.thread.id) this.thread = emptyThread(id);
    keep.thread.set(this.session, id);
    for (const message of this.early.splice(0)) {
      if (threadOf(message) === id) this.#fold(message);
      else if (message.unopened) warn(this.thread, message.unopened);
    }
  }

  async #startThread() {
    this.starting = true;
    try {
      const { thread } = await this.#ask('thread/start', NEW_THREAD);
      this.#show(thread.id);
      return thread.id;
    } finally {
      this.starting = false;
    }
  }

  // -- frames

  #frame(message) {
    const { id, method, params } = message;
    if (method === undefined) asks.refused(this.requests, message.error?.code);
    else if (id !== undefined) this.#asked(message);
    else if (method === 'argus/runtime') this.#runtime(params);
    else if (method === 'serverRequest/resolved') asks.resolved(this.requests, params.requestId);
    else if (method === 'configWarning') warn(this.thread, params.summary);
    else this.#notified(message);
    this.on.changed();
  }

  #asked({ id, method, params }) {
    if (asks.APPROVALS.includes(method)) return asks.ask(this.requests, { id, method, params });
    this.connection.answer(id, { error: { code: -32601, message: `this client cannot answer ${method}` } });
    return warn(this.thread, `The agent asked for ${method}. This page can't answer that, and told it so.`);
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
    if (method === 'turn/started') this.tab.set('anchor', { epoch: this.connection.cursor.epoch, seq: seq - 1 });
    if (method === 'turn/completed') this.#turnEnded();
    if (params.item?.clientId) this.outbox.seen(params.item.clientId);
  }

  #turnEnded() {
    this.tab.set('anchor', null);
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
    await this.outbox.settle((threadId) => this.#read(threadId)).catch((error) => this.#troubled(error));
    this.on.changed();
  }

  async #read(threadId) {
    const { thread } = await this.#ask('thread/read', { threadId, includeTurns: true });
    if (threadId === this.thread.id) applySnapshot(this.thread, thread.turns);
    this.on.changed();
    return thread.turns;
  }
}
