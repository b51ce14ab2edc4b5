// Questions of the agent as cards above the composer: what will be done, in full; where; why; and the answers.

import { el, keyed, setText } from '../dom.js';
import { code } from '../markdown.js';
import { expiresAt, hasSession, isKnown } from '../requests.js';
import { changesOf, duration, pick, textIn } from '../words.js';
import { fieldsOf } from './fields.js';
import { changeBlock } from './inside.js';

const MAC = /Mac|iP/.test(navigator.platform);
const SEEN_MS = 400; // a shortcut does not accept what came just before it was pressed

const KINDS = {
  'item/commandExecution/requestApproval': { title: 'Run this command?', what: command },
  execCommandApproval: { title: 'Run this command?', what: command },
  'item/fileChange/requestApproval': { title: 'Change these files?', what: changes },
  applyPatchApproval: { title: 'Change these files?', what: changes },
  'item/permissions/requestApproval': { title: 'Allow more than the sandbox does?', what: permissions, yes: 'Allow' },
  'item/tool/requestUserInput': { title: 'The agent asks you', yes: 'Answer', no: 'Skip' },
  'mcpServer/elicitation/request': { title: 'A tool asks you', what: elicitation },
};

const SAID = { accept: 'Accepted…', acceptForSession: 'Accepted for this session…', decline: 'Declined…' };

export class Cards {
  /** `done()` is called after an answer: the focused button is gone. */
  constructor(talk, done) {
    Object.assign(this, { talk, done });
    this.node = el('div', { class: 'cards', 'aria-live': 'assertive' });
  }

  draw() {
    const all = [...this.talk.requests.values()];
    const shown = all.map((request, at) => ({ request, place: all.length > 1 ? `${at + 1} of ${all.length}` : '' }));
    keyed(this.node, shown, ({ request }) => keyOf(request), ({ request }) => this.#card(request));
  }

  /** The first card that waits for this page's answer. */
  get first() {
    return [...this.talk.requests.values()].find((request) => request.mine && !request.answered);
  }

  /** Whether time changes what is shown. */
  get ticks() {
    return [...this.talk.requests.values()].some(expiresAt);
  }

  /** By a shortcut: only a plain yes, to what has been in sight for a moment. */
  acceptFirst() {
    const { first } = this;
    if (first && Date.now() - first.sinceMs > SEEN_MS) this.#views(first)?.accept();
  }

  declineFirst() {
    this.#views(this.first)?.decline();
  }

  #views(request) {
    return request && this.byKey?.get(keyOf(request));
  }

  #card(request) {
    const kind = pick(KINDS, request.method) ?? { title: 'The agent asks something this page does not know' };
    const parts = this.#parts(request, kind);
    const card = el(
      'div', { class: 'card', 'aria-label': 'Approval', role: 'group', tabindex: '0' },
      el('div', { class: 'card-head' }, parts.title, parts.place, parts.left), parts.what, facts(request.params),
      parts.fields?.node, parts.answers, parts.said,
    );
    card.addEventListener('keydown', (event) => {
      const here = event.target === card || event.target.tagName === 'INPUT';
      if (event.key !== 'Enter' || !here || event.ctrlKey || event.metaKey || event.isComposing) return;
      event.preventDefault();
      parts.accept();
    });
    this.byKey ??= new Map();
    this.byKey.set(keyOf(request), parts);
    return { node: card, update: (next) => this.#update(next, parts, kind) };
  }

  #parts(request, kind) {
    const id = keyOf(request);
    const now = () => this.talk.requests.get(id);
    const choose = (decision) => {
      const given = decision === 'decline' ? null : fields?.read();
      if (given === undefined && fields) return; // something is missing; the form says what
      if (now()) this.talk.decide(now(), decision, given ?? undefined);
      this.done();
    };
    const fields = fieldsOf(request);
    const yes = kind.yes ?? (request.params.mode === 'url' ? 'Done' : 'Accept');
    const button = (decision, words, look, key) => el(
      'button', { class: look, type: 'button', onclick: () => choose(decision) }, words,
      key && el('kbd', { 'aria-hidden': 'true' }, key),
    );
    const answers = el('div', { class: 'answers' });
    if (isKnown(request)) answers.append(button('accept', yes, 'primary', MAC ? '⌘ ↵' : 'Ctrl ↵'));
    answers.append(button('decline', kind.no ?? (isKnown(request) ? 'Decline' : 'Refuse'), '', 'Esc'));
    if (hasSession(request)) answers.append(button('acceptForSession', `${yes} for this session`, ''));
    const take = el('button', { class: 'primary', type: 'button', onclick: () => this.#take(now(), said) }, 'Answer here');
    const said = el('p', { class: 'quiet said-so', role: 'status' });
    return {
      title: el('h2', {}, kind.title), place: el('span', { class: 'quiet' }), left: el('span', { class: 'left' }),
      what: el('div', { class: 'what' }), fields, answers, said, take, own: [...answers.children],
      accept: () => isKnown(request) && now()?.mine && choose('accept'), decline: () => choose('decline'), shown: '', was: null,
    };
  }

  async #take(request, said) {
    try {
      await this.talk.take(request);
    } catch (error) {
      setText(said, `It could not be taken over: ${error.message}`);
    }
  }

