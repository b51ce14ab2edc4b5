// Questions of the agent that wait for this client's answer. Pure.
//
// The gateway asks again after a reconnect what is still open; ids are kept with their type, 0 and "0" differ.

export const APPROVALS = ['item/commandExecution/requestApproval', 'item/fileChange/requestApproval'];

const keyOf = (id) => JSON.stringify(id);

export function noRequests() {
  return new Map();
}

/** Take a question. The same id again is the same question: it has one card. */
export function ask(requests, { id, method, params }) {
  const had = requests.get(keyOf(id));
  const same = had?.params.itemId === params.itemId && had?.params.turnId === params.turnId;
  requests.set(keyOf(id), { ...(same ? had : { answered: null }), id, method, params, open: true });
}

/** Remember what was answered until the gateway says that it is settled. */
export function answered(requests, id, decision) {
  const request = requests.get(keyOf(id));
  if (request) request.answered = decision;
}

export function resolved(requests, id) {
  requests.delete(keyOf(id));
}

/** A turn is over, and so are its questions. */
export function turnEnded(requests, threadId, turnId) {
  for (const [key, { params }] of requests) {
    if (params.threadId === threadId && params.turnId === turnId) requests.delete(key);
  }
}

/** A new connection: what is still open and ours is asked again at once, before the first answer. */
export function doubt(requests) {
  for (const request of requests.values()) Object.assign(request, { open: false, answered: null });
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
