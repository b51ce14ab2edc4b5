// Approvals: what will run, in full; where; why; and the three answers.

import { el, keyed, setText } from '../dom.js';
import { changeBlock } from './item.js';

const ANSWERS = [
  ['accept', 'Accept', 'primary', /Mac|iP/.test(navigator.platform) ? '⌘ ↵' : 'Ctrl ↵'],
  ['decline', 'Decline', '', 'Esc'],
  ['acceptForSession', 'Accept for this session', '', ''],
];

const SAID = { accept: 'Accepted', acceptForSession: 'Accepted for this session', decline: 'Declined' };

export class Cards {
  /** `done()` is called after an answer: the focused button is gone. */
  constructor(talk, done) {
    Object.assign(this, { talk, done });
    this.node = el('div', { class: 'cards', 'aria-live': 'assertive' });
  }

  draw() {
    keyed(this.node, [...this.talk.requests.values()], (request) => JSON.stringify(request.id), (r) => this.#card(r));
  }

  /** The first card that waits for an answer. */
  get first() {
    return [...this.talk.requests.values()].find((request) => !request.answered);
  }

  #card(request) {
    const isCommand = request.method.includes('commandExecution');
    const what = el('div', { class: 'what' });
    const buttons = ANSWERS.map((answer) => this.#button(request.id, ...answer));
    const said = el('p', { class: 'quiet' });
    const node = el(
      'section', { class: 'card', role: 'group', 'aria-label': 'Approval' },
      el('h2', {}, isCommand ? 'Run this command?' : 'Change these files?'),
      what, facts(request.params), el('div', { class: 'answers' }, buttons), said,
    );
    let shown = '';
    const update = (next) => {
      const item = this.#itemOf(next);
      const changes = item?.raw.changes ?? [];
      const now = JSON.stringify([next.params.command, changes]);
      if (now !== shown) what.replaceChildren(...(isCommand ? command(next, item) : changes.flatMap(changeBlock)));
      shown = now;
      for (const button of buttons) button.disabled = Boolean(next.answered);
      setText(said, next.answered ? `${SAID[next.answered]}…` : '');
    };
    return { node, update };
  }

  #button(id, decision, label, kind, key) {
    const choose = () => {
      this.talk.decide(this.talk.requests.get(JSON.stringify(id)), decision);
      this.done();
    };
    const hint = key && el('kbd', { 'aria-hidden': 'true' }, key);
    return el('button', { class: kind, type: 'button', onclick: choose }, label, hint);
  }

  /** A file change does not carry its diff: that is in the item that asks. */
  #itemOf({ params }) {
    return this.talk.thread.byId.get(params.turnId)?.items.get(params.itemId);
  }
}

function command({ params }, item) {
  const text = params.command ?? item?.raw.command ?? '(the agent did not say which)';
  return [el('pre', { class: 'command', tabindex: '0' }, text)];
}

function facts({ cwd, reason, grantRoot }) {
  const rows = [['In', cwd], ['Why', reason], ['Allows writing below', grantRoot]].filter(([, value]) => value);
  return el('dl', {}, rows.flatMap(([name, value]) => [el('dt', {}, name), el('dd', { dir: 'auto' }, value)]));
}
