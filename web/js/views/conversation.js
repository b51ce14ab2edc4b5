// One session: header, connection line, conversation, approvals, composer.

import { el, icon, onceAFrame, setAttr, setText } from '../dom.js';
import * as keep from '../keep.js';
import { nameOf } from '../sessions.js';
import { Talk } from '../talk.js';
import { connectionWords, stateWords } from '../words.js';
import { Cards } from './cards.js';
import { Composer } from './composer.js';
import { Log } from './log.js';

const TOUCH = matchMedia('(pointer: coarse)');
const ABOUT_AGENT = 'Say what you want done. What the agent may not run by itself, it asks for here first.';
const ABOUT_DEMO = 'This is the built-in demo agent, without a model: it repeats what you say. Or try one of these:';
const TRY = { demo: ['slow 30 0.2', 'run: ls -la', 'big 5000', 'fail'] };

/** Show a session. `state` is {app, session, thread, menu}; `menu` is the button that opens the list on a phone. */
export function mount(root, state) {
  return new Conversation(root, state);
}

class Conversation {
  constructor(root, { app, session, thread, menu }) {
    Object.assign(this, { app, session, root, tab: keep.tab(session) });
    this.draw = onceAFrame(() => this.#draw());
    this.talk = new Talk(session, this.#events(), thread);
    this.#build(menu);
    this.unwatch = app.sessions.watch(this.draw);
    this.key = (event) => this.#key(event);
    document.addEventListener('keydown', this.key);
    this.clock = setInterval(() => this.#ticks() && this.draw(), 1000);
    this.first = app.takeFirst(session);
    if (!TOUCH.matches) this.composer.focus();
    this.#draw();
    this.talk.start();
  }

  unmount() {
    this.talk.stop();
    this.log.stop();
    this.unwatch();
    this.app.sessions.setLive(this.session, null);
    clearInterval(this.clock);
    document.removeEventListener('keydown', this.key);
    this.root.replaceChildren();
    this.draw = () => {};
  }

  // -- what is there

  #build(menu) {
    this.title = el('h1');
    this.about = el('span', { class: 'about' });
    const interrupt = () => this.talk.interrupt();
    const square = el('span', { class: 'square' });
    this.stop = el('button', { class: 'stop', type: 'button', onclick: interrupt }, square, 'Stop');
    this.line = el('div', { class: 'line', role: 'status' });
    this.trouble = el('p', { class: 'trouble', role: 'alert', hidden: true });
    this.empty = el('div', { class: 'empty', hidden: true });
    this.log = new Log(this.empty);
    this.log.column.prepend(this.empty);
    this.cards = new Cards(this.talk, () => !TOUCH.matches && this.composer.focus());
    this.composer = new Composer({
      label: 'Say something…', draft: this.tab.get('draft') ?? '', send: (text) => this.#send(text),
      save: (text) => this.tab.set('draft', text || null),
    });
    const names = el('div', { class: 'names' }, this.title, this.about);
    const header = el('header', { class: 'bar' }, menu, names, this.stop);
    const bottom = el('div', { class: 'bottom' }, this.cards.node, this.composer.node);
    this.root.replaceChildren(header, this.line, this.trouble, this.log.node, bottom);
  }

  #teach(agent) {
    if (this.taught === agent) return;
    this.taught = agent;
    const button = (text) => el('button', { type: 'button', onclick: () => this.#try(text) }, text);
    const tries = el('div', { class: 'tries' }, (TRY[agent] ?? []).map(button));
    const about = agent === 'demo' ? ABOUT_DEMO : ABOUT_AGENT;
    this.empty.replaceChildren(el('h2', {}, 'Nothing said yet'), el('p', {}, about), tries);
  }

  #try(text) {
    this.composer.set(text);
    this.composer.focus();
  }

  // -- what happens

  #events() {
    return {
      changed: () => this.draw(),
      giveBack: (text, why) => this.composer.giveBack(text, why),
      takeBack: (text) => this.composer.takeBack(text),
      turnEnded: () => this.app.sessions.refresh(),
      ended: (why) => this.#ended(why),
    };
  }

  #ended(why) {
    if (why === 'signed-out') return; // the shell is told by the request that failed
    this.app.sessions.refresh();
    this.app.goHome(why === 'deleted' ? 'That session was deleted.' : 'There is no such session any more.');
  }

  #send(text) {
    const waits = this.talk.status.state === 'waiting';
    if (!this.talk.connection.live || !this.talk.loaded) {
      this.first = waits ? null : text;
      this.offline = waits;
      this.composer.note(waits ? 'Not connected. Your text stays here.' : 'Sent as soon as the session is open.');
      return false;
    }
    this.talk.send(text);
    this.log.toEnd();
    return true;
  }

  /** Send a text that was there before the session was open, if it was not changed since. */
  #sendFirst() {
    if (!this.first || !this.talk.loaded || !this.talk.connection.live) return;
    const text = this.first;
    this.first = null;
    if (this.composer.text.trim() === text) this.composer.submit();
  }

  #key(event) {
    const { first } = this.cards;
    if (event.isComposing || event.defaultPrevented) return;
    if (event.key === 'Escape' && first) this.talk.decide(first, 'decline');
    else if (event.key === 'Escape') this.talk.interrupt();
    else if (event.key === 'Enter' && (event.ctrlKey || event.metaKey) && first) this.talk.decide(first, 'accept');
  }

  // -- drawing

  /** Whether time alone changes what is shown. */
  #ticks() {
    const { running, status } = this.talk;
    return running || status.replayed || status.state === 'waiting';
  }

  #draw() {
    const { talk } = this;
    const session = this.app.sessions.get(this.session);
    const words = connectionWords(talk.status);
    setText(this.title, session ? nameOf(session) : 'Session');
    setText(this.about, session ? `${session.agent} · ${this.#state(session)}` : '');
    setText(this.line, words.text);
    setAttr(this.line, 'data-tone', words.tone);
    this.stop.disabled = !talk.running || !talk.connection.live || talk.stopping === talk.running.id;
    this.#drawTrouble();
    this.#teach(session?.agent);
    this.log.draw(talk);
    this.cards.draw();
    document.title = `${talk.requests.size ? '(!) ' : ''}${this.title.textContent} · Argus`;
    if (this.offline && this.talk.connection.live) this.composer.note('');
    this.offline &&= !this.talk.connection.live;
    this.#sendFirst();
  }

  #state(session) {
    const { talk } = this;
    const live = talk.requests.size ? 'waiting' : talk.running ? 'working' : talk.runtime.state;
    this.app.sessions.setLive(this.session, live);
    return stateWords(live || session.state)[1];
  }

  #drawTrouble() {
    const { state, reason } = this.talk.runtime;
    const what = { restarting: 'The agent is being restarted', failed: 'The agent could not be kept running' }[state];
    const todo = state === 'failed' ? ' It is tried again from time to time; what you write stays here.' : '';
    const text = what ? `${what}${reason ? `: ${reason}` : ''}.${todo}` : reason;
    this.trouble.hidden = !text;
    setText(this.trouble, text);
  }
}
