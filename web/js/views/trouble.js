// The agent's process is restarting or could not be kept running: why, what was kept, and what can be done.

import { el, setText } from '../dom.js';

const WHAT = { restarting: 'The agent is being restarted', failed: 'The agent could not be kept running' };
const KEPT = {
  restarting: ' What was said is kept.',
  failed: ' What was said is kept, and what you write stays here. It is tried again from time to time.',
};

export class Trouble {
  constructor(session, talk) {
    Object.assign(this, { session, talk });
    this.text = el('p', { dir: 'auto' });
    const log = el('button', { type: 'button', onclick: () => this.#log() }, 'Runtime log');
    this.again = el('button', { type: 'button', onclick: () => this.#restart() }, 'Restart agent');
    this.node = el(
      'div', { class: 'trouble', role: 'alert', hidden: true }, this.text, el('div', { class: 'choices' }, log, this.again),
    );
  }

  draw() {
    const { state, reason } = this.talk.runtime;
    const what = WHAT[state];
    const text = what ? `${what}${reason ? `: ${reason}` : ''}.${KEPT[state]}` : reason;
    this.node.hidden = !text;
    this.again.hidden = state === 'restarting';
    setText(this.text, text ?? '');
  }

  async #log() {
    (await import('./session_actions.js')).showLog(this.session);
  }

  async #restart() {
    (await import('./session_actions.js')).restart(this.session);
  }
}
