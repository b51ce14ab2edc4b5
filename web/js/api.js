// The gateway over HTTP.

import * as keep from './keep.js';

/** A request that did not work. `status` 0: the gateway was not reached. */
export class ApiError extends Error {
  constructor(status, text) {
    super(text);
    this.status = status;
  }
}

let onSignedOut = () => {};

/** Who is told when the gateway no longer takes the token. */
export function whenSignedOut(callback) {
  onSignedOut = callback;
}

const QUICK_MS = 20_000; // for requests that are made again when nothing comes

/** Ask the gateway. With a token of its own (null: none) the request does not speak for who is signed in. */
async function call(method, path, body, ...own) {
  return ask(method, path, body, own, {}, undefined);
}

async function ask(method, path, body, own, more, signal) {
  const token = own.length ? own[0] : keep.token.get();
  const headers = { ...more };
  if (token) headers.Authorization = `Bearer ${token}`;
  if (body !== undefined) headers['Content-Type'] = 'application/json';
  let response;
  try {
    response = await fetch(path, { method, headers, body: body && JSON.stringify(body), cache: 'no-store', signal });
  } catch {
    throw new ApiError(0, 'The gateway does not answer. Is it running?');
  }
  const isText = response.ok && response.headers.get('Content-Type')?.startsWith('text/plain');
  const answer = await (isText ? response.text() : response.json().catch(() => ({})));
  if (response.ok) return answer;
  // Another tab may have signed in anew while this request was on its way.
  if (response.status === 401 && !own.length && token === keep.token.get()) onSignedOut();
  throw new ApiError(response.status, answer.detail || `The gateway answered ${response.status}.`);
}

const enc = encodeURIComponent;

/** {sessions, defaultAgent}. */
export const sessions = () => call('GET', '/sessions');
export const session = (id) => call('GET', `/sessions/${enc(id)}`);
export const createSession = (title, agent) => call('POST', '/sessions', agent ? { title, agent } : { title });
export const renameSession = (id, title) => call('PATCH', `/sessions/${enc(id)}`, { title });
export const restartSession = (id) => call('POST', `/sessions/${enc(id)}/restart`);
/** The newest lines that a session's runtime wrote to its log, as text. */
export const sessionLog = (id, lines = 200) => call('GET', `/sessions/${enc(id)}/logs?lines=${lines}`);
/** Markdown as HTML without pictures, in the same order. */
export const rendered = (texts) => call('POST', '/render', { texts }).then((answer) => answer.html);
export const deleteSession = (id) => call('DELETE', `/sessions/${enc(id)}`);
export const socketTicket = () => call('POST', '/auth/ticket').then((answer) => answer.ticket);

// -- what is said by the durable way

/** Say something that the gateway keeps until it is answered. The same key: the same input. */
export const postInput = (session, key, text, threadId) => ask(
  'POST', `/sessions/${enc(session)}/inputs`, { text, threadId, source: { channel: 'page' } }, [],
  { 'Idempotency-Key': key }, AbortSignal.timeout(QUICK_MS),
);
export const inputsOf = (session, thread) =>
  call('GET', `/sessions/${enc(session)}/inputs?thread=${enc(thread)}`).then((answer) => answer.inputs);
export const inputOf = (id) => call('GET', `/inputs/${enc(id)}`);
export const removeInput = (id) => ask('DELETE', `/inputs/${enc(id)}`, undefined, [], {}, AbortSignal.timeout(QUICK_MS));
export const editInput = (id, text) => call('PATCH', `/inputs/${enc(id)}`, { text });
export const retryInput = (id) => call('POST', `/inputs/${enc(id)}/retry`);
export const deadDeliveries = (session) =>
  call('GET', `/deliveries?state=dead&session=${enc(session)}`).then((answer) => answer.deliveries);
export const retryDelivery = (id) => call('POST', `/deliveries/${enc(id)}/retry`);
export const usage = (session) =>
  call('GET', `/usage?session=${enc(session)}&zoneMinutes=${-new Date().getTimezoneOffset()}`);

/** Sign in with the ticket of a link. */
export async function signInByTicket(ticket) {
  const answer = await call('POST', '/auth/exchange', { ticket, label: browserName() }, null);
  keep.token.set(answer.token);
}

/** Sign in with a token that somebody pasted. */
export async function signInByToken(token) {
  await call('GET', '/auth/me', undefined, token);
  keep.token.set(token);
}

/** Whether the gateway asks for no token at all. It may do so on its own machine only. */
export async function isOpen() {
  const local = ['localhost', '127.0.0.1', '[::1]'].includes(location.hostname);
  return local && call('GET', '/auth/me', undefined, null).then(() => true, () => false);
}

/** End this browser's token; the operator's own is only forgotten here. Says what did not work, or nothing. */
export async function signOut() {
  try {
    const { scope } = await call('GET', '/auth/me');
    if (scope === 'page') await call('DELETE', '/auth/tokens/me');
    return '';
  } catch (error) {
    if (error.status === 401) return '';
    return `This browser forgot its token, but the gateway was not told: ${error.message}`;
  } finally {
    keep.forgetAll();
  }
}

function browserName() {
  const agent = navigator.userAgent;
  const first = (names, by) => names.find((name) => agent.includes(by(name))) ?? 'unknown';
  const browser = first(['Firefox', 'Edg', 'Chrome', 'Safari'], (name) => `${name}/`);
  const system = first(['Android', 'iPhone', 'iPad', 'Windows', 'Mac OS', 'Linux'], (name) => name);
  return `${browser === 'Edg' ? 'Edge' : browser} on ${system}`;
}
