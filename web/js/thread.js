// What is known of one thread: turns, their items, their texts. Pure: frames and answers in, state out.
//
// Two sources tell the same story: the stream of notifications, and thread/read (the snapshot), which holds whole
// items but nothing of a text that is still being written. So that nothing is lost or doubled when both are used,
// in whatever order they come, each turn has one owner:
//
//   - A turn whose turn/started was in the stream is *covered*: the stream has all of it, its beginning and every
//     delta once, because the gateway's replay joins the live stream without a seam. The snapshot is ignored for it.
//   - Any other turn is the snapshot's. If it is still running, items that complete later are added by their id; a
//     text that began before we listened has no beginning here, is marked `headless`, and is whole once its item is
//     complete. When such a turn ends the thread is `stale`: read it again, and the snapshot has the whole turn.
//
// Who opens a page on a running turn should therefore connect with a cursor before its turn/started (see talk.js).

export function emptyThread(id = null) {
  const notices = { loose: [], warned: new Set(), notices: 0 };
  return { id, turns: [], byId: new Map(), waiting: false, lost: '', stale: false, revision: 0, ...notices };
}

/** The turn that runs now, or undefined. */
export function runningTurn(thread) {
  const last = thread.turns.at(-1);
  return last?.status === 'inProgress' ? last : undefined;
}

/** The thread that a notification is about, or undefined. */
export const threadOf = ({ params }) => params?.threadId ?? params?.thread?.id;

/** Fold one notification of this thread in. Unknown ones are no error: agents have more than a page shows. */
export function applyFrame(thread, { method, params }) {
  const fold = FOLDS[method];
  if (!fold) return;
  fold(thread, params);
  thread.revision += 1;
}

/** Fold the turns of a thread/read in. */
export function applySnapshot(thread, turns) {
  const before = thread.byId;
  thread.byId = new Map();
  for (const raw of turns) {
    const have = before.get(raw.id);
    thread.byId.set(raw.id, have?.covered ? have : fromSnapshot(raw, have));
    before.delete(raw.id);
  }
  for (const [id, turn] of before) thread.byId.set(id, turn);
  thread.turns = [...thread.byId.values()];
  thread.stale = thread.turns.some((turn) => !turn.covered && turn.ended && !turn.whole);
}

// -- turns

function newTurn(id, covered) {
  const life = { status: 'inProgress', error: null, reason: '', ended: false, startedAt: null, durationMs: null };
  return { id, covered, whole: false, items: new Map(), version: 0, ...life };
}

function fromSnapshot(raw, have) {
  const turn = newTurn(raw.id, false);
  for (const item of raw.items ?? []) putItem(turn, item, item.status !== 'inProgress');
  turn.whole = raw.status !== 'inProgress'; // the snapshot has all of it
  for (const item of have?.items.values() ?? []) {
    if (!turn.items.has(item.id) && !(turn.whole && item.headless)) turn.items.set(item.id, item);
  }
  const end = have?.ended && !turn.whole ? have : raw;
  Object.assign(turn, times(raw), { status: end.status, error: end.error ?? null, ended: end.status !== 'inProgress' });
  turn.version = (have?.version ?? 0) + 1;
  if (turn.ended) closeItems(turn);
  return turn;
}

const times = ({ startedAt, durationMs }) => ({ startedAt: startedAt ?? null, durationMs: durationMs ?? null });

function turnOf(thread, id) {
  const turn = thread.byId.get(id) ?? newTurn(id, false);
  if (!thread.byId.has(id)) addTurn(thread, turn);
  turn.version += 1;
  return turn;
}

function addTurn(thread, turn) {
  thread.byId.set(turn.id, turn);
  thread.turns.push(turn);
}

function startTurn(thread, { turn: raw }) {
  const have = thread.byId.get(raw.id);
  const turn = Object.assign(newTurn(raw.id, true), times(raw));
  if (have) Object.assign(have, turn, { version: have.version + 1 }); // all of it comes again, from its beginning
  else addTurn(thread, turn);
  for (const notice of thread.loose.splice(0)) addNotice(thread, raw.id, notice);
  thread.lost = '';
}

function endTurn(thread, { turn: raw }) {
  const turn = turnOf(thread, raw.id);
  const { status, error = null, durationMs = null } = raw;
  Object.assign(turn, { status, error, durationMs, ended: true });
  if (raw.status === 'interrupted' && !raw.durationMs) turn.reason = thread.lost;
  for (const item of turn.items.values()) {
    if (item.type === 'notice' && item.text === turn.error?.message) turn.items.delete(item.id); // said by the end
  }
  closeItems(turn);
  thread.waiting = false;
  thread.stale ||= !turn.covered;
}

