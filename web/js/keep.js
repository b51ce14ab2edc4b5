// What the browser keeps. localStorage: the token, the colours and which thread a session showed last. sessionStorage, which a
// reload keeps and another tab does not see: where the running turn began, drafts, what is queued or without an answer.

const PREFIX = 'argus.';

function read(storage, key) {
  try {
    return JSON.parse(storage.getItem(PREFIX + key));
  } catch {
    return null; // storage is switched off, or somebody else wrote there
  }
}

function write(storage, key, value) {
  try {
    if (value === null || value === undefined) storage.removeItem(PREFIX + key);
    else storage.setItem(PREFIX + key, JSON.stringify(value));
  } catch {
    // full or switched off: the page works without, it only forgets on reload
  }
}

export const token = {
  get: () => read(localStorage, 'token'),
  set: (value) => write(localStorage, 'token', value),
  /** Call back when another tab signs in or out. */
  watch: (changed) => addEventListener('storage', (event) => event.key === `${PREFIX}token` && changed()),
};

export const thread = {
  get: (session) => read(localStorage, `thread.${session}`),
  set: (session, id) => write(localStorage, `thread.${session}`, id),
};

/** light, dark, or null: as the system has it. early.js reads it before the first paint. */
export const theme = {
  get: () => read(localStorage, 'theme'),
  set: (value) => write(localStorage, 'theme', value),
};

/** This tab's memory of a session: {client, anchor, drafts, queues, outbox}. */
export function tab(session) {
  const key = `tab.${session}`;
  return {
    get: (name) => (read(sessionStorage, key) ?? {})[name] ?? null,
    set: (name, value) => write(sessionStorage, key, { ...(read(sessionStorage, key) ?? {}), [name]: value }),
  };
}

/** Forget a deleted session. */
export function forget(session) {
  write(localStorage, `thread.${session}`, null);
  write(sessionStorage, `tab.${session}`, null);
}

/** Forget everything that belongs to who was signed in. */
export function forgetAll() {
  for (const storage of [localStorage, sessionStorage]) {
    for (const key of Object.keys(storage)) {
      if (key.startsWith(PREFIX) && key !== `${PREFIX}theme`) storage.removeItem(key);
    }
  }
}
