// ?: the keys, the signs, and where to read more.

import { openDialog } from '../dialog.js';
import { el } from '../dom.js';
import { stateWords } from '../words.js';

const CTRL = /Mac|iP/.test(navigator.platform) ? '⌘' : 'Ctrl';
const KEYS = [
  ['↵', 'send; while the agent works: queue'],
  ['⇧ ↵', 'a new line'],
  ['Esc', 'decline what the agent asks, or stop the turn'],
  [`${CTRL} ↵`, 'accept what the agent asks (or ↵ on the card)'],
  ['↑', 'in an empty field: edit the last queued message'],
  [`${CTRL} K`, 'jump to a session'],
  ['?', 'this help'],
];
const STATES = ['created', 'running', 'working', 'waiting', 'restarting', 'stopped', 'failed'];

const term = (name, words) => [el('dt', {}, name), el('dd', {}, words)];
const dot = (state) => el('span', { class: 'dot', 'data-shape': stateWords(state)[0] });

export function show() {
  openDialog('Help', [
    el('p', {}, 'A session is an agent with a workspace and its conversations. '
      + 'The agent goes on while nobody looks, and whatever you close, nothing is lost.'),
    el('h3', {}, 'Keys'),
    el('dl', { class: 'keys' }, KEYS.flatMap(([key, words]) => term(el('kbd', {}, key), words))),
    el('h3', {}, 'What the dots say'),
    el('dl', { class: 'keys' }, STATES.flatMap((state) => term(dot(state), stateWords(state)[1]))),
  ]);
}
