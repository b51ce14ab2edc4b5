// One item of a turn: a message, or a tool's work folded to one line.

import { el, icon, setAttr, setText } from '../dom.js';
import { sourceWords } from '../inputs.js';
import { markdown } from '../markdown.js';
import { describe, pick, textIn } from '../words.js';
import { inside, pictures } from './inside.js';

/** Text that grows. Appends where it can, so that a selection survives and long answers stay cheap. */
function growingText(node) {
  let text = null;
  let shown = '';
  return (next) => {
    if (next === shown && text?.isConnected) return;
    if (text?.parentNode !== node) {
      text = document.createTextNode(next);
      node.replaceChildren(text);
    } else if (next.startsWith(shown)) text.appendData(next.slice(shown.length));
    else text.data = next;
    shown = next;
  };
}

/** What a person said. Of an input only the person's words; what was put around them for the agent is in a fold. */
function userMessage({ inputs }) {
  const body = el('div', { class: 'bubble' });
  const images = el('div', { class: 'pictures' });
  const about = el('div', { class: 'about-input', hidden: true });
  const told = el('pre', { class: 'command', tabindex: '0', dir: 'auto' });
  const fold = el('details', { class: 'told', hidden: true }, el('summary', {}, 'What the agent was told'), told);
  const node = el('div', { class: 'said' }, el('span', { class: 'unseen' }, 'You said: '), images, body, about, fold);
  let drawn = '';
  const update = (item) => {
    const said = inputs.saidBy(item.raw.clientId);
    const text = said === null ? '…' : said.map((input) => input.text).join('\n\n') || item.text;
    body.hidden = !text;
    setText(body, text);
    images.replaceChildren(...pictures(item.raw.content));
    fold.hidden = !said?.length || text === item.text;
    setText(told, fold.hidden ? '' : item.text);
    const now = JSON.stringify(said?.map((input) => [input.inputId, input.state, inputs.deadOf(input)]) ?? null);
    if (now !== drawn) about.replaceChildren(...(said ?? []).map((input) => aboutInput(input, inputs.deadOf(input))));
    about.hidden = !said?.length;
    drawn = now;
  };
  return { node, update };
}

/** The line under an input: where it came from, its receipt, and what became of its answer if that did not arrive. */
function aboutInput(input, dead) {
  const receipt = async () => (await import('./input_actions.js')).showReceipt(input.inputId);
  const sign = el('button', { class: 'bare', type: 'button', onclick: receipt }, icon('receipt'), 'Receipt');
  const lost = dead.length ? el('span', { class: 'lost' }, 'Its answer was not delivered') : null;
  const from = sourceWords(input);
  return el('div', {}, lost, from ? el('span', { class: 'from', dir: 'auto' }, from) : null, sign);
}

/** Plain while it grows; Markdown once it is complete, on the same grid of lines, so that little moves. */
function agentMessage({ place }) {
  const missing = el('p', { class: 'quiet', hidden: true }, 'The beginning of this answer comes when it is complete.');
  const body = el('div', { class: 'answer' });
  const write = growingText(body);
  let drawn = null; // the text that is there as Markdown
  const update = (item) => {
    missing.hidden = !item.headless;
    if (item.text === drawn) return;
    body.classList.remove('md');
    write(item.text);
    if (item.done && !item.cut) markdown(item.text, (made) => item.text !== drawn && place(() => draw(item.text, made)));
  };
  const draw = (text, made) => {
    drawn = text;
    body.replaceChildren(made);
    body.classList.add('md');
  };
  return { node: el('div', {}, el('span', { class: 'unseen' }, 'The agent said: '), missing, body), update };
}

function noticeLine() {
  const node = el('p', { class: 'notice', dir: 'auto' });
  const update = (item) => {
    node.dataset.kind = item.kind;
    setText(node, item.text);
  };
  return { node, update };
}

/** A fold: one line, and what `inside(item)` makes of the item once it is opened. */
function fold() {
  const [sign, verb, result] = ['sign', 'verb', 'result'].map((name) => el('span', { class: name }));
  const target = el('span', { class: 'target', dir: 'auto' });
  const body = el('div', { class: 'inside' });
  const chevron = el('span', { class: 'chevron' }, icon('chevron'));
  const node = el('details', { class: 'fold' }, el('summary', {}, sign, verb, target, result, chevron), body);
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
    setText(target, textIn(words.target).slice(0, 400));
    target.classList.toggle('mono', !words.prose);
    setText(result, words.result ?? '');
    setAttr(node, 'data-state', item.done ? (words.bad ? 'bad' : 'done') : item.waits ? 'waits' : 'running');
    fill();
  };
  return { node, update };
}

/** A picture that the agent made is shown at once; a plan is open from the start. */
function opened() {
  const view = fold();
  view.node.open = true;
  return view;
}

const MAKE = { userMessage, agentMessage, plan: agentMessage, notice: noticeLine, imageGeneration: opened, planSteps: opened };

/**
 * A view of an item: {node, update(item)}. It draws only what changed. `place(change)` changes the page without moving
 * what is being read; `inputs` knows what was said by the durable way.
 */
export function itemView(item, place, inputs) {
  const view = (pick(MAKE, item.type) ?? fold)({ place, inputs });
  let version = -1;
  view.node.dataset.item = item.type;
  return {
    node: view.node,
    update: (next) => {
      const now = next.type === 'userMessage' ? `${next.version} ${inputs.revision}` : next.version;
      if (now === version && next.done) return;
      version = now;
      try {
        view.update(next);
      } catch (error) { // a field of another type than the protocol says: this item only
        view.node.replaceChildren(el('p', { class: 'notice' }, `This step could not be shown: ${error.message}`));
      }
    },
  };
}
