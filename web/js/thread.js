// What is known of one thread: turns, their items, their texts. Pure: frames and answers in, state out.
//
// Two sources tell the same story: the stream of notifications, and the history (the snapshot), which holds whole
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

import { pick } from './words.js';

export function emptyThread(id = null) {
  const notices = { loose: [], warned: new Set(), notices: 0, answers: new Map() };
  const page = { older: null, stale: false, revision: 0 }; // older: the cursor of the page before these turns
  return { id, name: '', usage: null, turns: [], byId: new Map(), waiting: false, lost: '', ...page, ...notices };
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
  const fold = pick(FOLDS, method);
  if (!fold) return;
  fold(thread, params);
  thread.revision += 1;
}

/** Fold the newest page of the history in, its turns oldest first; `older` is the cursor of the page before it. */
export function applySnapshot(thread, turns, older = null) {
  const before = thread.byId;
  const list = [...before.values()];
  const first = list.findIndex((turn) => turns.some((raw) => raw.id === turn.id));
  const kept = first < 0 ? [] : list.slice(0, first); // pages that were loaded before; none if there is a hole now
  thread.byId = new Map(kept.map((turn) => [turn.id, turn]));
  for (const raw of turns) {
    const have = before.get(raw.id);
    thread.byId.set(raw.id, have?.covered ? have : fromSnapshot(raw, have));
  }
  const isNew = (turn) => turn.covered || !turn.whole; // newer than the page; what only a page said went with it
  for (const turn of list) if (!thread.byId.has(turn.id) && isNew(turn)) thread.byId.set(turn.id, turn);
  thread.turns = [...thread.byId.values()];
  if (!kept.length) thread.older = older;
  thread.stale = thread.turns.some((turn) => !turn.covered && turn.ended && !turn.whole);
  thread.revision += 1;
}

/** Put an older page before what is there. Its last turn may be the first one's beginning. */
export function applyOlder(thread, turns, older) {
  const fresh = turns.filter((raw) => !thread.byId.has(raw.id)).map((raw) => fromSnapshot(raw));
  for (const raw of turns) if (thread.byId.has(raw.id)) prepend(thread.byId.get(raw.id), raw);
  thread.turns = [...fresh, ...thread.turns];
  thread.byId = new Map(thread.turns.map((turn) => [turn.id, turn]));
  thread.older = older;
}

// -- turns

/** The older items of a turn that is more than a page long. */
function prepend(turn, raw) {
  if (turn.covered || !listOf(raw.items).length) return;
  const part = fromSnapshot(raw);
  turn.items = new Map([...part.items, ...turn.items]);
  turn.version += 1;
}

function newTurn(id, covered) {
  const life = { status: 'inProgress', error: null, reason: '', ended: false, startedAt: null, durationMs: null };
  return { id, covered, whole: false, items: new Map(), version: 0, ...life };
}

function fromSnapshot(raw, have) {
  const turn = newTurn(raw.id, false);
  const had = [...(have?.items.values() ?? [])];
  const ids = new Set(listOf(raw.items).map((item) => item?.id));
  const first = had.findIndex((item) => ids.has(item.id));
  for (const item of had.slice(0, Math.max(0, first))) turn.items.set(item.id, item); // of the page before
  for (const item of listOf(raw.items)) putItem(turn, item, item.status !== 'inProgress');
  turn.whole = raw.status !== 'inProgress'; // the snapshot has all of it
  for (const item of had) {
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
    const cut = item.type !== 'planSteps'; // a plan is as far as it came
    Object.assign(item, { done: true, cut, version: item.version + 1 });
  }
}

// -- items

function putItem(turn, raw, done, startedAtMs) {
  const have = turn.items.get(raw.id);
  if (have?.done && !done) return have;
  const item = have ?? { id: raw.id, type: raw.type, text: '', output: '', version: 0, startedAtMs };
  Object.assign(item, { raw, done, headless: false, version: item.version + 1 });
  item.startedAtMs ??= raw.startedAtMs;
  item.text = textOf(raw) || item.text;
  if (raw.aggregatedOutput) item.output = raw.aggregatedOutput; // deltas of output may be incomplete
  turn.items.set(raw.id, item);
  return item;
}

/** Agents may put anything anywhere: what is no list counts as an empty one. */
const listOf = (value) => (Array.isArray(value) ? value : []);

function textOf(raw) {
  if (raw.type === 'userMessage') return listOf(raw.content).map(partText).filter(Boolean).join('\n');
  if (raw.type === 'reasoning') return [...listOf(raw.summary), ...listOf(raw.content)].join('\n\n');
  return typeof raw.text === 'string' ? raw.text : '';
}

function partText(part) {
  if (part?.type === 'text') return part.text;
  if (part?.type === 'image') return ''; // shown as a picture
  return `[${part?.type}${part?.path ? ` ${part.path}` : ''}]`;
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

/** The plan of a turn: one item, brought up to date in its place. */
function planUpdated(thread, { turnId, plan, explanation }) {
  const turn = turnOf(thread, turnId);
  const id = `plan-of-${turnId}`;
  putItem(turn, { id, type: 'planSteps', steps: listOf(plan), explanation }, false);
}

function progressed(thread, params) {
  const item = growing(thread, params, 'mcpToolCall');
  if (item) item.progress = params.message;
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

/** Who answered a question about an item, in words. */
export function noteAnswer(thread, { turnId, itemId }, text, elsewhere) {
  thread.answers.set(itemId, text);
  const item = thread.byId.get(turnId)?.items.get(itemId);
  if (item) Object.assign(item, { answer: text, version: item.version + 1 });
  if (elsewhere && thread.byId.has(turnId)) addNotice(thread, turnId, { kind: 'answer', text });
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
  'turn/plan/updated': planUpdated,
  'item/started': startItem,
  'item/completed': completeItem,
  'item/agentMessage/delta': grows('agentMessage'),
  'item/plan/delta': grows('plan'),
  'item/reasoning/summaryTextDelta': grows('reasoning'),
  'item/reasoning/textDelta': grows('reasoning'),
  'item/reasoning/summaryPartAdded': nextPart,
  'item/commandExecution/outputDelta': grows('commandExecution', 'output'),
  'item/fileChange/patchUpdated': patchUpdated,
  'item/mcpToolCall/progress': progressed,
  'thread/status/changed': statusChanged,
  'thread/tokenUsage/updated': (thread, { tokenUsage }) => Object.assign(thread, { usage: tokenUsage }),
  'thread/name/updated': (thread, { threadName }) => Object.assign(thread, { name: threadName ?? '' }),
  error: failed,
  warning: (thread, { message }) => warn(thread, message),
};
