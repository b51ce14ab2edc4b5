// Items and states in words. Pure.

/** What a table says about a key of the agent's, who may call things `constructor` too. */
export const pick = (table, key) => (Object.hasOwn(table, key) ? table[key] : undefined);

/** A value as text: agents may put anything anywhere. */
export const textIn = (value) => (typeof value === 'string' ? value : value === null || value === undefined ? '' : String(value));

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
  const given = textIn(diff);
  const lines = given.split('\n');
  const text = given.endsWith('\n') || !given ? lines.length - 1 : lines.length;
  if (kind?.type === 'add') return { added: text, removed: 0 };
  if (kind?.type === 'delete') return { added: 0, removed: text };
  const of = (sign) => lines.filter((line) => line.startsWith(sign) && !line.startsWith(sign.repeat(3))).length;
  return { added: of('+'), removed: of('-') };
}

const base = (path) => textIn(path).split('/').at(-1);

export const changesOf = (raw) => (Array.isArray(raw.changes) ? raw.changes : []).filter(Boolean);

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
    icon: 'terminal', target: bareCommand(textIn(item.raw.command)), doing: 'Running', ...(item.done ? ran(item) : {}),
  }),
  fileChange: (item) => {
    const words = { icon: 'file', doing: 'Editing', verb: 'Edited', ...changed(changesOf(item.raw)) };
    if (item.raw.status === 'declined') Object.assign(words, { verb: 'Declined', result: 'not changed', bad: true });
    if (item.raw.status === 'failed' || item.cut) Object.assign(words, { verb: 'Not edited', bad: true });
    return words;
  },
  mcpToolCall: (item) => ({
    icon: 'tool', target: `${item.raw.server}.${item.raw.tool}`, doing: 'Calling', ...(item.done ? called(item) : {}),
  }),
  dynamicToolCall: (item) => ({
    icon: 'tool', target: textIn(item.raw.tool), doing: 'Calling', ...(item.done ? called(item) : {}),
  }),
  webSearch: ({ raw }) => ({ icon: 'search', target: textIn(raw.query), doing: 'Searching', verb: 'Searched' }),
  reasoning: () => ({ icon: 'thought', doing: 'Thinking', verb: 'Thought' }),
  planSteps: ({ raw }) => {
    const done = raw.steps.filter((step) => step?.status === 'completed').length;
    const now = raw.steps.find((step) => step?.status === 'inProgress');
    const target = textIn((now ?? raw.steps.at(-1))?.step);
    return { icon: 'plan', doing: 'Plan', verb: 'Plan', target, prose: true, result: `${done} of ${raw.steps.length}` };
  },
  imageView: ({ raw }) => ({ icon: 'image', target: base(raw.path), doing: 'Looking at', verb: 'Looked at' }),
  imageGeneration: ({ raw }) => ({ icon: 'image', target: textIn(raw.revisedPrompt), doing: 'Drawing', verb: 'Drew', prose: true }),
  collabAgentToolCall: ({ raw }) => ({ icon: 'talks', target: textIn(raw.tool), doing: 'Helper', verb: 'Helper' }),
  contextCompaction: () => ({ icon: 'archive', doing: 'Shortening its memory', verb: 'Shortened its memory' }),
  sleep: ({ raw }) => ({ icon: 'more', doing: 'Waiting', verb: 'Waited', result: duration(raw.durationMs) }),
};

/** `someItemType` as words. */
const asWords = (type) => textIn(type).replace(/([a-z])([A-Z])/g, '$1 $2').toLowerCase() || 'something';

/** A tool item as {icon, verb, target, prose, result, bad}, for its one line. */
export function describe(item, now = Date.now()) {
  const known = pick(KINDS, item.type);
  const words = known?.(item) ?? { icon: 'more', target: asWords(item.type), prose: true, doing: 'Working on', verb: 'Step' };
  if (item.done || item.type === 'planSteps') return words;
  if (item.waits) return { ...words, verb: item.type === 'fileChange' ? 'Wants to edit' : 'Wants to run', result: '' };
  const since = item.startedAtMs ? now - item.startedAtMs : 0;
  return { ...words, verb: words.doing, result: since > 1000 ? duration(since) : '' };
}

