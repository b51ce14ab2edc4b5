// What is to be said when the running turn is over. Kept over a reload.
//
// An entry goes out by itself only after a turn that this page saw end well. In all other cases (stopped, failed, page
// loaded again, copied tab) it waits for "Send now": nothing is said that its writer may no longer mean. An entry keeps
// its id in the outbox and at the agent, so it cannot go out twice.

import { newId } from './outbox.js';

export class Queue {
  /** `saved`: what `save(entries)` kept; `sent(id)`: whether an entry is in the outbox already. */
  constructor(saved, sent, save) {
    this.entries = (saved ?? []).filter((entry) => !sent(entry.id));
    this.held = this.entries.length ? 'The page was loaded again.' : ''; // why nothing goes out by itself
    this.save = () => save(this.entries.length ? this.entries : null);
  }

  add(text) {
    this.entries.push({ id: newId(), text });
    this.save();
  }

  hold(why) {
    if (this.entries.length) this.held = why;
  }

  /** Take an entry out; undefined if it is not there. */
  remove(id) {
    const entry = this.entries.find((each) => each.id === id);
    this.entries = this.entries.filter((each) => each !== entry);
    if (!this.entries.length) this.held = '';
    this.save();
    return entry;
  }

  /** The next one to go out by itself. */
  get next() {
    return this.held ? undefined : this.entries[0];
  }

  get last() {
    return this.entries.at(-1);
  }
}
