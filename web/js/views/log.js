// The conversation itself: turns with their items, what is on its way, and a view that follows the newest line.

import { el, icon, keyed, setAttr, setText } from '../dom.js';
import { endOfTurn } from '../words.js';
import { itemView } from './item.js';

const NEAR_PX = 48; // closer to the bottom than this counts as being there

const isEmpty = (item) => item.type === 'reasoning' && item.done && !item.text;

function turnView() {
  const items = el('div', { class: 'items' });
  const end = el('p', { class: 'turn-end', dir: 'auto' });
  const node = el('section', { class: 'turn' }, items, end);
  let version = -1;
  const update = (turn) => {
    if (turn.version === version && turn.status !== 'inProgress') return;
    version = turn.version;
    keyed(items, [...turn.items.values()].filter((item) => !isEmpty(item)), (item) => item.id, itemView);
    setText(end, endOfTurn(turn));
    setAttr(end, 'data-status', turn.status);
    setAttr(node, 'data-status', turn.status);
  };
  return { node, update };
}

function sendingView() {
  const body = el('div', { class: 'bubble' });
  const state = el('span', { class: 'sending' });
  return {
    node: el('div', { class: 'said' }, body, state),
    update: (entry) => {
      setText(body, entry.text);
      setText(state, entry.state === 'unknown' ? 'checking whether it arrived…' : 'sending…');
    },
  };
}

/** What the agent does while nothing of it is seen. */
function working(talk) {
  if (!talk.running) return '';
  if (talk.stopping === talk.running.id) return 'Stopping…';
  if (talk.requests.size) return 'Waiting for your answer';
  if (talk.thread.waiting) return 'Waiting for an answer in another window';
  return 'Working…';
}

export class Log {
  constructor(empty) {
    this.empty = empty;
    this.turns = el('div', { class: 'turns' });
    this.sending = el('div', { class: 'turns' });
    this.working = el('p', { class: 'working', hidden: true }, el('span', { class: 'pulse' }), el('span'));
    this.column = el('div', { class: 'column' }, this.turns, this.sending, this.working);
    this.pill = el('button', { class: 'pill', hidden: true, onclick: () => this.toEnd() }, icon('down'), 'new');
    this.box = el('div', { class: 'log', role: 'log', tabindex: '0', 'aria-label': 'Conversation' }, this.column);
    this.node = el('div', { class: 'log-frame' }, this.box, this.pill);
    this.follows = true;
    this.box.addEventListener('scroll', () => this.#scrolled(), { passive: true });
    this.resized = new ResizeObserver(() => this.follows && this.toEnd());
    this.resized.observe(this.box);
  }

  draw(talk) {
    keyed(this.turns, talk.thread.turns, (turn) => turn.id, turnView);
    keyed(this.sending, talk.outbox.entries, (entry) => entry.id, sendingView);
    const doing = working(talk);
    this.working.hidden = !doing;
    setText(this.working.lastChild, doing);
    setAttr(this.box, 'aria-busy', String(Boolean(talk.running)));
    this.empty.hidden = !talk.loaded || Boolean(talk.thread.turns.length || talk.outbox.entries.length);
    if (this.follows) this.toEnd();
    else if (this.revision !== talk.thread.revision) this.pill.hidden = false;
    this.revision = talk.thread.revision;
  }

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
    this.follows = scrollHeight - scrollTop - clientHeight < NEAR_PX;
    if (this.follows) this.pill.hidden = true;
  }
}
