// What a session has used, in tokens, as the gateway has counted: by conversation or by day. Loaded when asked for.

import { usage } from '../api.js';
import { openDialog } from '../dialog.js';
import { el, setText } from '../dom.js';
import { nameOfThread } from '../threads.js';
import { count } from '../words.js';

const COLUMNS = [['turns', 'Turns'], ['inputTokens', 'Read'], ['outputTokens', 'Written'], ['totalTokens', 'Tokens']];

export function show(session, talk) {
  const said = el('p', { class: 'quiet', role: 'status' }, 'Loading…');
  const table = el('table', { class: 'figures', hidden: true });
  const buttons = el('div', { class: 'choices first' });
  openDialog('Usage of this session', el('div', {}, buttons, said, table));
  load();

  async function load() {
    try {
      const [told, names] = await Promise.all([usage(session), namesOf(talk)]);
      const thread = ({ threadId }) => names.get(threadId) ?? `Conversation ${threadId.slice(0, 8)}`;
      const by = (label, first, rows) => {
        const press = () => {
          for (const other of buttons.children) other.setAttribute('aria-pressed', String(other === button));
          draw(label, first, rows, told.total);
        };
        const button = el('button', { type: 'button', 'aria-pressed': 'false', onclick: press }, `By ${label.toLowerCase()}`);
        return button;
      };
      buttons.replaceChildren(by('Conversation', thread, told.threads), by('Day', ({ day }) => dayWords(day), told.days));
      buttons.firstChild.click();
    } catch (error) {
      setText(said, `The usage could not be read: ${error.message}`);
    }
  }

  function draw(label, first, rows, total) {
    setText(said, rows.length ? '' : 'Nothing was counted yet: the agent tells with each turn what it used.');
    table.hidden = !rows.length;
    const line = (tag, name, row) => el('tr', {}, el('th', { scope: tag, dir: 'auto' }, name), COLUMNS.map(([key]) => el('td', {}, count(row[key]))));
    table.replaceChildren(
      el('thead', {}, el('tr', {}, el('th', { scope: 'col' }, label), COLUMNS.map(([, name]) => el('th', { scope: 'col' }, name)))),
      el('tbody', {}, rows.map((row) => line('row', first(row), row))),
      el('tfoot', {}, line('row', 'Together', total)),
    );
  }
}

async function namesOf(talk) {
  const threads = await talk.threads.list().catch(() => []); // the agent may be away: the figures are the gateway's
  return new Map(threads.map((thread) => [thread.id, nameOfThread(thread).slice(0, 80)]));
}

const dayWords = (day) => new Date(`${day}T12:00`).toLocaleDateString(undefined, { dateStyle: 'medium' });
