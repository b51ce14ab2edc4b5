// The threads of a session: which are its own, opening, naming, putting away and taking back.

import * as api from './api.js';
import { REFUSED } from './outbox.js';

const PAGE = 100;
const PAGES = 3;

const ASSEMBLED = /^# Project Context\n\n\[ARGUS\]/; // its first message was put together by the gateway

/** What a thread is called. */
export function nameOfThread({ name, preview }) {
  if (name || !preview) return name || 'New conversation';
  return ASSEMBLED.test(preview) ? 'Begun from elsewhere' : preview;
}

export class Threads {
  constructor(session, ask) {
    Object.assign(this, { session, ask });
  }

  /** Threads of this session, the latest used first. An agent may serve several sessions: theirs are left out. */
  async list(archived = false) {
    const { createdAtMs, threads = [] } = await api.session(this.session);
    const since = Math.floor(createdAtMs / 1000);
    const known = new Set(threads);
    const isOurs = (thread) => known.has(thread.id) || (thread.createdAt >= since && (archived || !known.size));
    const found = [];
    let cursor = null;
    for (let pages = 0; pages < PAGES && (cursor || !pages); pages += 1) {
      const page = await this.ask('thread/list', { limit: PAGE, sortKey: 'updated_at', archived, cursor });
      found.push(...page.data.filter((thread) => isOurs(thread) && !thread.parentThreadId));
      cursor = page.nextCursor;
    }
    return found;
  }

  /** The first of these threads that the agent opens, as the agent tells of it; `silent` ones fail without a word. */
  async open(ids, failed) {
    for (const threadId of ids.filter(Boolean)) {
      try {
        return await this.ask('thread/resume', { threadId, excludeTurns: true });
      } catch (error) {
        if (error.code !== REFUSED) throw error;
        // A thread that never had a turn is gone with its agent's process: nothing to tell. Else somebody has it open.
        if (!/no rollout|not found/.test(error.message)) failed(`A conversation could not be opened: ${error.message}`);
      }
    }
    return null;
  }

  rename(threadId, name) {
    return this.ask('thread/name/set', { threadId, name });
  }

  archive(threadId) {
    return this.ask('thread/archive', { threadId });
  }

  unarchive(threadId) {
    return this.ask('thread/unarchive', { threadId });
  }
}
