// Say things to an agent, one after the other, and lose or double none of them whatever breaks meanwhile.
//
//     npm install ws
//     ARGUS_TOKEN=... node client.mjs http://127.0.0.1:8080 "hello" "run: ls -la"
//
// The agent's words go to stdout, everything else to stderr. Approvals are asked on the terminal.
// In a browser: leave out this import, and give Client your own `show`, `note` and `decide`.
import WebSocket from 'ws';

const DONE_FOR = { 1000: 'closed for good', 1003: 'not understood', 1008: 'refused', 1009: 'a message was too large' };
const NOT_NOW = [-32000, -32001, -32002]; // the agent is away, overloaded, too slow: as with a broken socket, who knows
const HEARTBEAT_MS = 20_000;

class Unknown extends Error {} // No answer came: the request may have been carried out, or not.
class Refused extends Error {} // The agent's answer is an error, and will be the same the next time.
class DoneFor extends Error {} // Nothing will help but another token, session or program.

class Client {
  constructor(url, token, { show, note, decide }) {
    Object.assign(this, { url, token, print: show, note, decide });
    this.socket = this.session = this.key = this.cursor = this.thread = null;
    this.ids = 0;
    this.asked = new Map(); // id -> what is done with the answer
    this.shown = new Map(); // item id -> its text, as far as it was printed
    this.unbroken = new Set(); // items that are printed as they come: no piece of them was missed
    this.over = new Map(); // turn id -> the turn, as turn/completed or thread/read gave it
    this.changed = () => {}; // wakes who waits for the end of a turn
    this.broke = null; // why the socket is closed
  }

  /** One message, one turn; resolves to the turn when it is over. */
  async say(text) {
    const mark = crypto.randomUUID();
    for (let tried = false, tries = 0; ; tries++) {
      try {
        await this.open();
        let turn = tried ? await this.find(mark) : null;
        if (!turn) {
          tried = true;
          turn = await this.start(mark, text);
        }
        tries = 0;
        return await this.end(turn.id);
      } catch (why) {
        if (!(why instanceof Unknown)) throw why;
        this.note(`${why.message}; trying again`);
        await sleep(Math.min(5000, 100 * 2 ** tries - 100));
      }
    }
  }

  /** Begins the turn. `mark` comes back as the clientId of the message in it. */
  async start(mark, text) {
    const params = { threadId: this.thread, clientUserMessageId: mark, input: [{ type: 'text', text }] };
    try {
      return (await this.ask('turn/start', params)).turn;
    } catch (why) {
      if (!(why instanceof Refused && why.message.includes('thread not found'))) throw why;
    }
    try {
      await this.ask('thread/resume', { threadId: this.thread });
    } catch (why) {
      if (!(why instanceof Refused)) throw why;
      this.thread = null; // the agent died before anything was said in it
    }
    throw new Unknown('the agent had forgotten the thread');
  }

  /** The turn that our message is in, or null if it never reached the agent. */
  async find(mark) {
    for (;;) {
      let turns;
      try {
        turns = (await this.ask('thread/read', { threadId: this.thread, includeTurns: true })).thread.turns;
      } catch (why) {
        if (why instanceof Refused) return null; // a thread in which nothing was said yet has nothing to read
        throw why;
      }
      const turn = turns.find(({ items }) => items.some((item) => item.clientId === mark));
      if (turn && turn.status !== 'inProgress') { // it may have ended where we could not see it
        turn.items.forEach((item) => this.show(item));
        this.over.set(turn.id, turn);
      }
      if (turn) return turn;
      if (!turns.length || turns.at(-1).items.length) return null;
      await sleep(100); // a turn that is just beginning does not show its message yet
    }
  }

  /** Resolves to the turn when it is over; rejects when the socket closes before. */
  async end(id) {
    while (!this.over.has(id)) {
      if (!this.socket) throw this.broke;
      await new Promise((resolve) => { this.changed = resolve; });
    }
    return this.over.get(id);
  }

  /** A socket, with the handshake and a thread. The same session, client and thread as before, if there were. */
  async open() {
    if (!this.socket) {
      await this.connect();
      await this.ask('initialize', { clientInfo: { name: 'example', title: 'Example', version: '1' } });
      this.send({ method: 'initialized' });
    }
    if (!this.thread) {
      this.thread = (await this.ask('thread/start', { cwd: '/workspace', approvalPolicy: 'untrusted' })).thread.id;
    }
  }

  /** A browser cannot send headers with a WebSocket, so a ticket, good for one minute and one socket, opens it. */
  async connect() {
    const headers = { Authorization: `Bearer ${this.token}` };
    const response = await fetch(`${this.url}/auth/ticket`, { method: 'POST', headers }).catch((why) => {
      throw new Unknown(`no connection (${why.cause?.code ?? why.message})`);
    });
    if (response.status >= 500 || response.status === 429) throw new Unknown(`HTTP ${response.status}`);
    if (!response.ok) throw new DoneFor(`refused: ${(await response.json()).detail}`);
    const { ticket } = await response.json().catch((why) => { throw new Unknown(why.message); });
    const query = new URLSearchParams({ ticket, seq: 1 });
    if (this.session) {
      for (const [name, value] of [['session', this.session], ['client', this.key], ['after', this.cursor]]) {
        query.set(name, value);
      }
    }
    const socket = new WebSocket(`${this.url.replace('http', 'ws')}/ws?${query}`);
    let heard = Date.now();
    const heartbeat = setInterval(() => { // finds a connection that died without a word
      if (Date.now() - heard > 2 * HEARTBEAT_MS) this.lost(socket, heartbeat, { code: 1006, reason: 'silence' });
      else if (socket.readyState === 1) this.send({ id: 'heartbeat', method: 'argus/ping' });
    }, HEARTBEAT_MS);
    await new Promise((resolve, reject) => {
      this.asked.set('hello', { resolve, reject });
      this.socket = socket;
      socket.onmessage = ({ data }) => { heard = Date.now(); this.take(JSON.parse(data)); };
      socket.onerror = () => {}; // onclose follows
      socket.onclose = (event) => this.lost(socket, heartbeat, event);
    });
  }

