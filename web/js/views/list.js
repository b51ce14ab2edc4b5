// The list of sessions: state, name, last activity; a filter when there are many; rename and delete in a menu.

import { openMenu } from '../dialog.js';
import { el, iconButton, keyed, setAttr, setText } from '../dom.js';
import { sessionUrl } from '../routes.js';
import { nameOf } from '../sessions.js';
import { ago, stateWords } from '../words.js';

const FILTER_FROM = 8; // with fewer there is nothing to look for

/** Sessions whose name, agent or state has all these words in it. */
export function matching(sessions, query, stateOf) {
  const words = query.toLowerCase().split(/\s+/).filter(Boolean);
  const text = (session) => `${nameOf(session)} ${session.agent} ${stateWords(stateOf(session))[1]}`.toLowerCase();
  return sessions.filter((session) => words.every((word) => text(session).includes(word)));
}

/** Show the list. `state` is {app, current()}: which session is open. */
export function mount(root, { app, current }) {
  const box = el('ul', { class: 'sessions' });
  const none = el('p', { class: 'quiet', role: 'status', hidden: true });
  const filter = el('input', {
    type: 'search', class: 'filter', 'aria-label': 'Filter sessions', placeholder: 'Filter sessions', autocomplete: 'off',
    hidden: true, oninput: () => draw(),
  });
  root.replaceChildren(filter, none, box);
  const draw = () => {
    const { all, error } = app.sessions;
    filter.hidden = (all?.length ?? 0) < FILTER_FROM;
    const found = matching(all ?? [], filter.hidden ? '' : filter.value, (session) => app.sessions.live(session));
    keyed(box, found, (session) => session.sessionId, () => rowView(app, current));
    none.hidden = Boolean(found.length) && !error;
    setText(none, error ? problem(error, all) : !all ? 'Loading…' : all.length ? 'None has that in its name.' : 'No sessions yet.');
  };
  const unwatch = app.sessions.watch(draw);
  draw();
  return { draw, unmount: unwatch };
}

const problem = (error, all) => `${error} ${all?.length ? 'This is the list as it was.' : ''} It is asked again every few seconds.`;

function rowView(app, current) {
  const [dot, state, name, when] = ['dot', 'unseen', 'name', 'when'].map((kind) => el('span', { class: kind }));
  name.dir = 'auto';
  const link = el('a', {}, dot, state, name, when);
  const more = iconButton('more', '', () => openMenu(more, entries(app, node.dataset.id)), { 'aria-haspopup': 'menu' });
  const node = el('li', { class: 'row' }, link, more);
  const update = (session) => {
    const [shape, words] = stateWords(app.sessions.live(session));
    const called = nameOf(session);
    node.dataset.id = session.sessionId;
    setAttr(link, 'href', sessionUrl(session.sessionId));
    setAttr(link, 'aria-current', current() === session.sessionId ? 'page' : null);
    setAttr(more, 'aria-label', `Actions for ${called}`);
    setAttr(more, 'title', 'Rename, delete');
    dot.dataset.shape = shape;
    setAttr(link, 'title', [called, words, session.reason].filter(Boolean).join(' · '));
    setText(state, `${words}: `);
    setText(name, called);
    setText(when, ago(session.lastActiveAtMs));
  };
  return { node, update };
}

function entries(app, id) {
  const actions = () => import('./session_actions.js');
  const session = () => app.sessions.get(id);
  return [
    { icon: 'edit', text: 'Rename…', run: async () => (await actions()).rename(app, id, session()) },
    { icon: 'log', text: 'Runtime log…', run: async () => (await actions()).showLog(id) },
    { icon: 'trash', text: 'Delete…', danger: true, run: async () => (await actions()).remove(app, id, session()) },
  ];
}
