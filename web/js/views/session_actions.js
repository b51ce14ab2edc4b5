// What can be done with a session besides talking: rename, restart, delete, read its runtime's log.

import * as api from '../api.js';
import { askText, confirm, openDialog } from '../dialog.js';
import { el, setText } from '../dom.js';
import { nameOf } from '../sessions.js';

const LINES = 400;

export function rename(app, id, session) {
  const value = session?.title ?? '';
  askText('Rename session', { label: 'Name of the session', value, yes: 'Rename' }, (title) => app.sessions.rename(id, title));
}

export function remove(app, id, session) {
  const name = session ? nameOf(session) : 'this session';
  const text = `“${name}” with its conversations is removed and its agent ended. This cannot be undone.`;
  const words = { yes: 'Delete', no: 'Keep', danger: true };
  confirm('Delete this session?', text, words, () => app.sessions.remove(id));
}

export function restart(id) {
  const text = 'A turn that runs now is interrupted. What was said is kept.';
  confirm('Restart the agent?', text, { yes: 'Restart' }, () => api.restartSession(id));
}

/** The newest lines of the runtime's log. */
export function showLog(id) {
  const said = el('p', { class: 'quiet', role: 'status' }, 'Loading…');
  const text = el('pre', { class: 'runtime-log', tabindex: '0', dir: 'ltr', hidden: true });
  const load = async () => {
    try {
      const log = await api.sessionLog(id, LINES);
      text.textContent = log;
      text.hidden = !log;
      setText(said, log ? `The newest lines, at most ${LINES}.` : 'The runtime has written nothing yet.');
      text.scrollTop = text.scrollHeight;
    } catch (error) {
      setText(said, `The log could not be read: ${error.message}`);
    }
  };
  const again = el('button', { type: 'button', onclick: load }, 'Load again');
  openDialog('Runtime log', [said, text, el('div', { class: 'choices' }, again)], { kind: 'wide' });
  load();
}
