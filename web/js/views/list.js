// The list of sessions, with deletion confirmed in place.

import { el, icon, keyed, setAttr, setText } from '../dom.js';
import { nameOf } from '../sessions.js';
import { ago, stateWords } from '../words.js';

/** Show the list. `state` is {app, current()}: which session is open. */
export function mount(root, { app, current }) {
  const box = el('ul', { class: 'sessions' });
  const none = el('p', { class: 'quiet', hidden: true });
  root.replaceChildren(box, none);
  const asking = { id: null };
  const draw = () => {
    const { all, error } = app.sessions;
    const rows = (all ?? []).map((session) => ({ session, asks: asking.id === session.sessionId, open: current() }));
    keyed(box, rows, (row) => row.session.sessionId, () => rowView(app, asking, draw));
    none.hidden = Boolean(all?.length) && !error;
    setText(none, error || (all ? 'No sessions yet.' : 'Loading…'));
  };
  const unwatch = app.sessions.watch(draw);
  draw();
  return { draw, unmount: unwatch };
}

function rowView(app, asking, draw) {
  const [dot, state, name, when] = ['dot', 'unseen', 'name', 'when'].map((kind) => el('span', { class: kind }));
  name.dir = 'auto';
  const link = el('a', {}, dot, state, name, when);
  const trash = el('button', { class: 'bare', type: 'button', title: 'Delete' }, icon('trash'));
  const yes = el('button', { class: 'danger', type: 'button' }, 'Delete');
  const no = el('button', { type: 'button' }, 'Keep');
  const why = el('p', {});
  const confirm = el('div', { class: 'confirm', role: 'group', 'aria-label': 'Confirm' }, why, el('div', {}, yes, no));
  confirm.hidden = true;
  const node = el('li', {}, el('div', { class: 'row' }, link, trash), confirm);
  const ask = (id) => {
    asking.id = id;
    draw();
  };
  trash.onclick = () => {
    ask(node.dataset.id);
    no.focus();
  };
  no.onclick = () => {
    ask(null);
    trash.focus();
  };
  confirm.onkeydown = (event) => {
    if (event.key !== 'Escape') return;
    event.preventDefault();
    no.onclick();
  };
  yes.onclick = () => remove(app, node.dataset.id, { yes, why }, () => ask(null));
  const update = ({ session, asks, open }) => {
    const [shape, words] = stateWords(app.sessions.live(session));
    node.dataset.id = session.sessionId;
    link.href = `#/s/${session.sessionId}`;
    setAttr(link, 'aria-current', open === session.sessionId ? 'page' : null);
    setAttr(trash, 'aria-label', `Delete ${nameOf(session)}`);
    dot.dataset.shape = shape;
    setAttr(dot, 'title', session.reason ? `${words}: ${session.reason}` : words);
    setText(state, `${words}: `);
    setText(name, nameOf(session));
    setText(when, ago(session.lastActiveAtMs));
    if (confirm.hidden && asks) setText(why, 'Delete this session? Its agent is ended.');
    confirm.hidden = !asks;
  };
  return { node, update };
}

async function remove(app, id, { yes, why }, done) {
  yes.disabled = true;
  try {
    await app.sessions.remove(id);
    done();
  } catch (error) {
    setText(why, error.message);
  }
  yes.disabled = false;
}
