// The start: a session begins with its first message.

import { el } from '../dom.js';
import { Composer } from './composer.js';
import { tries } from './tries.js';

const ABOUT = 'A session begins with your first message. Its agent goes on while nobody looks; come back any time, from any device.';
const EXAMPLE = 'For example: why does the nightly backup fail?';
const TOUCH = matchMedia('(pointer: coarse)');
const AGENTS = [['codex', 'Codex'], ['demo', 'the demo agent']];

const soon = globalThis.requestIdleCallback ?? ((run) => setTimeout(run, 500));

/** Show the start. `state` is {app, menu, message}. */
export function mount(root, { app, menu, message }) {
  const begin = async (text) => {
    composer.area.disabled = true;
    composer.note('');
    try {
      app.begin(await app.sessions.create(text, agent.select.value), text);
    } catch (error) {
      composer.area.disabled = false;
      composer.giveBack(text, `No session was made: ${error.message.replace(/[.]?$/, '.')} Your text is kept here.`);
    }
  };
  const composer = new Composer({ label: 'What should be done?', example: EXAMPLE, send: (text) => void begin(text) });
  const agent = agentChoice(app.sessions, (text) => {
    composer.set(text);
    composer.focus();
  });
  document.title = 'Argus';
  root.replaceChildren(
    el('header', { class: 'bar' }, menu, el('div', { class: 'names' }, el('h1', {}, 'New session'))),
    el('div', { class: 'start' },
      message && el('p', { class: 'notice', role: 'status' }, message),
      el('h2', {}, 'What should be done?'),
      el('p', { class: 'quiet' }, ABOUT),
      composer.node,
      agent.node,
      agent.about,
      el('p', {}, el('button', { class: 'more-about', type: 'button', onclick: help }, 'How this page works')),
    ),
  );
  if (!TOUCH.matches) composer.focus();
  soon(() => import('./conversation.js').catch(() => {})); // it is what comes next
  return {
    unmount: () => {
      agent.unwatch();
      root.replaceChildren();
    },
  };
}

/** Who does it: {node, select, about, unwatch}. What is shown is what is taken, so the gateway's default has its name. */
function agentChoice(sessions, write) {
  const select = el('select', { id: 'agent', onchange: () => tell() });
  const node = el('p', { class: 'with', hidden: true }, el('label', { for: 'agent' }, 'Done by '), select);
  const about = el('div', { class: 'quiet' });
  let known = null;
  const tell = () => about.replaceChildren(...(known ? tries(select.value || known, write) : []));
  const draw = () => {
    const { defaultAgent } = sessions;
    if (!defaultAgent || defaultAgent === known) return;
    const chosen = select.value === known ? defaultAgent : select.value || defaultAgent;
    known = defaultAgent;
    node.hidden = known === 'upstream'; // somebody else chose
    const option = ([value, words]) => el('option', { value }, value === known ? `${words} (default)` : words);
    select.replaceChildren(...(node.hidden ? [] : AGENTS.map(option)));
    select.value = chosen;
    tell();
  };
  draw();
  return { node, select, about, unwatch: sessions.watch(draw) };
}

async function help() {
  (await import('./help.js')).show();
}