  #update({ request, place }, parts, kind) {
    const item = this.talk.thread.byId.get(request.params.turnId)?.items.get(request.params.itemId);
    const make = kind.what ?? (isKnown(request) ? () => [] : unknown);
    const now = JSON.stringify([request.params, item?.raw.command, item?.raw.changes]);
    if (now !== parts.shown) parts.what.replaceChildren(...make(request, item));
    parts.shown = now;
    setText(parts.place, place);
    if (parts.was !== request.mine) parts.answers.replaceChildren(...(request.mine ? parts.own : [parts.take]));
    if (parts.was !== request.mine) setText(parts.said, request.mine ? '' : 'It was asked in another window.');
    parts.was = request.mine;
    for (const button of parts.own) button.disabled = Boolean(request.answered);
    parts.take.disabled = request.taking || !this.talk.connection.live;
    if (request.answered) setText(parts.said, SAID[request.answered]);
    const until = expiresAt(request);
    setText(parts.left, until ? `${duration(Math.max(0, until - Date.now())) || '0 s'} left` : '');
  }
}

const keyOf = ({ id }) => JSON.stringify(id);

function command({ params }, item) {
  const given = params.command ?? item?.raw.command ?? '(the agent did not say which)';
  const text = Array.isArray(given) ? given.join(' ') : textIn(given);
  return [el('pre', { class: 'command', tabindex: '0', dir: 'ltr' }, text)];
}

/** A file change does not carry its diff: that is in the item that asks. */
function changes({ params }, item) {
  const inItem = item ? changesOf(item.raw) : [];
  const old = Object.entries(params.fileChanges ?? {}).map(([path, change]) => ({
    path, kind: { type: change?.type }, diff: change?.unified_diff ?? change?.content ?? '',
  }));
  const found = inItem.length ? inItem : old;
  return found.length ? found.flatMap(changeBlock) : [el('p', { class: 'quiet' }, 'The agent did not say which.')];
}

function permissions({ params }) {
  return [code(JSON.stringify(params.permissions ?? {}, null, 2), 'asked for')];
}

function elicitation({ params }) {
  const { serverName, message, mode, url, _meta: meta } = params;
  const parts = [el('p', { dir: 'auto' }, el('b', {}, textIn(serverName)), ': ', textIn(message))];
  if (meta?.tool_params) parts.push(code(JSON.stringify(meta.tool_params, null, 2), textIn(meta.tool_name) || 'arguments'));
  if (mode === 'url') parts.push(address(textIn(url)));
  return parts;
}

/** Only addresses of the web are links; the whole address is what one reads before one follows it. */
function address(url) {
  if (!/^https?:\/\//i.test(url)) return el('p', { class: 'problem' }, `An address that is not opened here: ${url}`);
  return el('p', {}, 'It wants you to open ', el('a', { href: url, target: '_blank', rel: 'noopener noreferrer' }, url));
}

function unknown({ method, params }) {
  return [el('p', { class: 'quiet' }, textIn(method)), code(JSON.stringify(params, null, 2), 'as the agent sent it')];
}

function facts({ cwd, reason, grantRoot, networkApprovalContext: network, environmentId }) {
  const host = network && [network.protocol, network.host].filter(Boolean).join(' ');
  const where = environmentId && environmentId !== 'local' ? environmentId : '';
  const rows = [['In', cwd], ['On', where], ['Why', reason], ['Allows writing below', grantRoot], ['Network', host]];
  const told = rows.filter(([, value]) => value);
  return told.length === 0 ? null : el('dl', {}, told.flatMap(([name, value]) => [el('dt', {}, name), el('dd', { dir: 'auto' }, textIn(value))]));
}
