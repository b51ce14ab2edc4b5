// Questions of the agent that wait for a person: this client's to answer (`mine`), or another's, which it may take over.
// Pure. The gateway asks again after a reconnect what is still open; ids are kept with their type, 0 and "0" differ.

import { pick } from './words.js';

/** Questions that are for programs; a page cannot answer them, and says so. */
const FOR_PROGRAMS = ['item/tool/call', 'attestation/generate', 'account/chatgptAuthTokens/refresh', 'currentTime/read'];

export const isForPeople = (method) => !FOR_PROGRAMS.includes(method);

const keyOf = (id) => JSON.stringify(id);

export function noRequests() {
  return new Map();
}

/** Take a question that is ours. The same id again is the same question: it has one card. */
export function ask(requests, { id, method, params }, now) {
  const had = requests.get(keyOf(id));
  const same = had?.params?.itemId === params?.itemId && had?.params?.turnId === params?.turnId;
  const life = same ? had : { answered: null, sinceMs: now };
  requests.set(keyOf(id), { ...life, id, method, params: params ?? {}, open: true, mine: true, taking: false });
}

/** `argus/question`: what became of a question that may be another client's. Returns true if somebody answered it. */
export function told(requests, question, client, now) {
  const { id, method, params, state } = question;
  const had = requests.get(keyOf(id));
  if (state === 'open') {
    const about = { id, method, params: params ?? {}, open: true };
    if (question.client === client) return false; // it comes itself
    requests.set(keyOf(id), { sinceMs: now, answered: null, taking: false, ...(had ?? {}), ...about, mine: false });
    return false;
  }
  if (!had?.mine || question.client !== client) requests.delete(keyOf(id));
  return state === 'answered' && question.client !== client;
}

/** Remember what was answered until the gateway says that it is settled. */
export function answered(requests, id, decision) {
  const request = requests.get(keyOf(id));
  if (request) request.answered = decision;
}

export function resolved(requests, id) {
  if (requests.get(keyOf(id))?.mine !== false) requests.delete(keyOf(id)); // the others' are told by argus/question
}

/** A turn is over, and so are its questions. */
export function turnEnded(requests, threadId, turnId) {
  for (const [key, { params }] of requests) {
    if (params.threadId === threadId && params.turnId === turnId) requests.delete(key);
  }
}

/** A new connection: what is still open and ours is asked again at once, before the first answer. */
export function doubt(requests) {
  for (const request of requests.values()) Object.assign(request, { open: false, answered: null, taking: false });
}

/** The first answer is there: what was not asked again is not ours any more. */
export function settle(requests) {
  for (const [key, request] of requests) if (!request.open) requests.delete(key);
}

/** The gateway did not take an answer: settled elsewhere (-32600), or to be given again. */
export function refused(requests, code) {
  for (const [key, request] of requests) {
    if (!request.answered) continue;
    if (code === -32600) requests.delete(key);
    else request.answered = null;
  }
}

// -- what may be said to each

const approval = (decision) => ({ decision });
const legacy = { accept: 'approved', acceptForSession: 'approved_for_session', decline: 'denied' };

const ANSWERS = {
  'item/commandExecution/requestApproval': approval,
  'item/fileChange/requestApproval': approval,
  execCommandApproval: (choice) => ({ decision: legacy[choice] }),
  applyPatchApproval: (choice) => ({ decision: legacy[choice] }),
  'item/permissions/requestApproval': (choice, { permissions }) => ({
    permissions: choice === 'decline' ? {} : withoutNulls(permissions ?? {}),
    scope: choice === 'acceptForSession' ? 'session' : 'turn',
  }),
  'item/tool/requestUserInput': (choice, params, given) => ({ answers: choice === 'decline' ? {} : given ?? {} }),
  'mcpServer/elicitation/request': (choice, params, given) => ({
    action: choice === 'decline' ? 'decline' : 'accept',
    content: choice === 'decline' ? null : given ?? {},
    _meta: choice === 'acceptForSession' ? { persist: 'session' } : null,
  }),
};

const withoutNulls = (value) => Object.fromEntries(Object.entries(value).filter(([, each]) => each !== null));

/** The frame's {result} or {error} for a choice: accept, acceptForSession, decline. `given`: what was filled in. */
export function answerTo({ method, params }, choice, given) {
  const make = pick(ANSWERS, method);
  if (make) return { result: make(choice, params, given) };
  return { error: { code: -32601, message: `the page cannot answer ${method}` } };
}

/** Whether "for this session" can be said. */
export function hasSession({ method, params }) {
  if (method === 'mcpServer/elicitation/request') return [params._meta?.persist].flat().includes('session');
  return ['item/tool/requestUserInput'].includes(method) ? false : Object.hasOwn(ANSWERS, method);
}

/** Whether the page knows how to answer at all. */
export const isKnown = ({ method }) => Object.hasOwn(ANSWERS, method);

/** When a question answers itself, in ms since 1970, or null. */
export function expiresAt({ params, sinceMs }) {
  if (params.expiresAtMs) return params.expiresAtMs;
  return params.autoResolutionMs ? (params.startedAtMs ?? sinceMs) + params.autoResolutionMs : null;
}
