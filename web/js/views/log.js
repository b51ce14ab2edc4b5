// The conversation itself: turns with their items, what is on its way, and a view that follows the newest line.
//
// Only the newest items of a long thread are drawn; more are drawn, and fetched, when somebody scrolls up. Whatever is
// added or redrawn above what is being read, that stays where it is (`place`).

import { el, icon, keyed, setAttr, setText } from '../dom.js';
import { endOfTurn } from '../words.js';
import { failure } from './inside.js';
import { itemView } from './item.js';
import { runAgain } from './waiting.js';

const NEAR_PX = 48; // closer to the bottom than this counts as being there
const AHEAD_PX = 800; // more is drawn when less than this is left above
const ITEMS = 80; // drawn at first, and more each time
const MOST = 400; // drawn while the newest line is followed

const isEmpty = (item) => item.type === 'reasoning' && item.done && !item.text;
const shownItems = (turn) => [...turn.items.values()].filter((item) => !isEmpty(item));

/** What helps after a turn that did not end by itself. The agent may have acted, so nothing is said again by itself. */
function remedies(turn, again) {
  if (turn.status === 'failed') return [...failure(turn), again(turn)];
  return turn.status === 'interrupted' && turn.reason ? [again(turn)] : [];
}

function turnView(place, again, inputs) {
  const items = el('div', { class: 'items' });
  const end = el('p', { class: 'turn-end', dir: 'auto' });
  const more = el('div', { class: 'turn-more' });
  const node = el('section', { class: 'turn' }, items, end, more);
  let drawn = '';
  let offered = '';
  const offer = (turn, ended) => {
    const own = turn.status === 'inProgress' ? [] : inputs.ofTurn(turn.id);
    const open = own.filter((input) => inputs.isOpenEnd(input));
    const now = `${ended} ${own.length} ${open.map((input) => input.inputId)}`;
    if (now === offered) return;
    offered = now;
    const failed = turn.status === 'failed' ? failure(turn) : [];
    const shown = own.length ? [...failed, ...open.map((input) => runAgain(input.inputId))] : remedies(turn, again);
    more.replaceChildren(...shown);
  };
  const update = ({ turn, from }) => {
    const now = `${turn.version} ${from} ${inputs.revision}`;
    if (now === drawn && turn.status !== 'inProgress') return;
    drawn = now;
    keyed(items, shownItems(turn).slice(from), (item) => item.id, (item) => itemView(item, place, inputs));
    const ended = endOfTurn(turn);
    offer(turn, ended);
    setText(end, ended);
    setAttr(end, 'data-status', turn.status);
    setAttr(node, 'data-status', turn.status);
  };
  return { node, update };
}

function sendingView() {
  const body = el('div', { class: 'bubble' });
  const state = el('span', { class: 'sending' });
  const update = (entry) => {
    setText(body, entry.text);
    setText(state, entry.state === 'unknown' ? 'checking whether it arrived…' : 'sending…');
  };
  return { node: el('div', { class: 'said' }, body, state), update };
}

/** What the agent does while nothing of it is seen. */
function working(talk) {
  if (!talk.running) return '';
  if (talk.stopping === talk.running.id) return 'Stopping…';
  const asked = [...talk.requests.values()];
  if (asked.some((request) => request.mine)) return 'Waiting for your answer';
  if (asked.length || talk.thread.waiting) return 'Waiting for an answer in another window';
  return 'Working…';
}

