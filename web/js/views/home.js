// The start: a session begins with its first message.

import { el } from '../dom.js';
import { Composer } from './composer.js';

const ABOUT = 'A session begins with your first message. Its agent goes on while nobody looks; come back any time, from any device.';
const EXAMPLE = 'For example: why does the nightly backup fail?';
const TOUCH = matchMedia('(pointer: coarse)');
const AGENTS = [['', 'the gateway’s own agent'], ['codex', 'Codex'], ['demo', 'the demo agent']];

const soon = globalThis.requestIdleCallback ?? ((run) => setTimeout(run, 500));

/** Show the start. `state` is {app, menu, message}. */
export function mount(root, { app, menu, message }) {
  const agent = el('select', { id: 'agent' }, AGENTS.map(([value, words]) => el('option', { value }, words)));
  const begin = async (text) => {
    composer.area.disabled = true;
    composer.note('');
    try {
      app.begin(await app.sessions.create(text, agent.value), text);
    } catch (error) {
      composer.area.disabled = false;
      composer.giveBack(text, `No session was made: ${error.message} Your text is kept here.`);
    }
  };
  const composer = new Composer({ label: 'What should be done?', example: EXAMPLE, send: (text) => void begin(text) });
  document.title = 'Argus';
  root.replaceChildren(
    el('header', { class: 'bar' }, menu, el('div', { class: 'names' }, el('h1', {}, 'New session'))),
    el('div', { class: 'start' },
      message && el('p', { class: 'notice', role: 'status' }, message),
      el('h2', {}, 'What should be done?'),
      el('p', { class: 'quiet' }, ABOUT),
      composer.node,
      el('p', { class: 'with' }, el('label', { for: 'agent' }, 'Done by '), agent)),
  );
  if (!TOUCH.matches) composer.focus();
  soon(() => import('./conversation.js').catch(() => {})); // it is what comes next
  return { unmount: () => root.replaceChildren() };
}
