// One session: header, connection line, conversation, questions, queue, composer.

import { usage } from '../api.js';
import { isOpen, openMenu } from '../dialog.js';
import { el, iconButton, onceAFrame, setAttr, setText } from '../dom.js';
import * as keep from '../keep.js';
import { sessionUrl } from '../routes.js';
import { nameOf } from '../sessions.js';
import { Talk } from '../talk.js';
import { connectionWords, stateWords, usageWords } from '../words.js';
import { Cards } from './cards.js';
import { Composer } from './composer.js';
import { Log } from './log.js';
import { tries } from './tries.js';
import { Trouble } from './trouble.js';
import { Waiting } from './waiting.js';

const TOUCH = matchMedia('(pointer: coarse)');

/** Show a session. `state` is {app, parts: [session, thread], menu}; `menu` is the button that opens the list on a phone. */
export function mount(root, state) {
  return new Conversation(root, state);
}

class Conversation {
  constructor(root, { app, parts: [session, thread = null], menu }) {
    Object.assign(this, { app, session, root, tab: keep.tab(session), used: { thread: 0, session: 0 } });
    this.draw = onceAFrame(() => this.#draw());
    this.talk = new Talk(session, this.#events(), thread);
    this.draftOf = this.#draftKey();
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
    const { talk } = this;
    this.empty = el('div', { class: 'empty', hidden: true });
    this.log = new Log(this.empty, { older: () => talk.loadOlder(), again: (text) => this.#write(text) });
    this.log.column.prepend(this.empty);
    this.trouble = new Trouble(this.session, talk);
    this.cards = new Cards(talk, () => !TOUCH.matches && this.composer.focus());
    this.composer = new Composer({
      label: 'Say something…', draft: this.#drafts()[this.#draftKey()] ?? '', send: (text) => this.#send(text),
      save: (text) => this.#saveDraft(text), up: () => this.waiting.editLast(),
    });
    this.waiting = new Waiting(talk, (text) => this.#write(text));
    const bottom = el('div', { class: 'bottom' }, this.cards.node, this.waiting.node, this.composer.node);
    this.root.replaceChildren(this.#header(menu), this.#line(), this.trouble.node, this.log.node, bottom);
  }

  #header(menu) {
    this.title = el('h1', { dir: 'auto' });
    this.about = el('span', { class: 'about' });
    const square = el('span', { class: 'square' });
    this.stop = el('button', { class: 'stop', type: 'button', onclick: () => this.talk.interrupt() }, square, el('span', {}, 'Stop'));
    const talks = iconButton('talks', 'Conversations', () => this.#threads());
    const more = iconButton('more', 'More', () => this.#menu(more), { 'aria-haspopup': 'menu' });
    const names = el('div', { class: 'names' }, this.title, this.about);
    return el('header', { class: 'bar' }, menu, names, talks, more, this.stop);
  }

  #line() {
    this.said = el('span', {});
    this.usage = el('button', { class: 'usage', type: 'button', hidden: true, title: 'Usage', onclick: () => this.#usage() });
    this.line = el('div', { class: 'line', role: 'status' }, this.said, this.usage);
    return this.line;
  }

  #menu(button) {
    const actions = () => import('./session_actions.js');
    const { app, session } = this;
    const named = () => app.sessions.get(session);
    openMenu(button, [
      { icon: 'plus', text: 'New conversation', run: () => this.#go('new') },
      { icon: 'talks', text: 'Conversations…', run: () => this.#threads() },
      { icon: 'edit', text: 'Rename session…', run: async () => (await actions()).rename(app, session, named()) },
      { icon: 'receipt', text: 'Usage…', run: () => this.#usage() },
      { icon: 'log', text: 'Runtime log…', run: async () => (await actions()).showLog(session) },
      { icon: 'restore', text: 'Restart agent…', run: async () => (await actions()).restart(session) },
      { icon: 'trash', text: 'Delete session…', danger: true, run: async () => (await actions()).remove(app, session, named()) },
    ]);
  }

  async #usage() {
    (await import('./usage.js')).show(this.session, this.talk);
  }

  /** What the gateway has counted; it is no trouble if it does not say. */
  async #count() {
    const told = await usage(this.session).catch(() => null);
    if (!told) return;
    const thread = told.threads.find(({ threadId }) => threadId === this.talk.thread.id)?.totalTokens ?? 0;
    this.used = { thread, session: told.total.totalTokens };
    this.draw();
  }

  async #threads() {
    const { show } = await import('./threads.js');
    show(this.talk, (thread) => this.#go(thread));
  }

  #go(thread) {
    const url = sessionUrl(this.session, thread);
    if (location.hash === url) this.app.follow('', true);
    else location.hash = url;
  }

  #teach(agent) {
    if (this.taught === agent) return;
    this.taught = agent;
    this.empty.replaceChildren(el('h2', {}, 'Nothing said yet'), ...tries(agent, (text) => this.#write(text)));
  }

  #write(text) {
    this.composer.set(this.composer.text ? `${this.composer.text}\n\n${text}` : text);
    this.composer.focus();
  }

  // -- drafts: one for each thread

  #drafts() {
    return this.tab.get('drafts') ?? {};
  }

  #draftKey() {
    return this.talk.thread.id ?? 'new';
  }

  #saveDraft(text) {
    this.tab.set('drafts', { ...this.#drafts(), [this.#draftKey()]: text || undefined });
  }

  /** It is known now which thread this is. */
  #shown(thread) {
    const { text } = this.composer;
    const kept = this.#drafts()[thread ?? 'new'];
    if (text && thread && this.draftOf === 'new') this.tab.set('drafts', { ...this.#drafts(), new: undefined, [thread]: text });
    else if (!text && kept) this.composer.set(kept);
    this.draftOf = this.#draftKey();
    this.#count();
    if (thread) this.app.replaceUrl(sessionUrl(this.session, thread));
  }

  // -- what happens

  #events() {
    return {
      changed: () => this.draw(),
      shown: (thread) => this.#shown(thread),
      giveBack: (text, why) => this.composer.giveBack(text, why),
      takeBack: (text) => this.composer.takeBack(text),
      turnEnded: () => {
        this.app.sessions.refresh();
        this.#count();
      },
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
    this.talk.say(text);
    this.log.toEnd();
    this.draw();
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
    if (event.isComposing || event.defaultPrevented || isOpen()) return;
    if (event.key === 'Escape') this.#escape();
    else if (event.key === 'Enter' && (event.ctrlKey || event.metaKey)) this.cards.acceptFirst();
  }

  /** Who is writing means to leave the field first. */
  #escape() {
    const writing = document.activeElement;
    if (/^(TEXTAREA|INPUT|SELECT)$/.test(writing?.tagName) && writing.value) writing.blur();
    else if (this.cards.first) this.cards.declineFirst();
    else this.talk.interrupt();
  }

  // -- drawing

  /** Whether time alone changes what is shown. */
  #ticks() {
    const { running, status } = this.talk;
    return running || status.replayed || status.gap || status.state === 'waiting' || this.cards.ticks;
  }

  #draw() {
    const { talk } = this;
    const session = this.app.sessions.get(this.session);
    setText(this.title, session ? nameOf(session) : 'Session');
    setText(this.about, session ? this.#aboutWords(session) : '');
    this.#drawLine();
    this.#drawStop();
    this.trouble.draw();
    this.#teach(session?.agent);
    this.log.draw(talk);
    this.cards.draw();
    this.waiting.draw();
    document.title = `${talk.requests.size ? '(!) ' : ''}${this.title.textContent} · Argus`;
    if (this.offline && this.talk.connection.live) this.composer.note('');
    this.offline &&= !this.talk.connection.live;
    this.#sendFirst();
  }

  #aboutWords(session) {
    const model = this.talk.model === session.agent ? '' : this.talk.model;
    return [this.talk.thread.name, session.agent, model, this.#state(session)].filter(Boolean).join(' · ');
  }

  #drawLine() {
    const words = connectionWords(this.talk.status);
    setText(this.said, words.text);
    const used = usageWords(this.talk.thread.usage, this.used);
    this.usage.hidden = !used;
    setText(this.usage, used);
    setAttr(this.line, 'data-tone', words.tone);
  }

  #drawStop() {
    const { running, stopping, connection } = this.talk;
    const isStopping = Boolean(running) && stopping === running.id;
    this.stop.disabled = !running || !connection.live || isStopping;
    setText(this.stop.lastChild, isStopping ? 'Stopping…' : 'Stop');
  }

  #state(session) {
    const { talk } = this;
    const live = talk.requests.size ? 'waiting' : talk.running ? 'working' : talk.runtime.state;
    this.app.sessions.setLive(this.session, live);
    return stateWords(live || session.state)[1];
  }
}
