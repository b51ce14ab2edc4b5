// Items and states in words. Pure.

export function duration(ms) {
  if (!(ms >= 50)) return '';
  if (ms < 950) return `${(ms / 1000).toFixed(1)} s`;
  const seconds = Math.round(ms / 1000);
  if (seconds < 60) return `${seconds} s`;
  return `${Math.floor(seconds / 60)} min ${seconds % 60} s`;
}

/** How long ago, short. */
export function ago(ms, now = Date.now()) {
  const minutes = Math.floor((now - ms) / 60_000);
  if (minutes < 1) return 'now';
  if (minutes < 60) return `${minutes} min`;
  if (minutes < 24 * 60) return `${Math.floor(minutes / 60)} h`;
  return `${Math.floor(minutes / 60 / 24)} d`;
}

/** A command without the shell that the agent wraps it in. For one-line summaries only. */
export function bareCommand(command) {
  const wrapped = /^\S*\b(?:ba|z|da)?sh -l?c (['"])([\s\S]*)\1$/.exec(command);
  return wrapped ? wrapped[2] : command;
}

/** Added and removed lines of one file change. A new file's diff is its text. */
export function counts({ kind, diff }) {
  const lines = (diff ?? '').split('\n');
  const text = diff?.endsWith('\n') ? lines.length - 1 : lines.length;
  if (kind?.type === 'add') return { added: text, removed: 0 };
  if (kind?.type === 'delete') return { added: 0, removed: text };
  const of = (sign) => lines.filter((line) => line.startsWith(sign) && !line.startsWith(sign.repeat(3))).length;
  return { added: of('+'), removed: of('-') };
}

const base = (path) => path.split('/').at(-1);

function changed(changes) {
  const sum = { added: 0, removed: 0 };
  for (const change of changes) {
    const { added, removed } = counts(change);
    sum.added += added;
    sum.removed += removed;
  }
  const what = changes.length === 1 ? base(changes[0].path) : `${changes.length} files`;
  return { target: what, result: `+${sum.added} −${sum.removed}` };
}

function ran(item) {
  const { status, exitCode, durationMs } = item.raw;
  if (status === 'declined') return { verb: 'Declined', result: 'not run', bad: true };
  if (item.cut) return { verb: 'Stopped', result: '', bad: true };
  if (exitCode === null || exitCode === undefined) return { verb: 'Failed', result: 'did not start', bad: true };
  const result = [`exit ${exitCode}`, duration(durationMs)].filter(Boolean).join(' · ');
  return { verb: 'Ran', result, bad: exitCode !== 0 };
}

function called({ raw, cut }) {
  if (cut) return { verb: 'Stopped', bad: true, result: '' };
  const bad = raw.status === 'failed' || Boolean(raw.error);
  return { verb: 'Called', bad, result: bad ? 'failed' : duration(raw.durationMs) };
}

const KINDS = {
  commandExecution: (item) => ({
    icon: 'terminal', target: bareCommand(item.raw.command ?? ''), doing: 'Running', ...(item.done ? ran(item) : {}),
  }),
  fileChange: (item) => {
    const words = { icon: 'file', doing: 'Editing', verb: 'Edited', ...changed(item.raw.changes ?? []) };
    if (item.raw.status === 'declined') Object.assign(words, { verb: 'Declined', result: 'not changed', bad: true });
    if (item.raw.status === 'failed' || item.cut) Object.assign(words, { verb: 'Not edited', bad: true });
    return words;
  },
  mcpToolCall: (item) => ({
    icon: 'tool', target: `${item.raw.server}.${item.raw.tool}`, doing: 'Calling', ...(item.done ? called(item) : {}),
  }),
  webSearch: ({ raw }) => ({ icon: 'search', target: raw.query ?? '', doing: 'Searching', verb: 'Searched' }),
  reasoning: () => ({ icon: 'thought', doing: 'Thinking', verb: 'Thought' }),
};

/** A tool item as {icon, verb, target, result, bad}, for its one line. */
export function describe(item, now = Date.now()) {
  const known = KINDS[item.type];
  const words = known?.(item) ?? { icon: 'more', target: item.type, doing: 'Doing', verb: 'Did' };
  if (item.done) return words;
  if (item.waits) return { ...words, verb: item.type === 'fileChange' ? 'Wants to edit' : 'Wants to run', result: '' };
  const since = item.startedAtMs ? now - item.startedAtMs : 0;
  return { ...words, verb: words.doing, result: since > 1000 ? duration(since) : '' };
}

/** How a turn ended, if that needs saying. */
export function endOfTurn(turn) {
  const after = turn.durationMs ? ` after ${duration(turn.durationMs)}` : '';
  if (turn.status === 'failed') return `Failed: ${turn.error?.message ?? 'no reason was given'}`;
  if (turn.status !== 'interrupted') return '';
  return turn.reason ? `Interrupted: ${turn.reason}` : `Stopped${after}.`;
}

const STATES = {
  created: ['idle', 'not started yet'],
  running: ['ready', 'ready'],
  working: ['working', 'working'],
  waiting: ['waiting', 'waiting for you'],
  restarting: ['restarting', 'restarting'],
  stopped: ['asleep', 'asleep'],
  failed: ['failed', 'failed'],
};

/** [shape, words] of a session's state. */
export const stateWords = (state) => STATES[state] ?? ['idle', state];

const REPLAYED_MS = 8000; // how long that is worth saying

/** The connection in one line: {tone, text}. */
export function connectionWords(status, now = Date.now()) {
  const why = status.reason ? ` (${status.reason})` : '';
  if (status.state === 'connecting') return { tone: 'wait', text: 'connecting…' };
  if (status.state === 'waiting') {
    const seconds = Math.max(0, Math.ceil((status.until - now) / 1000));
    return { tone: 'bad', text: `reconnecting in ${seconds} s${why}` };
  }
  if (status.gap) return { tone: 'wait', text: 'gap, history reloaded' };
  const replayed = now - status.at < REPLAYED_MS ? status.replayed : 0;
  return { tone: 'good', text: replayed ? `live, replayed ${replayed} event${replayed === 1 ? '' : 's'}` : 'live' };
}
