// A thread's history by pages of items, the newest first. A long turn is more than one page. Agents that have no pages
// (thread/items/list with thread/turns/list) give all of it at once.

import { RpcError } from './connection.js';

const ITEMS = 80; // in a page: some screens, and quick to fetch on a phone
const MOST_PAGES = 10;
const SKEW_MS = 60 * 60 * 1000; // the agent's clock may be off by that much

export class History {
  /** `ask(method, params)` asks the agent. */
  constructor(ask) {
    Object.assign(this, { ask, paged: true });
  }

  /**
   * A page as {turns, older}: its turns oldest first, with those of their items that are on it, and what `page` wants to
   * get the page before it, or null.
   */
  async page(threadId, before = null) {
    if (this.paged) {
      const page = await this.#items(threadId, before).catch((error) => this.#unpaged(error, before));
      if (page) return page;
    }
    const { thread } = await this.ask('thread/read', { threadId, includeTurns: true });
    return { turns: thread.turns ?? [], older: null };
  }

  /** Items say which turn they belong to, turns how they ended. A page of items has at most as many turns as items. */
  async #items(threadId, before) {
    const asked = { threadId, limit: ITEMS, sortDirection: 'desc' };
    const [items, turns] = await Promise.all([
      this.ask('thread/items/list', { ...asked, cursor: before?.items ?? null }),
      this.#turns(asked, before),
    ]);
    const older = items.nextCursor && { items: items.nextCursor, turns: turns.next, known: turns.known };
    return { turns: joined(turns.known, items.data, !older), older: older || null };
  }

  /** The turns known so far, newest first, and one page more. */
  async #turns(asked, before) {
    if (before && !before.turns) return { known: before.known, next: null };
    const page = await this.ask('thread/turns/list', { ...asked, cursor: before?.turns ?? null, itemsView: 'notLoaded' });
    return { known: [...(before?.known ?? []), ...page.data], next: page.nextCursor ?? null };
  }

  /** An error of an agent that has no pages is none; any other goes on. */
  #unpaged(error, before) {
    if (!(error instanceof RpcError) || before) throw error;
    this.paged = false; // thread/read says the rest: what is wrong is wrong there too
  }

  /** The turns since `sinceMs`, and some before; at least the newest page. In the shape of `page`. */
  async since(threadId, sinceMs) {
    let { turns, older } = await this.page(threadId);
    for (let pages = 1; older && pages < MOST_PAGES && startOf(turns[0]) > sinceMs - SKEW_MS; pages += 1) {
      const page = await this.page(threadId, older);
      turns = together(page.turns, turns);
      older = page.older;
    }
    return { turns, older };
  }
}

const startOf = (turn) => (turn?.startedAt ?? 0) * 1000;

/** Turns (newest first) with the items (newest first) of a page, oldest first: those that the page reaches. */
function joined(turns, entries, isLast) {
  const items = new Map();
  for (const { turnId, item } of entries) items.set(turnId, [item, ...(items.get(turnId) ?? [])]);
  const reached = isLast ? turns.length : turns.findLastIndex((turn) => items.has(turn.id)) + 1;
  return turns.slice(0, reached).reverse().map((turn) => ({ ...turn, items: items.get(turn.id) ?? [] }));
}

/** Two pages as one; the turn that both have a part of is put together. */
export function together(older, newer) {
  const parts = new Map(newer.map((turn) => [turn.id, turn]));
  const first = older.map((turn) => {
    const rest = parts.get(turn.id);
    parts.delete(turn.id);
    return rest ? { ...rest, items: [...turn.items, ...rest.items] } : turn;
  });
  return [...first, ...parts.values()];
}
