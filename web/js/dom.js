// Making elements. Text goes in as text nodes only: nothing on this page ever parses HTML from a string.

const SVG = 'http://www.w3.org/2000/svg';

// Icons are drawn on a 16 x 16 grid with a line of 1.5.
const ICONS = {
  plus: 'M8 3v10M3 8h10',
  menu: 'M2.5 4.5h11M2.5 8h11M2.5 11.5h11',
  send: 'M8 13V3.5M4 7.5l4-4 4 4',
  down: 'M8 3v9.5M4 8.5l4 4 4-4',
  trash: 'M3 4.5h10M6.5 4.5V3h3v1.5M4.5 4.5l.6 8.5h5.8l.6-8.5',
  terminal: 'M3 4.5l3.5 3.5L3 11.5M8.5 12H13',
  file: 'M4 2.5h5l3 3v8H4zM9 2.5v3h3',
  tool: 'M6 2.5v3M10 2.5v3M4 5.5h8v2.5a4 4 0 0 1-8 0zM8 12v2',
  search: 'M7 11.5a4.5 4.5 0 1 0 0-9 4.5 4.5 0 0 0 0 9zM10.5 10.5L14 14',
  thought: 'M8 2.5a4.5 4.5 0 0 0-2.5 8.2V12h5v-1.3A4.5 4.5 0 0 0 8 2.5zM6.5 14h3',
  more: 'M3 8a.4.4 0 1 0 .8 0 .4.4 0 1 0-.8 0zM7.6 8a.4.4 0 1 0 .8 0 .4.4 0 1 0-.8 0zM12.2 8a.4.4 0 1 0 .8 0 .4.4 0 1 0-.8 0z',
  check: 'M3 8.5l3.5 3.5L13 4.5',
  close: 'M4 4l8 8M12 4l-8 8',
  copy: 'M5.5 5.5v-3h8v8h-3M2.5 5.5h8v8h-8z',
  chevron: 'M6 3.5L10.5 8 6 12.5',
  edit: 'M3 13l.7-3L11 2.7l2.3 2.3L6 12.3zM9.5 4.2l2.3 2.3',
  archive: 'M2.5 3h11v3h-11zM3.5 6v7h9V6M6.5 8.5h3',
  restore: 'M3 8a5 5 0 1 0 1.5-3.5L3 6M3 3v3h3',
  log: 'M3 3.5h10M3 6.5h10M3 9.5h7M3 12.5h5',
  receipt: 'M4 2.5h8v11l-2-1.3-2 1.3-2-1.3-2 1.3zM6 5.5h4M6 8.5h4',
  talks: 'M2.5 3h11v7.5H7L4.5 13v-2.5h-2z',
  plan: 'M2.5 4l1 1 1.5-2M2.5 8l1 1L5 7M2.5 12l1 1L5 11M7.5 4.5h6M7.5 8.5h6M7.5 12.5h6',
  image: 'M2.5 3h11v10h-11zM2.5 11l3.5-3 2.5 2 2-1.5 3 2.5M10.5 6.2h.01',
  light: 'M8 5.2a2.8 2.8 0 1 0 0 5.6 2.8 2.8 0 0 0 0-5.6zM8 1.5V3M8 13v1.5M1.5 8H3M13 8h1.5M3.4 3.4l1 1M11.6 11.6l1 1M12.6 3.4l-1 1M4.4 11.6l-1 1',
  dark: 'M13 9.6A5.5 5.5 0 0 1 6.4 3 5.5 5.5 0 1 0 13 9.6z',
  auto: 'M8 2.5a5.5 5.5 0 1 0 0 11zM8 2.5a5.5 5.5 0 0 1 0 11',
  help: 'M6 6.2a2 2 0 1 1 3 1.7c-.7.4-1 .8-1 1.6M8 12v.01',
  out: 'M6.5 3h-4v10h4M10 5l3 3-3 3M13 8H6',
};

/** An element. Props: class, on<event> handlers, attributes (true: present; false, null: absent). */
export function el(tag, props = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) setProp(node, name, value);
  node.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

function setProp(node, name, value) {
  if (value === undefined || value === null || value === false) return;
  if (name === 'class') node.className = value;
  else if (name.startsWith('on')) node.addEventListener(name.slice(2), value);
  else node.setAttribute(name, value === true ? '' : value);
}

/** One of the icons above; decoration only, the words are beside it. */
export function icon(name) {
  const svg = document.createElementNS(SVG, 'svg');
  const path = document.createElementNS(SVG, 'path');
  for (const [key, value] of [['viewBox', '0 0 16 16'], ['class', 'icon'], ['aria-hidden', 'true']]) {
    svg.setAttribute(key, value);
  }
  path.setAttribute('d', ICONS[name]);
  svg.append(path);
  return svg;
}

/** The sign of the page. */
export function logo() {
  return el('img', { class: 'logo', src: '/assets/icon.svg', alt: '', width: 24, height: 24 });
}

/** Change a node's text only if it differs, so that selections and screen readers are left alone. */
export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** Change an attribute only if it differs; null removes it. */
export function setAttr(node, name, value) {
  if (value === null) node.removeAttribute(name);
  else if (node.getAttribute(name) !== value) node.setAttribute(name, value);
}

/** A button with an icon and no words of its own; `label` is what it is called. */
export function iconButton(name, label, onclick, props = {}) {
  const { class: kind = '', ...rest } = props;
  const all = { class: `bare ${kind}`, type: 'button', 'aria-label': label, title: label, onclick, ...rest };
  return el('button', all, icon(name));
}

const views = new WeakMap(); // parent -> Map of key -> view

/**
 * Make the children of `parent` the views of `things`, in order, keeping the nodes of those that were there before.
 * A view is {node, update(thing)}; `make(thing)` makes one.
 */
export function keyed(parent, things, keyOf, make) {
  const old = views.get(parent) ?? new Map();
  const now = new Map(things.map((thing) => [keyOf(thing), null]));
  const focused = document.activeElement;
  for (const [key, view] of old) if (!now.has(key)) view.node.remove();
  let at = parent.firstChild;
  for (const thing of things) {
    const view = old.get(keyOf(thing)) ?? make(thing);
    now.set(keyOf(thing), view);
    if (view.node === at) at = at.nextSibling;
    else parent.insertBefore(view.node, at);
    view.update(thing);
  }
  views.set(parent, now);
  if (focused !== document.activeElement && parent.contains(focused)) focused.focus({ preventScroll: true });
}

/** Run `draw` once before the next paint, however often it is asked for. A hidden tab draws by a timer. */
export function onceAFrame(draw) {
  let waiting = false;
  const run = () => {
    waiting = false;
    draw();
  };
  return () => {
    if (waiting) return;
    waiting = true;
    if (document.hidden) setTimeout(run, 250);
    else requestAnimationFrame(run);
  };
}