/** Items that never completed (interrupted, or cut by something the user said) do not go on. */
function closeItems(turn) {
  for (const item of turn.items.values()) {
    if (item.done) continue;
    Object.assign(item, { done: true, cut: true, version: item.version + 1 });
  }
}

// -- items

function putItem(turn, raw, done, startedAtMs) {
  const have = turn.items.get(raw.id);
  if (have?.done && !done) return have;
  const item = have ?? { id: raw.id, type: raw.type, text: '', output: '', version: 0, startedAtMs };
  Object.assign(item, { raw, done, headless: false, version: item.version + 1 });
  item.text = textOf(raw) || item.text;
  if (raw.aggregatedOutput) item.output = raw.aggregatedOutput; // deltas of output may be incomplete
  turn.items.set(raw.id, item);
  return item;
}

function textOf(raw) {
  if (raw.type === 'userMessage') return raw.content.map(partText).join('\n');
  if (raw.type === 'reasoning') return [...(raw.summary ?? []), ...(raw.content ?? [])].join('\n\n');
  return raw.text ?? '';
}

function partText(part) {
  if (part.type === 'text') return part.text;
  return `[${part.type}${part.path ? ` ${part.path}` : ''}]`;
}

function startItem(thread, { turnId, item, startedAtMs }) {
  putItem(turnOf(thread, turnId), item, false, startedAtMs).waits = thread.waiting;
}

function completeItem(thread, { turnId, item }) {
  putItem(turnOf(thread, turnId), item, true);
}

/** The item that a delta belongs to; undefined if it is complete already. */
function growing(thread, { turnId, itemId }, type) {
  const turn = turnOf(thread, turnId);
  const have = turn.items.get(itemId);
  if (have?.done) return undefined;
  if (have) return Object.assign(have, { version: have.version + 1 });
  const item = putItem(turn, { id: itemId, type }, false);
  item.headless = true;
  return item;
}

const grows = (type, field = 'text') => (thread, params) => {
  const item = growing(thread, params, type);
  if (item) item[field] += params.delta;
};

function nextPart(thread, params) {
  const item = growing(thread, params, 'reasoning');
  if (item?.text) item.text += '\n\n';
}

function patchUpdated(thread, params) {
  const item = growing(thread, params, 'fileChange');
  if (item) item.raw = { ...item.raw, changes: params.changes };
}

// -- notices: warnings and errors, shown where they happened

/** Put a warning into the running turn or, without one, into the next; the same words only once. */
export function warn(thread, text) {
  if (thread.warned.has(text)) return;
  thread.warned.add(text);
  const turn = runningTurn(thread);
  if (turn) addNotice(thread, turn.id, { kind: 'warning', text });
  else thread.loose.push({ kind: 'warning', text });
}

function addNotice(thread, turnId, { kind, text }) {
  const turn = turnOf(thread, turnId);
  const last = [...turn.items.values()].at(-1);
  if (last?.kind === 'retry') turn.items.delete(last.id); // "trying again 2/5" takes the place of 1/5
  thread.notices += 1;
  const id = `notice-${thread.notices}`;
  turn.items.set(id, { id, type: 'notice', kind, text, done: true, version: 1, raw: {} });
}

function failed(thread, { turnId, error, willRetry }) {
  addNotice(thread, turnId, { kind: willRetry ? 'retry' : 'error', text: error.message });
}

function statusChanged(thread, { status }) {
  thread.waiting = Boolean(status.activeFlags?.includes('waitingOnApproval'));
  const turn = thread.waiting ? undefined : runningTurn(thread);
  for (const item of turn?.items.values() ?? []) {
    if (item.waits) Object.assign(item, { waits: false, version: item.version + 1 });
  }
}

const FOLDS = {
  'turn/started': startTurn,
  'turn/completed': endTurn,
  'item/started': startItem,
  'item/completed': completeItem,
  'item/agentMessage/delta': grows('agentMessage'),
  'item/plan/delta': grows('plan'),
  'item/reasoning/summaryTextDelta': grows('reasoning'),
  'item/reasoning/textDelta': grows('reasoning'),
  'item/reasoning/summaryPartAdded': nextPart,
  'item/commandExecution/outputDelta': grows('commandExecution', 'output'),
  'item/fileChange/patchUpdated': patchUpdated,
  'thread/status/changed': statusChanged,
  error: failed,
  warning: (thread, { message }) => warn(thread, message),
};
