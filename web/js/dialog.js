// Windows over the page: a dialog, a question, a menu. Escape and a click beside close them, and the focus goes back.

import { el, icon, iconButton } from './dom.js';

let made = 0;

/** Whether one of them is open: keys of the page below are not meant then. */
export const isOpen = () => Boolean(document.querySelector('dialog[open], .menu-list'));

/** Show a dialog. Returns {node, close}; `onclose` runs when it is gone, however that came. */
export function openDialog(title, body, { kind = '', onclose = () => {} } = {}) {
  made += 1;
  const id = `dialog-${made}`;
  const close = () => node.close();
  const head = el('header', {}, el('h2', { id }, title), iconButton('close', 'Close', close));
  const inner = el('div', { class: 'body' }, body);
  if (!inner.querySelector('button, input, pre')) inner.tabIndex = 0; // the keys must be able to scroll it
  const node = el('dialog', { class: `dialog ${kind}`, 'aria-labelledby': id }, head, inner);
  node.addEventListener('click', (event) => event.target === node && close());
  node.addEventListener('close', () => {
    node.remove();
    onclose();
  });
  document.body.append(node);
  node.showModal();
  return { node, close };
}

/** Ask before something is done. `act()` may fail: then its reason is shown and the dialog stays. */
export function confirm(title, text, { yes, no = 'Cancel', danger = false }, act) {
  return form(title, [el('p', { dir: 'auto' }, text)], { yes, no, danger }, act);
}

/** Ask for one line of text. */
export function askText(title, { label, value = '', yes }, act) {
  const field = el('input', { type: 'text', value, 'aria-label': label, dir: 'auto', maxlength: 200, autocomplete: 'off' });
  const opened = form(title, [field], { yes, no: 'Cancel' }, () => act(field.value.trim()));
  field.focus();
  field.select();
  return opened;
}

/** A dialog with a form: `act()` as in `confirm`. */
export function form(title, parts, { yes, no, danger }, act) {
  const why = el('p', { class: 'problem', role: 'alert', hidden: true, dir: 'auto' });
  const cancel = el('button', { type: 'button', onclick: () => opened.close() }, no);
  const ok = el('button', { type: 'submit', class: danger ? 'danger' : 'primary' }, yes);
  const submit = async (event) => {
    event.preventDefault();
    ok.disabled = true;
    try {
      await act();
      opened.close();
    } catch (error) {
      why.hidden = false;
      why.textContent = error.message;
    }
    ok.disabled = false;
  };
  const node = el('form', { onsubmit: submit }, parts, why, el('div', { class: 'choices' }, cancel, ok));
  const opened = openDialog(title, node, { kind: 'small' });
  if (danger) cancel.focus();
  return opened;
}

/** A menu below `button`. Entries: {icon, text, danger, run()}. */
export function openMenu(button, entries) {
  const close = () => {
    node.remove();
    removeEventListener('pointerdown', beside, true);
    removeEventListener('resize', close);
    button.setAttribute('aria-expanded', 'false');
  };
  const beside = (event) => !node.contains(event.target) && close();
  const pick = (run) => {
    close();
    button.focus();
    run();
  };
  const items = entries.map((entry) => el(
    'button', { type: 'button', role: 'menuitem', class: entry.danger ? 'danger' : '', onclick: () => pick(entry.run) },
    icon(entry.icon), entry.text,
  ));
  const node = el('div', { class: 'menu-list', role: 'menu' }, items);
  node.addEventListener('keydown', (event) => {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (event.key === 'Escape' || event.key === 'Tab') pick(() => {});
    else if (step) items[(items.indexOf(document.activeElement) + step + items.length) % items.length].focus();
    else return;
    event.preventDefault();
    event.stopPropagation();
  });
  (button.closest('main, aside') ?? document.body).append(node);
  place(node, button.getBoundingClientRect());
  button.setAttribute('aria-expanded', 'true');
  addEventListener('pointerdown', beside, true);
  addEventListener('resize', close);
  items[0].focus();
}

/** Below the button where there is room, inside the window always. */
function place(node, { left, right, top, bottom }) {
  const { offsetWidth: width, offsetHeight: height } = node;
  const x = right - width < 8 ? left : right - width;
  node.style.left = `${Math.max(8, Math.min(x, innerWidth - width - 8))}px`;
  node.style.top = `${bottom + height + 8 > innerHeight ? Math.max(8, top - height - 4) : bottom + 4}px`;
}
