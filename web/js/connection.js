// One session's WebSocket: tickets, reconnecting, the cursor, requests and their answers. Nobody else touches it.
//
// A cursor {epoch, seq} names the newest line that was taken. While it is held, a reconnect asks for what came after
// it, and the gateway sends exactly that, then goes on live: no frame is missed or comes twice. `seq` starts again
// when the runtime is replaced, so a number that does not grow means a new epoch: begin afresh, without a cursor.

const FIRST_WAIT_S = 1;
const LAST_WAIT_S = 30;
const HELLO_TIMEOUT_MS = 60_000; // a sleeping session's runtime is started first
const PING_TIMEOUT_MS = 5_000;

/** Seconds to wait before each new attempt; `random` spreads them so that clients do not come all at once. */
export function* waits(random = Math.random) {
  for (let wait = FIRST_WAIT_S; ; wait = Math.min(LAST_WAIT_S, wait * 2)) {
    yield Math.max(FIRST_WAIT_S, wait * (0.5 + random() / 2));
  }
}

/** `<epoch>:<seq>` as {epoch, seq}. */
export function parseCursor(text) {
  const at = String(text).lastIndexOf(':');
  return { epoch: text.slice(0, at), seq: Number(text.slice(at + 1)) };
}

/** The agent or the gateway answered with an error. */
export class RpcError extends Error {
  constructor({ code, message }) {
    super(message);
    this.code = code;
  }
}

/** The connection went before the answer came: whether the request was carried out is not known. */
export class Disconnected extends Error {}

/**
 * `on.ticket()` gets a ticket; `on.hello(params, how)` begins each connection (how: fresh | ok | gap), before any
 * frame; `on.frame(message)` gets all that is no answer; `on.status(status)` is for people; `on.ended(why)` is final:
 * deleted | unknown | signed-out.
 */
export class Connection {
  #on; #ws = null; #attempt = 0; #timer = 0; #deadline = 0;
  #waits = waits(); #pending = new Map(); #newest = 0; #replayed = null;

  constructor(session, on, { client = null, cursor = null } = {}) {
    Object.assign(this, { session, client, cursor, live: false });
    this.#on = on;
    this.wake = this.wake.bind(this);
    document.addEventListener('visibilitychange', this.wake);
    addEventListener('online', this.wake);
  }

  /** Connect now, from `cursor` on; null asks for no replay. */
  restart(cursor) {
    this.cursor = cursor;
    this.#drop();
    this.#open();
  }

  stop() {
    document.removeEventListener('visibilitychange', this.wake);
    removeEventListener('online', this.wake);
    this.#drop();
  }

