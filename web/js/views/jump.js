// Ctrl K: type a part of a name, Enter goes there.

import { openDialog } from '../dialog.js';
import { el, setAttr } from '../dom.js';
import { sessionUrl } from '../routes.js';
import { nameOf } from '../sessions.js';
import { ago, stateWords } from '../words.js';
import { matching } from './list.js';

const MOST = 50;

export function show(app) {
  const field = el('input', {
    type: 'text', role: 'combobox', 'aria-label': 'Name of a session', 'aria-controls': 'jump-list', 'aria-expanded': 'true',
    placeholder: 'Name, agent or state', autocomplete: 'off', oninput: () => draw(), onkeydown: (event) => key(event),
  });
  const rows = el('ul', { class: 'rows', id: 'jump-list', role: 'listbox', 'aria-label': 'Sessions' });
  const none = el('p', { class: 'quiet', role: 'status' });
  const opened = openDialog('Jump to a session', [field, rows, none], { kind: 'jump' });
  let at = 0;
  let found = [];
  const go = (session) => {
    opened.close();
    location.hash = session ? sessionUrl(session.sessionId) : '#/';
  };
  const draw = () => {
    at = 0;
    found = matching(app.sessions.all ?? [], field.value, (session) => app.sessions.live(session)).slice(0, MOST);
    rows.replaceChildren(...found.map((session, n) => row(app, session, n, () => go(session))));
    none.textContent = found.length ? '' : 'No session has that in its name.';
    mark();
  };
  const mark = () => {
    [...rows.children].forEach((node, n) => setAttr(node, 'aria-selected', String(n === at)));
    rows.children[at]?.scrollIntoView({ block: 'nearest' });
    setAttr(field, 'aria-activedescendant', rows.children[at]?.id ?? null);
  };
  const key = (event) => {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (event.key === 'Enter' && found[at]) go(found[at]);
    else if (step && found.length) at = (at + step + found.length) % found.length;
    else return;
    event.preventDefault();
    mark();
  };
  draw();
  field.focus();
}

function row(app, session, n, go) {
  const [shape, words] = stateWords(app.sessions.live(session));
  return el(
    'li', { id: `jump-${n}`, role: 'option', onclick: go },
    el('span', { class: 'dot', 'data-shape': shape }), el('span', { class: 'unseen' }, `${words}: `),
    el('span', { class: 'name', dir: 'auto' }, nameOf(session)), el('span', { class: 'when' }, ago(session.lastActiveAtMs)),
  );
}
