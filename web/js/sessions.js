// The list of sessions: fetched, kept fresh while somebody looks, shared by the views.

import * as api from './api.js';
import * as keep from './keep.js';

const EVERY_MS = 10_000;
const TITLE_MAX = 60;

/** A title for a session that begins with this text: its first line, cut at a word. */
export function titleOf(text) {
  const line = text.trim().split('\n')[0].trim();
  if (line.length <= TITLE_MAX) return line;
  const cut = line.slice(0, TITLE_MAX);
  return `${cut.slice(0, Math.max(cut.lastIndexOf(' '), TITLE_MAX / 2)).trim()}…`;
}

/** What a session is called. */
export const nameOf = (session) => session.title || `Session ${session.sessionId.slice(0, 6)}`;

export class Sessions {
  constructor() {
    this.all = null; // null until the first answer
    this.defaultAgent = null; // of a new session that names none
    this.error = '';
    this.shown = null; // [session, state]: the open one, of which more is known than the list says
    this.watchers = new Set();
    this.poll = () => !document.hidden && this.refresh();
  }

  start() {
    this.timer = setInterval(this.poll, EVERY_MS);
    document.addEventListener('visibilitychange', this.poll);
    return this.refresh();
  }

  stop() {
    clearInterval(this.timer);
    document.removeEventListener('visibilitychange', this.poll);
    this.watchers.clear();
  }

  /** Call back at each change; returns what ends that. */
  watch(changed) {
    this.watchers.add(changed);
    return () => this.watchers.delete(changed);
  }

  get(id) {
    return this.all?.find((session) => session.sessionId === id);
  }

  async refresh() {
    try {
      const { sessions, defaultAgent } = await api.sessions();
      this.defaultAgent = defaultAgent;
      this.all = sessions.sort((a, b) => b.lastActiveAtMs - a.lastActiveAtMs);
      this.error = '';
    } catch (error) {
      this.error = error.message;
    }
    this.#tell();
  }

  /** What the open session does: working, waiting, or null. */
  setLive(id, state) {
    const before = this.shown?.join();
    this.shown = state ? [id, state] : null;
    if (before !== this.shown?.join()) this.#tell();
  }

  /** A session's state, as well as it is known. */
  live(session) {
    if (this.shown?.[0] === session.sessionId) return this.shown[1];
    if (session.openQuestions) return 'waiting';
    return session.openTurns ? 'working' : session.state;
  }

  #tell() {
    for (const changed of this.watchers) changed();
  }

  /** A new session for a conversation that begins with this text. */
  async create(text, agent) {
    const session = await api.createSession(titleOf(text), agent);
    this.all = [session, ...(this.all ?? [])];
    this.#tell();
    return session.sessionId;
  }

  async rename(id, title) {
    const renamed = await api.renameSession(id, title);
    this.all = this.all?.map((session) => (session.sessionId === id ? { ...session, title, ...renamed } : session));
    this.#tell();
  }

  async remove(id) {
    await api.deleteSession(id);
    keep.forget(id);
    await this.refresh();
  }
}
