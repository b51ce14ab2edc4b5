// What is inside a folded step: command and output, diffs, arguments and results, pictures.

import { el, icon } from '../dom.js';
import { code } from '../markdown.js';
import { adviceFor, changesOf, counts, pick, textIn } from '../words.js';

const MAX_SHOWN = 200_000; // characters of one block; a browser gets slow with more
const MAX_LINES = 3000;

const cut = (text) =>
  (text.length > MAX_SHOWN ? `${text.slice(0, MAX_SHOWN)}\n[cut here, ${text.length} characters in all]` : text);

const pretty = (value) => (typeof value === 'string' ? value : JSON.stringify(value, null, 2) ?? '');

const caption = (...parts) => el('p', { class: 'caption', dir: 'auto' }, ...parts);

const block = (label, value) => {
  const text = cut(pretty(value));
  return text ? [el('div', { class: 'block' }, code(text, label))] : [];
};

const INSIDE = {
  commandExecution: ({ raw, output }) => [
    ...block(raw.cwd ? `in ${raw.cwd}` : 'command', textIn(raw.command)),
    ...block('output', output),
    ...(output || !('exitCode' in raw) || raw.exitCode === null ? [] : [caption('It printed nothing.')]),
  ],
  fileChange: ({ raw }) => changesOf(raw).flatMap(changeBlock),
  mcpToolCall: (item) => [...block('arguments', item.raw.arguments ?? {}), ...progress(item), ...result(item.raw)],
  dynamicToolCall: ({ raw }) => [
    ...block('arguments', raw.arguments ?? {}), ...pictures(raw.contentItems), ...block('result', texts(raw.contentItems)),
  ],
  webSearch: ({ raw }) => [
    caption(`Asked for: ${textIn(raw.query)}`), ...(raw.action ? block('action', raw.action) : []),
    ...(raw.results ? block('results', raw.results) : []),
  ],
  reasoning: ({ text }) => [el('div', { class: 'answer quiet' }, text || 'Nothing of it was shown.')],
  planSteps: ({ raw }) => [
    ...(raw.explanation ? [el('p', { class: 'caption', dir: 'auto' }, textIn(raw.explanation))] : []),
    el('ol', { class: 'plan' }, raw.steps.map(planStep)),
  ],
  imageView: ({ raw }) => [caption('The agent looked at ', el('code', {}, textIn(raw.path)))],
  imageGeneration: ({ raw }) => [
    ...picture(raw.result ? `data:image/png;base64,${raw.result}` : '', textIn(raw.revisedPrompt) || 'A picture by the agent'),
    ...(raw.savedPath ? [caption('Kept as ', el('code', {}, textIn(raw.savedPath)))] : []),
    ...(raw.failure ? block('failed', raw.failure) : []),
  ],
};

/** The inside of an item, as nodes. What the page does not know is shown as the agent sent it. */
export function inside(item) {
  const make = pick(INSIDE, item.type) ?? (() => block('as the agent sent it', item.raw));
  return [...make(item), ...(item.answer ? [caption(`${item.answer}.`)] : [])];
}

const progress = ({ progress: said, done }) => (said && !done ? [caption(textIn(said))] : []);

function result({ result: made, error }) {
  if (error) return block('error', error.message ?? error);
  if (!made) return [];
  const content = Array.isArray(made.content) ? made.content : [];
  const structured = made.structuredContent ? block('data', made.structuredContent) : [];
  const other = content.filter((part) => part?.type !== 'text' && part?.type !== 'image');
  return [...pictures(content), ...block('result', texts(content)), ...(other.length ? block('more', other) : []), ...structured];
}

const texts = (parts) =>
  (Array.isArray(parts) ? parts : []).map((part) => textIn(part?.text)).filter(Boolean).join('\n');

// -- pictures

// SVG is left out: it is a document of its own.
const PICTURE = /^data:image\/(png|jpeg|gif|webp|avif);base64,[A-Za-z0-9+/=\s]+$/;

/** Pictures among the parts of a message or a result. Only what came with the text; nothing is fetched from elsewhere. */
export function pictures(parts) {
  return (Array.isArray(parts) ? parts : []).flatMap((part) => {
    if (part?.type === 'image' && part.data) return picture(`data:${part.mimeType};base64,${part.data}`, 'A picture of the tool');
    if (part?.type === 'image') return picture(part.url, 'A picture you sent');
    return part?.type === 'inputImage' ? picture(part.imageUrl, 'A picture of the tool') : [];
  });
}

function picture(source, alt) {
  const url = textIn(source);
  if (PICTURE.test(url)) return [el('img', { class: 'picture', src: url, alt, loading: 'lazy' })];
  if (!url || url.startsWith('data:')) return url ? [caption('A picture in a form that is not shown here.')] : [];
  return [caption('A picture elsewhere, not loaded: ', el('code', {}, url.slice(0, 300)))];
}

// -- diffs

/** The name of a changed file, its counts, its diff with coloured lines. */
export function changeBlock(change) {
  const kind = change.kind?.type;
  const { added, removed } = counts(change);
  const verb = { add: 'New', delete: 'Deleted' }[kind] ?? 'Changed';
  const all = textIn(change.diff).replace(/\n$/, '').split('\n');
  const lines = all.slice(0, MAX_LINES).map((line) => diffLine(kind, line));
  if (all.length > MAX_LINES) lines.push(el('span', { class: 'hunk' }, `[${all.length - MAX_LINES} more lines]\n`));
  const sums = [el('span', { class: 'added' }, `+${added}`), ' ', el('span', { class: 'removed' }, `−${removed}`)];
  const moved = change.kind?.move_path ? [' → ', el('code', {}, textIn(change.kind.move_path))] : [];
  return [
    el('div', { class: 'code diff' },
      el('div', { class: 'code-head' },
        el('span', { dir: 'auto' }, `${verb} `, el('code', {}, textIn(change.path)), moved), el('span', {}, sums)),
      el('pre', { tabindex: '0', dir: 'ltr' }, lines)),
  ];
}

function diffLine(kind, line) {
  const added = kind === 'add' || (kind !== 'delete' && line.startsWith('+') && !line.startsWith('+++'));
  const removed = kind === 'delete' || (kind !== 'add' && line.startsWith('-') && !line.startsWith('---'));
  return el('span', { class: added ? 'added' : removed ? 'removed' : line.startsWith('@@') ? 'hunk' : '' }, `${line}\n`);
}

// -- plans

const STEP = { completed: ['check', 'done'], inProgress: ['chevron', 'now'], pending: ['', 'to do'] };

function planStep(step) {
  const [sign, words] = pick(STEP, step?.status) ?? STEP.pending;
  return el(
    'li', { 'data-status': textIn(step?.status) },
    el('span', { class: 'sign' }, sign && icon(sign)), el('span', { class: 'unseen' }, `${words}: `),
    el('span', { dir: 'auto' }, textIn(step?.step)),
  );
}

/** A turn that failed: why, and what to do. */
export function failure(turn) {
  const { error } = turn;
  const details = error?.additionalDetails ? block('details', error.additionalDetails) : [];
  return [el('p', { class: 'advice' }, adviceFor(error)), ...details];
}
