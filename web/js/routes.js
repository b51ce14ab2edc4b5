// Which view an URL shows. A view is a module with mount(root, state) that returns {unmount()}; it is loaded when it is
// first shown. A page that gets a row with `label` and `icon` is in the navigation.

/** `#/<path>/<rest…>`; the empty path is the start. */
export const ROUTES = [
  { path: '', load: () => import('./views/home.js') },
  { path: 's', load: () => import('./views/conversation.js') },
];

/** An URL's fragment as {route, parts}; what is unknown or malformed is the start. */
export function parse(hash) {
  const [path, ...parts] = hash.replace(/^#\/?/, '').split('/');
  const fine = parts.every((part) => /^[\w-]+$/.test(part));
  const route = fine && ROUTES.find((each) => each.path === path);
  if (!route || (path === 's' && !(parts.length >= 1 && parts.length <= 2))) return { route: ROUTES[0], parts: [] };
  return { route, parts };
}

/** The URL of a session, and of one of its threads (`new`: one that begins). */
export const sessionUrl = (session, thread) => `#/s/${session}${thread ? `/${thread}` : ''}`;
