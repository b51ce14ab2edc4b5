// Markdown of complete items. The gateway makes it HTML (`POST /render`) and cleans it; here it is parsed in a document
// that runs and loads nothing, and only what is listed below is built anew from it. Nothing else parses HTML.

import * as api from './api.js';
import { el, icon, setText } from './dom.js';

const TOGETHER_MS = 20;
const MAX_TEXTS = 50;
const MAX_BYTES = 192 * 1024; // of one text; longer ones stay plain
const MAX_SUM = 768 * 1024;
const MAX_KEPT = 200;
const MAX_KEPT_CHARS = 32 * 1024; // of one; what is longer is rare and asked for again
const AGAIN_MS = [2000, 8000, 30_000]; // the gateway was busy

const kept = new Map(); // text -> HTML
let waiting = new Map(); // text -> [callback]
let timer = 0;
let tries = 0;
let missing = false; // a gateway without /render: texts stay plain

/** Call back with the text as a DocumentFragment. If that cannot be had, never: plain text is fine too. */
export function markdown(text, done) {
  if (missing || !text.trim() || new Blob([text]).size > MAX_BYTES) return;
  if (kept.has(text)) return void done(build(kept.get(text)));
  waiting.set(text, [...(waiting.get(text) ?? []), done]);
  timer ||= setTimeout(ask, TOGETHER_MS);
}

function batch() {
  const texts = [];
  let sum = 0;
  for (const text of [...waiting.keys()].reverse()) { // the newest first
    sum += new Blob([text]).size;
    if (texts.length === MAX_TEXTS || (texts.length && sum > MAX_SUM)) break;
    texts.push(text);
  }
  return texts;
}

async function ask() {
  const texts = batch();
  try {
    const html = await api.rendered(texts);
    tries = 0;
    texts.forEach((text, at) => answered(text, html[at]));
    timer = waiting.size ? setTimeout(ask, 0) : 0;
  } catch (error) {
    failed(error, texts);
  }
}

function answered(text, html) {
  const callbacks = waiting.get(text) ?? [];
  waiting.delete(text);
  if (typeof html !== 'string') return;
  if (html.length <= MAX_KEPT_CHARS) kept.set(text, html);
  if (kept.size > MAX_KEPT) kept.delete(kept.keys().next().value);
  for (const done of callbacks) done(build(html));
}

function failed(error, texts) {
  timer = 0;
  if (error.status === 404 || error.status === 405) missing = true;
  if (missing) waiting = new Map();
  else if ([0, 429, 503].includes(error.status) && tries < AGAIN_MS.length) timer = setTimeout(ask, AGAIN_MS[tries++]);
  else {
    tries = 0;
    for (const text of texts) waiting.delete(text);
    timer = waiting.size ? setTimeout(ask, TOGETHER_MS) : 0;
  }
}

// -- building

const PLAIN = new Set('p br hr em strong del s code ul ol li blockquote h1 h2 h3 h4 h5 h6 table thead tbody tr th td sub sup kbd'
  .split(' '));
const HEADINGS = { h1: 'h3', h2: 'h3', h3: 'h4', h4: 'h5', h5: 'h6', h6: 'h6' }; // the page has its own h1 and h2
const MAX_DEPTH = 60;

/** HTML of the gateway as a fragment of listed elements without attributes. */
export function build(html) {
  const fragment = document.createDocumentFragment();
  fragment.append(...copies(new DOMParser().parseFromString(html, 'text/html').body, 0));
  return fragment;
}

const copies = (node, depth) => [...node.childNodes].flatMap((child) => copy(child, depth + 1));

const BLOCKS = /^(p|pre|ul|ol|li|blockquote|h\d|hr|table|thead|tbody|tr|t[hd])$/;
const isEdge = (node) => !node || BLOCKS.test(node.localName ?? '');

/** Line ends in a paragraph stay line ends (see .md in the style sheet); those between blocks mean nothing. */
function words(node) {
  const between = !node.data.trim() && node.data.includes('\n');
  return between && (isEdge(node.previousSibling) || isEdge(node.nextSibling)) ? [] : [node.data];
}

function copy(node, depth) {
  if (node.nodeType === Node.TEXT_NODE) return words(node);
  if (node.nodeType !== Node.ELEMENT_NODE || depth > MAX_DEPTH) return [];
  const tag = node.localName;
  if (tag === 'script' || tag === 'style') return [];
  if (tag === 'br' && node.nextSibling?.data?.startsWith('\n')) return [];
  if (tag === 'pre') return [codeBlock(node)];
  if (tag === 'a') return [link(node, depth)];
  if (tag === 'table') return [el('div', { class: 'table', tabindex: 0 }, el('table', {}, copies(node, depth)))];
  if (!PLAIN.has(tag)) return copies(node, depth);
  const props = tag === 'ol' && node.hasAttribute('start') ? { start: Number.parseInt(node.getAttribute('start'), 10) || 1 } : {};
  if (/^(p|li|h\d|blockquote|t[hd])$/.test(tag)) props.dir = 'auto';
  return [el(HEADINGS[tag] ?? tag, props, copies(node, depth))];
}

function link(node, depth) {
  const href = node.getAttribute('href') ?? '';
  const fine = /^(https?:|mailto:)/i.test(href);
  const props = fine ? { href, target: '_blank', rel: 'noopener noreferrer nofollow', title: href } : {};
  return el(fine ? 'a' : 'span', props, copies(node, depth));
}

function codeBlock(node) {
  const language = /language-([\w+#.-]{1,30})/.exec(node.querySelector('code')?.className ?? '')?.[1] ?? '';
  return code(node.textContent.replace(/\n$/, ''), language);
}

/** A block of code with its language and a button that copies it. */
export function code(text, label = '') {
  const said = el('span', {}, 'Copy');
  const copyIt = async () => {
    setText(said, (await copied(text)) ? 'Copied' : 'Select and copy it');
    setTimeout(() => setText(said, 'Copy'), 2000);
  };
  const button = el('button', { class: 'copy', type: 'button', onclick: copyIt }, icon('copy'), said);
  const head = el('div', { class: 'code-head' }, el('span', {}, label), button);
  return el('div', { class: 'code' }, head, el('pre', { tabindex: 0, dir: 'ltr' }, el('code', {}, text)));
}

/** The clipboard is there on https and localhost only; else the old way. */
async function copied(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const area = el('textarea', { class: 'unseen' });
    area.value = text;
    document.body.append(area);
    area.select();
    const done = document.execCommand('copy');
    area.remove();
    return done;
  }
}