export class Log {
  /** `empty`: shown while there is nothing; `older()` fetches; `again(text)` offers to say something once more. */
  constructor(empty, { older, again }) {
    Object.assign(this, { empty, older, again, start: null, follows: true, top: 0, talk: null });
    this.turns = el('div', { class: 'turns' });
    this.sending = el('div', { class: 'turns' });
    this.working = el('p', { class: 'working', hidden: true }, el('span', { class: 'pulse' }), el('span'));
    this.above = el('p', { class: 'above quiet', hidden: true }, 'Loading what was said before…');
    this.column = el('div', { class: 'column' }, this.above, this.turns, this.sending, this.working);
    this.pill = el('button', { class: 'pill', type: 'button', hidden: true, onclick: () => this.toEnd() }, icon('down'), 'new');
    this.box = el('div', { class: 'log', role: 'log', tabindex: '0', 'aria-label': 'Conversation' }, this.column);
    this.node = el('div', { class: 'log-frame' }, this.box, this.pill);
    this.place = this.place.bind(this);
    this.box.addEventListener('scroll', () => this.#scrolled(), { passive: true });
    this.resized = new ResizeObserver(() => this.follows && this.toEnd());
    this.resized.observe(this.box);
    this.resized.observe(this.column);
  }

  draw(talk) {
    this.talk = talk;
    this.place(() => this.#draw(talk));
    if (!this.follows && this.revision !== talk.thread.revision) this.pill.hidden = false;
    this.revision = talk.thread.revision;
  }

  #draw(talk) {
    const view = () => turnView(this.place, (turn) => this.#again(turn), talk.inputs);
    keyed(this.turns, this.#window(talk.thread.turns), ({ turn }) => turn.id, view);
    keyed(this.sending, talk.outbox.entries, (entry) => entry.id, sendingView);
    const doing = working(talk);
    this.working.hidden = !doing;
    setText(this.working.lastChild, doing);
    setAttr(this.box, 'aria-busy', String(Boolean(talk.running)));
    this.empty.hidden = !talk.loaded || Boolean(talk.thread.turns.length || talk.outbox.entries.length);
    this.above.hidden = !talk.fetching;
  }

  /** Change the page; then what is being read is where it was, or the newest line is still in sight. */
  place(change) {
    if (this.follows) {
      change();
      this.toEnd();
      return;
    }
    const mark = this.#mark();
    const before = mark?.getBoundingClientRect().top;
    change();
    if (mark?.isConnected) this.box.scrollTop += mark.getBoundingClientRect().top - before;
  }

  /** The first item in sight. */
  #mark() {
    const { top } = this.box.getBoundingClientRect();
    for (const turn of this.turns.children) {
      if (turn.getBoundingClientRect().bottom <= top) continue;
      const items = [...turn.firstChild.children];
      return items.find((item) => item.getBoundingClientRect().bottom > top) ?? turn;
    }
    return null;
  }

  // -- which items are drawn

  /** The turns to draw as {turn, from}: `from` is the first of its items that is drawn. */
  #window(turns) {
    const counts = turns.map((turn) => shownItems(turn).length);
    const at = this.start && turns.findIndex((turn) => turn.id === this.start.turn);
    const known = this.start && at >= 0;
    const drawn = known ? counts.slice(at).reduce((sum, n) => sum + n, 0) - this.start.from : 0;
    if (!known || drawn < ITEMS || (this.follows && drawn > MOST)) this.#startAt(turns, counts, turns.length, 0, ITEMS);
    const first = this.start ? turns.findIndex((turn) => turn.id === this.start.turn) : 0;
    return turns.slice(Math.max(0, first)).map((turn, n) => ({ turn, from: n || !this.start ? 0 : this.start.from }));
  }

  /** Begin so many items before item `from` of turn `at`. */
  #startAt(turns, counts, at, from, items) {
    let left = items;
    let index = at;
    let rest = from;
    while (left > rest && index > 0) {
      left -= rest;
      index -= 1;
      rest = counts[index];
    }
    this.start = turns[index] ? { turn: turns[index].id, from: Math.max(0, rest - left) } : null;
  }

  async #more() {
    const { turns } = this.talk.thread;
    const at = turns.findIndex((turn) => turn.id === this.start?.turn);
    if (at > 0 || this.start?.from > 0) {
      const counts = turns.map((turn) => shownItems(turn).length);
      this.#startAt(turns, counts, at, this.start.from, ITEMS);
      this.place(() => this.#draw(this.talk));
    } else if (await this.older()) {
      this.#scrolled();
    }
  }

  // -- scrolling

  toEnd() {
    this.follows = true;
    this.pill.hidden = true;
    this.box.scrollTop = this.box.scrollHeight;
  }

  stop() {
    this.resized.disconnect();
  }

  #scrolled() {
    const { scrollHeight, scrollTop, clientHeight } = this.box;
    const isNear = scrollHeight - scrollTop - clientHeight < NEAR_PX;
    // What grew since is no reason to stop following: only who scrolls up means to stay there.
    this.follows = isNear || (this.follows && scrollTop >= this.top);
    this.top = scrollTop;
    if (this.follows) this.pill.hidden = true;
    if (scrollTop < AHEAD_PX && !this.follows && this.talk) this.#more();
  }

  #again(turn) {
    const said = [...turn.items.values()].findLast((item) => item.type === 'userMessage')?.text ?? '';
    return said ? el('button', { type: 'button', onclick: () => this.again(said) }, 'Write it again') : '';
  }
}