  /** Somebody looks at the page again, or the network is back: do not wait, and do not trust an old socket. */
  wake() {
    if (document.hidden) return;
    if (this.live) this.check();
    else if (this.#timer) this.restart(this.cursor);
  }

  /** Find out whether the other end is still there; reconnect if not. */
  async check() {
    const ws = this.#ws;
    const late = setTimeout(() => ws === this.#ws && this.#lost('the gateway did not answer'), PING_TIMEOUT_MS);
    await this.request('argus/ping', {}).catch(() => {});
    clearTimeout(late);
  }

  /** Send a request. Rejects with RpcError or Disconnected. */
  request(method, params) {
    if (!this.live) return Promise.reject(new Disconnected('not connected'));
    this.#newest += 1;
    const id = this.#newest;
    return new Promise((resolve, reject) => {
      this.#pending.set(id, { resolve, reject });
      this.#send({ id, method, params });
    });
  }

  notify(method) {
    this.#send({ method });
  }

  /** Answer a server request with `{result}` or `{error}`. False if there is no connection. */
  answer(id, answer) {
    if (this.live) this.#send({ id, ...answer });
    return this.live;
  }

  #send(message) {
    this.#ws.send(JSON.stringify(message));
  }

  async #open() {
    this.#attempt += 1;
    const attempt = this.#attempt;
    this.#on.status({ state: 'connecting' });
    this.#deadline = setTimeout(() => this.#lost('no answer in time'), HELLO_TIMEOUT_MS);
    let ticket;
    try {
      ticket = await this.#on.ticket();
    } catch (error) {
      if (attempt === this.#attempt) this.#refused(error);
      return;
    }
    if (attempt !== this.#attempt) return;
    const ws = new WebSocket(this.#url(ticket));
    this.#ws = ws;
    ws.onmessage = (event) => ws === this.#ws && this.#take(event.data);
    ws.onclose = (event) => ws === this.#ws && this.#closed(event.code, event.reason);
  }

  #url(ticket) {
    const query = new URLSearchParams({ session: this.session, seq: '1', ticket });
    if (this.client) query.set('client', this.client);
    if (this.cursor) query.set('after', `${this.cursor.epoch}:${this.cursor.seq}`);
    return `${location.protocol === 'https:' ? 'wss' : 'ws'}://${location.host}/ws?${query}`;
  }

  #take(data) {
    let message;
    try {
      message = JSON.parse(data);
    } catch {
      return; // a line of the agent that is no JSON
    }
    if (message.method === 'argus/session') this.#hello(message.params);
    else if (message.method === undefined && this.#pending.has(message.id)) this.#answered(message);
    else if (message.method === 'argus/gap') this.restart(this.cursor); // answered with `resume: gap`
    else if (!Number.isInteger(message.seq)) this.#own(message);
    else if (message.seq <= this.cursor.seq) this.restart(null);
    else {
      this.cursor.seq = message.seq;
      if (this.#replayed !== null) this.#replayed += 1;
      this.#on.frame(message);
    }
  }

  /** A frame of the gateway's own; a new agent process may count in a new epoch. */
  #own(message) {
    const cursor = message.method === 'argus/runtime' && parseCursor(message.params.cursor ?? '');
    if (cursor && cursor.epoch !== this.cursor.epoch) this.cursor = cursor;
    this.#on.frame(message);
  }

  #hello(params) {
    clearTimeout(this.#deadline);
    const cursor = parseCursor(params.cursor);
    const how = !this.cursor ? 'fresh' : params.resume === 'gap' ? 'gap' : 'ok';
    // Frames of two epochs would come with numbers that mean different things.
    if (how === 'ok' && cursor.epoch !== this.cursor.epoch) return this.restart(null);
    Object.assign(this, { cursor, client: params.client, live: true });
    this.#waits = waits();
    this.#replayed = how === 'ok' ? 0 : null;
    this.#on.status({ state: 'live' });
    this.#on.hello(params, how);
  }

  #answered(message) {
    // What was kept comes before the first answer.
    if (this.#replayed) this.#on.status({ state: 'live', replayed: this.#replayed });
    this.#replayed = null;
    const { resolve, reject } = this.#pending.get(message.id);
    this.#pending.delete(message.id);
    if (message.error) reject(new RpcError(message.error));
    else resolve(message.result);
  }

  #closed(code, reason) {
    if (reason === 'Session deleted') return this.#end('deleted');
    if (reason === 'Unknown session') return this.#end('unknown');
    if (code === 1000 && reason.startsWith('Replaced')) {
      this.client = null; // a copy of this tab took the key over; go on as somebody else
      return this.restart(this.cursor);
    }
    return this.#lost(reason);
  }

  #refused(error) {
    if (error.status === 401) this.#end('signed-out');
    else this.#lost(error.message);
  }

  #end(why) {
    this.stop();
    this.#on.ended(why);
  }

  #lost(reason) {
    this.#drop();
    const seconds = this.#waits.next().value;
    this.#timer = setTimeout(() => this.restart(this.cursor), seconds * 1000);
    this.#on.status({ state: 'waiting', until: Date.now() + seconds * 1000, reason });
  }

  /** Let go of the socket and of all who wait for an answer. */
  #drop() {
    const ws = this.#ws;
    this.#ws = null;
    this.#attempt += 1;
    this.live = false;
    clearTimeout(this.#timer);
    clearTimeout(this.#deadline);
    this.#timer = 0;
    ws?.close();
    const waiting = [...this.#pending.values()];
    this.#pending.clear();
    for (const { reject } of waiting) reject(new Disconnected('the connection broke'));
  }
}
