// What can be done with an input: change and remove what waits, and read its receipt. Loaded when it is asked for.

import * as api from '../api.js';
import { confirm, form, openDialog } from '../dialog.js';
import { el, setText } from '../dom.js';
import { sourceWords } from '../inputs.js';
import { duration, saidWords } from '../words.js';

/** Another text for what waits, in its place. */
export function editWaiting(talk, { inputId, text }) {
  const area = el('textarea', { class: 'boxed', rows: '6', 'aria-label': 'Message', dir: 'auto' });
  area.value = text;
  form('Edit what waits', [area], { yes: 'Save', no: 'Cancel' }, async () => {
    await api.editInput(inputId, area.value);
    await talk.inputs.read(inputId);
  });
  area.focus();
}

/** Take out what waits. What somebody else waits for is removed only after a question. */
export function remove(talk, input) {
  const act = async () => {
    await api.removeInput(input.inputId);
    await talk.inputs.read(input.inputId);
  };
  const from = sourceWords(input);
  const failed = (error) => confirm('It was not removed', error.message, { yes: 'Close', no: 'Back' }, () => {});
  if (!from) return act().catch(failed);
  const text = `It came from elsewhere (${from}). Who sent it gets no answer.`;
  return confirm('Remove this message?', text, { yes: 'Remove', no: 'Keep', danger: true }, act);
}

// -- the receipt

const STEPS = {
  stored: 'Accepted', started: 'Started', answered: 'Answered', interrupted: 'Interrupted', failed: 'Failed', removed: 'Removed',
  delivered: 'Delivered',
};
const DELIVERY = {
  pending: 'to be sent', sent: 'arrived', failed: 'did not arrive; it is tried again', uncertain: 'may have arrived; it is sent once more',
  dead: 'given up',
};
const ZONED = { dateStyle: 'medium', timeStyle: 'medium' };
const when = (ms) => (ms ? new Date(ms).toLocaleString(undefined, ZONED) : 'at an unknown time');

/** When each step of an input happened, where its answer went, what was asked. */
export function showReceipt(inputId) {
  const said = el('p', { class: 'quiet', role: 'status' }, 'Loading…');
  const body = el('div', {});
  const load = async () => {
    try {
      body.replaceChildren(...receipt(await api.inputOf(inputId), load));
      setText(said, '');
    } catch (error) {
      setText(said, `The receipt could not be read: ${error.message}`);
    }
  };
  openDialog('Receipt', [said, body], { kind: 'receipt' });
  return load();
}

function receipt(input, reload) {
  const from = sourceWords(input) || 'this page';
  const facts = [['From', from], ['Id', el('code', {}, input.inputId)]];
  if (input.waitsFor) facts.push(['Waits for', input.waitsFor]);
  if (input.error) facts.push(['Why', input.error]);
  if (input.retryOf) facts.push(['Said again, after', el('code', {}, input.retryOf)]);
  if (input.retriedAs) facts.push(['Said again as', el('code', {}, input.retriedAs)]);
  const list = el('dl', { class: 'facts' }, facts.flatMap(([name, value]) => [el('dt', {}, name), el('dd', { dir: 'auto' }, value)]));
  return [
    el('p', { class: 'text', dir: 'auto' }, input.text.slice(0, 2000)), steps(input.steps), list,
    ...section('Deliveries', input.deliveries.map((each) => delivery(each, reload))),
    ...section('Approvals', input.approvals.map(approval)),
  ];
}

function steps(all) {
  const row = ({ step, atMs }, at) => {
    const after = at ? duration(atMs - all[at - 1].atMs) : '';
    const more = after ? el('span', { class: 'quiet' }, `+ ${after}`) : null;
    return el('li', { 'data-step': step }, el('b', {}, STEPS[step] ?? step), el('time', { datetime: iso(atMs) }, when(atMs)), more);
  };
  return el('ol', { class: 'steps' }, all.map(row));
}

const iso = (ms) => (ms ? new Date(ms).toISOString() : null);
const section = (title, rows) => (rows.length ? [el('h3', {}, title), el('ul', { class: 'steps' }, rows)] : []);

function delivery({ deliveryId, route, state, attempts, error, sentAtMs, nextAtMs }, reload) {
  const place = route.url ?? route.type ?? '';
  const about = [
    DELIVERY[state] ?? state, sentAtMs ? when(sentAtMs) : '', attempts === 1 ? '1 attempt' : `${attempts} attempts`, error,
    nextAtMs ? `next: ${when(nextAtMs)}` : '',
  ];
  const again = state === 'dead' ? deliverAgain(deliveryId, reload) : null;
  const words = el('span', { class: 'quiet', dir: 'auto' }, about.filter(Boolean).join(' · '));
  return el('li', {}, el('span', { class: 'mono', dir: 'ltr' }, place), words, again);
}

function deliverAgain(id, then) {
  const press = async () => {
    button.disabled = true;
    await api.retryDelivery(id).catch((error) => setText(button, error.message));
    then();
  };
  const button = el('button', { type: 'button', onclick: press }, 'Deliver again');
  return button;
}

/** Clients have keys that mean nothing to a person. */
const who = (by) => (/^[0-9a-f]{16}$/.test(by) ? 'who had the page or another client open' : by);

function approval({ method, state, decision, by }) {
  const what = method.includes('fileChange') ? 'To change files' : method.includes('commandExecution') ? 'To run a command' : method;
  const said = { open: 'open', expired: 'nobody answered in time: declined', settled: 'over without an answer' };
  const words = state === 'answered' ? [saidWords(decision), who(by)].filter(Boolean).join(' by ') : said[state] ?? state;
  return el('li', {}, el('span', {}, what), el('span', { class: 'quiet' }, words));
}
