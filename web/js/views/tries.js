// What to say first: a word about the agent and, for the demo agent, messages that show what it can.

import { el } from '../dom.js';

const ABOUT = 'Say what you want done. What the agent may not run by itself, it asks for here first.';
const ABOUT_DEMO = 'This is the built-in demo agent, without a model: it repeats what you say. Or try one of these:';
const TRY = { demo: ['slow 30 0.2', 'run: ls -la', 'big 5000', 'fail'] };

/** A list of elements; `write(text)` puts a message where one writes. */
export function tries(agent, write) {
  const button = (text) => el('button', { type: 'button', onclick: () => write(text) }, text);
  const about = el('p', {}, agent === 'demo' ? ABOUT_DEMO : ABOUT);
  return TRY[agent] ? [about, el('div', { class: 'tries' }, TRY[agent].map(button))] : [about];
}