/** What a turn was at when it was cut. */
function cutWhile(turn) {
  const item = [...turn.items.values()].findLast((each) => each.cut);
  if (!item) return '';
  if (item.type === 'agentMessage' || item.type === 'plan') return ' while it was writing';
  if (item.type === 'reasoning') return ' while it was thinking';
  const { doing, target } = pick(KINDS, item.type)?.({ ...item, done: false }) ?? {};
  return doing && target ? ` while it was ${doing.toLowerCase()} ${target}` : '';
}

const TODO = {
  contextWindowExceeded: 'The conversation is too long for the model. Begin a new one; this one stays readable.',
  sessionBudgetExceeded: 'The budget of this session is used up.',
  usageLimitExceeded: 'Your plan’s limit is reached. Wait, or use another login.',
  rateLimitExceeded: 'Wait a moment, then say it again.',
  serverOverloaded: 'The model is busy. Wait a moment, then say it again.',
  modelNotFound: 'Choose a model in the agent’s configuration that your login may use.',
  unauthorized: 'The agent’s login is missing or no longer valid. Sign in to it again where the gateway runs.',
  httpConnectionFailed: 'The model could not be reached. Is the network there? Then say it again.',
  responseStreamConnectionFailed: 'The model could not be reached. Is the network there? Then say it again.',
  responseStreamDisconnected: 'The connection to the model broke. Say it again.',
  responseTooManyFailedAttempts: 'The model did not answer. Wait a moment, then say it again.',
  sandboxError: 'The sandbox could not be set up; the runtime’s log says more.',
};

/** What to do about a turn's error. Everything that was said before it is kept. */
export function adviceFor(error) {
  const info = error?.codexErrorInfo;
  const kind = typeof info === 'string' ? info : Object.keys(info ?? {})[0];
  return pick(TODO, kind) ?? 'What was said is kept. Say it again, or look into the runtime’s log.';
}

/** How a turn ended, if that needs saying. */
export function endOfTurn(turn) {
  const after = turn.durationMs ? ` after ${duration(turn.durationMs)}` : '';
  if (turn.status === 'failed') return `Failed: ${textIn(turn.error?.message) || 'no reason was given'}`;
  if (turn.status !== 'interrupted') return '';
  return turn.reason ? `Interrupted: ${turn.reason}` : `Stopped${after}${cutWhile(turn)}.`;
}

const SAID = { accept: 'Accepted', acceptForSession: 'Accepted for this session', decline: 'Declined', cancel: 'Declined and stopped' };

/** An answer to a question. */
export const saidWords = (decision) => pick(SAID, decision) ?? 'Answered';

/** Who gave which answer to a question. */
export const answeredWords = (decision, who) =>
  `${saidWords(decision)} ${who === 'you' ? 'here' : `in ${who}`}`;

/** A large number, short. */
export const count = (n) => (n < 1000 ? String(n) : n < 1e6 ? `${(n / 1000).toFixed(n < 10_000 ? 1 : 0)} k` : `${(n / 1e6).toFixed(1)} M`);

/**
 * How many tokens a thread has used, how full the model's context is, if the agent tells, and what the session has used,
 * if that is more. `kept`: what the gateway has counted, {thread, session}.
 */
export function usageWords(usage, kept) {
  const total = Math.max(usage?.total?.totalTokens ?? 0, kept.thread);
  const window = usage?.modelContextWindow;
  const full = window > 0 ? `context ${Math.min(100, Math.round((100 * (usage.last?.totalTokens ?? 0)) / window))} %` : '';
  const session = kept.session > total ? `session ${count(kept.session)}` : '';
  return [total > 0 ? `${count(total)} tokens` : '', full, session].filter(Boolean).join(' · ');
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
export const stateWords = (state) => pick(STATES, state) ?? ['idle', state];

const REPLAYED_MS = 8000; // how long that is worth saying
const GAP_MS = 30_000;

/** The connection in one line: {tone, text}. */
export function connectionWords(status, now = Date.now()) {
  const why = status.reason ? ` (${status.reason})` : '';
  if (status.state === 'connecting') return { tone: 'wait', text: 'connecting…' };
  if (status.state === 'waiting') {
    const seconds = Math.max(0, Math.ceil((status.until - now) / 1000));
    return { tone: 'bad', text: `reconnecting in ${seconds} s${why}` };
  }
  if (status.gap && !(now - status.at > GAP_MS)) return { tone: 'wait', text: 'gap, history reloaded' };
  const replayed = now - status.at < REPLAYED_MS ? status.replayed : 0;
  return { tone: 'good', text: replayed ? `live, replayed ${replayed} event${replayed === 1 ? '' : 's'}` : 'live' };
}
