// What a question wants to have filled in: the agent's own questions, and forms of tools (a flat JSON schema).

import { el } from '../dom.js';
import { textIn } from '../words.js';

let made = 0;

/** The fields of a question as {node, read()}, or null if it has none. `read` returns undefined if something is missing. */
export function fieldsOf({ method, params }) {
  if (method === 'item/tool/requestUserInput') return questions(listOf(params.questions));
  if (method !== 'mcpServer/elicitation/request' || params.mode === 'url') return null;
  const properties = Object.entries(params.requestedSchema?.properties ?? {});
  return properties.length ? schema(properties, listOf(params.requestedSchema.required)) : null;
}

const listOf = (value) => (Array.isArray(value) ? value.filter(Boolean) : []);

// -- the agent's questions: options, or a text, or both

function questions(all) {
  const views = all.map(question);
  const read = () => Object.fromEntries(views.map(({ id, answers }) => [id, { answers: answers() }]));
  return { node: el('div', { class: 'fields' }, views.map(({ node }) => node)), read };
}

function question({ id, header, question: asked, options, isOther, isSecret }) {
  made += 1;
  const name = `question-${made}`;
  const choices = listOf(options);
  const radio = ({ label, description }, at) => el(
    'label', { class: 'choice' }, el('input', { type: 'radio', name, value: textIn(label), checked: at === 0 }),
    el('span', { dir: 'auto' }, textIn(label), description ? el('small', {}, ` ${textIn(description)}`) : null),
  );
  const text = choices.length && !isOther ? null : el('input', {
    type: isSecret ? 'password' : 'text', 'aria-label': textIn(asked) || textIn(header), autocomplete: 'off', dir: 'auto',
    placeholder: choices.length ? 'or something else' : '',
  });
  const node = el(
    'fieldset', {}, el('legend', { dir: 'auto' }, header ? el('b', {}, `${textIn(header)}: `) : null, textIn(asked)),
    choices.map(radio), text,
  );
  const answers = () => {
    if (text?.value.trim()) return [text.value];
    const chosen = node.querySelector('input[type=radio]:checked');
    return chosen ? [chosen.value] : [];
  };
  return { id, node, answers };
}

// -- a form by a schema

function schema(properties, required) {
  const why = el('p', { class: 'problem', role: 'alert', hidden: true });
  const views = properties.map(([name, about]) => field(name, about ?? {}, required.includes(name)));
  const read = () => {
    const empty = views.find((view) => view.missing());
    why.hidden = !empty;
    why.textContent = empty ? `${empty.title} is needed.` : '';
    if (empty) return undefined;
    return Object.fromEntries(views.map(({ name, value }) => [name, value()]).filter(([, value]) => value !== undefined));
  };
  return { node: el('div', { class: 'fields' }, views.map(({ node }) => node), why), read };
}

function field(name, about, needed) {
  const title = textIn(about.title) || name;
  const control = controlOf(about);
  const { value } = control;
  const node = el(
    'label', { class: about.type === 'boolean' ? 'choice' : '' },
    about.type === 'boolean' ? control.node : null, el('span', { dir: 'auto' }, title, needed ? ' *' : ''),
    about.description ? el('small', { dir: 'auto' }, textIn(about.description)) : null,
    about.type === 'boolean' ? null : control.node,
  );
  return { name, title, node, value, missing: () => needed && [undefined, ''].includes(value()) };
}

function controlOf(about) {
  if (about.type === 'boolean') return checkbox(about);
  const options = optionsOf(about.type === 'array' ? about.items ?? {} : about);
  if (options.length) return select(about, options);
  const isNumber = about.type === 'number' || about.type === 'integer';
  const kind = { email: 'email', uri: 'url', date: 'date', 'date-time': 'datetime-local' }[about.format] ?? 'text';
  const node = el('input', {
    type: isNumber ? 'number' : kind, step: about.type === 'number' ? 'any' : null, min: about.minimum, max: about.maximum,
    maxlength: about.maxLength, value: about.default, autocomplete: 'off', dir: 'auto',
  });
  const value = () => (node.value === '' ? undefined : isNumber ? Number(node.value) : node.value);
  return { node, value };
}

function checkbox(about) {
  const node = el('input', { type: 'checkbox', checked: about.default === true });
  return { node, value: () => node.checked };
}

function optionsOf(about) {
  const titled = listOf(about.oneOf ?? about.anyOf);
  if (titled.length) return titled.map((each) => [each.const, textIn(each.title ?? each.const)]);
  return listOf(about.enum).map((value, at) => [value, textIn(about.enumNames?.[at] ?? value)]);
}

function select(about, options) {
  const many = about.type === 'array';
  const isChosen = (value) => [about.default].flat().includes(value);
  const node = el(
    'select', { multiple: many }, !many && about.default === undefined ? el('option', { value: '' }, 'Choose…') : null,
    options.map(([value, words]) => el('option', { value, selected: isChosen(value) }, words)),
  );
  const chosen = () => [...node.selectedOptions].map((option) => option.value).filter(Boolean);
  return { node, value: () => (many ? chosen() : chosen()[0]) };
}
