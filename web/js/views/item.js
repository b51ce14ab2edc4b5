// One item of a turn: a message, or a tool's work folded to one line.

import { el, icon, setAttr, setText } from '../dom.js';
import { counts, describe } from '../words.js';

/** Text that grows. Appends where it can, so that a selection survives and long answers stay cheap. */
function growingText(node) {
  const text = document.createTextNode('');
  let shown = '';
  node.append(text);
  return (next) => {
    if (next === shown) return;
    if (next.startsWith(shown)) text.appendData(next.slice(shown.length));
    else text.data = next;
    shown = next;
  };
}

function userMessage() {
  const body = el('div', { class: 'bubble' });
  const node = el('div', { class: 'said' }, el('span', { class: 'unseen' }, 'You said: '), body);
  return { node, update: (item) => setText(body, item.text) };
}

function agentMessage() {
  const missing = el('p', { class: 'quiet', hidden: true }, 'The beginning of this answer comes when it is complete.');
  const body = el('div', { class: 'answer' });
  const write = growingText(body);
  const update = (item) => {
    missing.hidden = !item.headless;
    write(item.text);
  };
  return { node: el('div', {}, el('span', { class: 'unseen' }, 'The agent said: '), missing, body), update };
}

function noticeLine() {
  const node = el('p', { class: 'notice', dir: 'auto' });
  return {
    node,
    update: (item) => {
      node.dataset.kind = item.kind;
      setText(node, item.text);
    },
  };
}

/** A fold: one line, and what `fill(body, item)` makes of the item once it is opened. */
function fold() {
  const [sign, verb, result] = ['sign', 'verb', 'result'].map((name) => el('span', { class: name }));
  const target = el('code');
  const body = el('div', { class: 'inside' });
  const node = el('details', { class: 'fold' }, el('summary', {}, sign, verb, target, result), body);
  let last = null;
  let drawn = '';
  const fill = () => node.open && last && body.replaceChildren(...inside(last));
  node.addEventListener('toggle', fill);
  const update = (item) => {
    const words = describe(item);
    last = item;
    if (drawn !== words.icon) sign.replaceChildren(icon(words.icon));
    drawn = words.icon;
    setText(verb, words.verb);
    setText(target, words.target ?? '');
    setText(result, words.result ?? '');
    setAttr(node, 'data-state', item.done ? (words.bad ? 'bad' : 'done') : 'running');
    fill();
  };
  return { node, update };
}

const block = (label, text, kind = '') =>
  text ? [el('p', { class: 'caption' }, label), el('pre', { class: kind, tabindex: '0', dir: 'auto' }, text)] : [];

const pretty = (value) => (typeof value === 'string' ? value : JSON.stringify(value, null, 2));

const INSIDE = {
  commandExecution: ({ raw, output }) => [
    ...block(`In ${raw.cwd ?? 'its workspace'}`, raw.command),
    ...block('Output', output),
  ],
  fileChange: ({ raw }) => (raw.changes ?? []).flatMap(changeBlock),
  mcpToolCall: ({ raw }) => [
    ...block('Arguments', pretty(raw.arguments ?? {})),
    ...block('Result', raw.result ? pretty(raw.result) : ''),
    ...block('Error', raw.error ? pretty(raw.error.message ?? raw.error) : ''),
  ],
  reasoning: ({ text }) => [el('div', { class: 'answer quiet' }, text || 'Nothing of it was shown.')],
};

function inside(item) {
  const make = INSIDE[item.type];
  return make ? make(item) : block('Details', pretty(item.raw));
}

/** The name of a changed file, its counts, its diff with coloured lines. */
export function changeBlock(change) {
  const { added, removed } = counts(change);
  const verb = { add: 'New', delete: 'Deleted' }[change.kind?.type] ?? 'Changed';
  const lines = (change.diff ?? '').replace(/\n$/, '').split('\n').map((line) => diffLine(change.kind?.type, line));
  return [
    el('p', { class: 'caption' }, `${verb} `, el('code', {}, change.path), ` +${added} −${removed}`),
    el('pre', { class: 'diff', tabindex: '0' }, lines),
  ];
}

function diffLine(kind, line) {
  const added = kind === 'add' || (kind !== 'delete' && line.startsWith('+') && !line.startsWith('+++'));
  const removed = kind === 'delete' || (kind !== 'add' && line.startsWith('-') && !line.startsWith('---'));
  return el('span', { class: added ? 'added' : removed ? 'removed' : '' }, `${line}\n`);
}

const MAKE = { userMessage, agentMessage, plan: agentMessage, notice: noticeLine };

/** A view of an item: {node, update(item)}. It draws only what changed. */
export function itemView(item) {
  const view = (MAKE[item.type] ?? fold)();
  let version = -1;
  view.node.dataset.item = item.type;
  return {
    node: view.node,
    update: (next) => {
      if (next.version === version && next.done) return;
      version = next.version;
      view.update(next);
    },
  };
}