  /** The socket is closed: who waits for something is told. */
  lost(socket, heartbeat, { code, reason }) {
    clearInterval(heartbeat);
    if (this.socket !== socket) return;
    this.socket = null;
    socket.close();
    // A ticket dies with the gateway that gave it; whether the token is good, the next ticket says.
    const forGood = code in DONE_FOR && reason !== 'Unauthorized';
    this.broke = forGood ? new DoneFor(`${DONE_FOR[code]}: ${reason}`)
      : new Unknown(`the connection broke (${code} ${reason})`);
    for (const { reject } of this.asked.values()) reject(this.broke);
    this.asked.clear();
    this.changed();
  }

  send(message) {
    if (this.socket) this.socket.send(JSON.stringify(message));
  }

  /** Send a request; resolves to its result. */
  ask(method, params) {
    return new Promise((resolve, reject) => {
      if (!this.socket) return reject(this.broke);
      const id = ++this.ids;
      this.asked.set(id, { resolve, reject });
      this.send({ id, method, params });
    });
  }

  /** Whatever comes. */
  take(message) {
    const { id, method, params = {} } = message;
    if (method && id !== undefined) this.answer(id, method, params);
    else if (!method) this.settle(id, message);
    else if (method.startsWith('argus/') && 'seq' in message) { // the gateway's own have no seq: the agent wrote it
    } else if (method === 'argus/session') {
      [this.session, this.key, this.cursor] = [params.id, params.client, params.cursor];
      if (params.resume === 'gap') this.unbroken.clear();
      this.settle('hello', { result: params });
    } else if (method === 'argus/gap') this.unbroken.clear();
    else if (method === 'argus/runtime') {
      this.note(`the agent is ${params.state} ${params.reason ?? ''}`);
      this.cursor = params.cursor ?? this.cursor;
    } else if (params.threadId === this.thread) this.follow(method, params);
    if ('seq' in message) this.cursor = `${this.cursor.split(':')[0]}:${message.seq}`;
  }

  settle(id, { result, error }) {
    const waits = this.asked.get(id);
    this.asked.delete(id);
    if (!error) waits?.resolve(result);
    else waits?.reject(new (NOT_NOW.includes(error.code) ? Unknown : Refused)(error.message));
  }

  /** What we say when the agent asks. */
  async answer(id, method, params) {
    if (!method.endsWith('/requestApproval')) {
      this.send({ id, error: { code: -32601, message: `this client does not answer ${method}` } });
    } else {
      const socket = this.socket;
      const decision = await this.decide(params.command ?? params.reason ?? method) ? 'accept' : 'decline';
      if (this.socket === socket) this.send({ id, result: { decision } }); // else it is asked again
    }
  }

  /** Our thread's notifications. */
  follow(method, params) {
    if (method === 'item/started') this.unbroken.add(params.item.id);
    else if (method === 'item/agentMessage/delta' && this.unbroken.has(params.itemId)) {
      this.shown.set(params.itemId, (this.shown.get(params.itemId) ?? '') + params.delta);
      this.print(params.delta);
    } else if (method === 'item/completed') this.show(params.item);
    else if (method === 'turn/completed') {
      this.over.set(params.turn.id, params.turn);
      this.changed();
    }
  }

  /** A whole item: prints what of its text was not printed yet. */
  show({ type, id, text }) {
    if (type !== 'agentMessage' || this.shown.get(id) === `${text}\n`) return;
    const before = this.shown.get(id) ?? '';
    this.print(`${text.startsWith(before) ? text.slice(before.length) : text}\n`);
    this.shown.set(id, `${text}\n`);
  }
}

const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

// What is left is the terminal.
const { createInterface } = await import('node:readline');
const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
const note = (text) => process.stderr.write(`-- ${text}\n`);
if (process.argv.length < 4 || !process.env.ARGUS_TOKEN) {
  note('ARGUS_TOKEN=... node client.mjs http://127.0.0.1:8080 "what to say"');
  process.exit(2);
}
const client = new Client(process.argv[2], process.env.ARGUS_TOKEN, {
  show: (text) => process.stdout.write(text),
  note,
  async decide(what) {
    note(`May it? ${what} [y/N]`);
    return ((await lines.next()).value ?? '').trim() === 'y';
  },
});
try {
  for (const words of process.argv.slice(3)) {
    const turn = await client.say(words);
    if (turn.status !== 'completed') note(`the turn ended as ${turn.status}: ${turn.error?.message ?? ''}`);
  }
} catch (why) {
  note(why.message);
  process.exitCode = 1;
}
client.socket?.close();
lines.return?.();
process.stdin.destroy();
