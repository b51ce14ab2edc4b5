// Begins: signs in, follows the URL, and holds what the views share.

import * as api from './api.js';
import * as keep from './keep.js';
import { sessionUrl } from './routes.js';
import { Sessions } from './sessions.js';
import * as shell from './views/shell.js';

const root = document.getElementById('app');

class App {
  constructor() {
    this.sessions = new Sessions();
    this.firsts = new Map();
    this.view = null;
  }

  /** Signed in: show what the URL says. */
  enter() {
    this.#leave();
    this.inside = true;
    this.view = shell.mount(root, { app: this });
    this.sessions.start();
    this.follow();
  }

  follow(message, again) {
    this.view?.show?.(location.hash, message, again);
  }

  /** `calm`: the message tells of nothing wrong. */
  async signedOut(message, retry, calm = false) {
    this.#leave();
    const signin = await import('./views/signin.js');
    if (!this.inside) this.view = signin.mount(root, { message, retry, calm, signedIn: () => this.enter() });
  }

  #leave() {
    this.view?.unmount();
    this.view = null;
    this.sessions.stop();
    this.sessions = new Sessions();
    this.inside = false;
  }

  goHome(message) {
    history.replaceState(null, '', '#/');
    this.follow(message);
  }

  /** The same view by a more exact URL. */
  replaceUrl(hash) {
    if (location.hash === hash) return;
    history.replaceState(null, '', hash);
    this.view?.renamed?.(hash);
  }

  /** Open a new session; its view sends the text once it can. Until then the text is its draft. */
  begin(session, text) {
    this.firsts.set(session, text);
    keep.tab(session).set('drafts', { new: text });
    location.hash = sessionUrl(session);
  }

  takeFirst(session) {
    const text = this.firsts.get(session);
    this.firsts.delete(session);
    return text;
  }
}

const app = new App();

/** The ticket of a sign-in link. It leaves the URL, and with it the history, before anything else happens. */
function takeTicket() {
  const ticket = /^#\/?ticket=(.+)$/.exec(location.hash)?.[1];
  if (ticket) history.replaceState(null, '', location.pathname);
  return ticket;
}

async function exchange(ticket) {
  try {
    await api.signInByTicket(ticket);
    app.enter();
  } catch (error) {
    if (error.status !== 0 && keep.token.get()) app.enter(); // a dead link, but this browser is signed in already
    else app.signedOut(error.message, error.status === 0 && (() => api.signInByTicket(ticket)));
  }
}

async function start() {
  const ticket = takeTicket();
  if (ticket) return exchange(ticket);
  if (keep.token.get()) return app.enter();
  app.signedOut('');
  if ((await api.isOpen()) && !keep.token.get()) app.enter(); // who signed in meanwhile is in already
}

api.whenSignedOut(() => {
  keep.token.set(null); // drafts stay for when the same person is back
  app.signedOut('Your sign-in has ended. Run ./argus link and open the new link.');
});
keep.token.watch(() => Boolean(keep.token.get()) !== app.inside && location.reload()); // another tab signed in or out
addEventListener('hashchange', () => {
  const ticket = takeTicket();
  if (ticket) exchange(ticket);
  else app.follow();
});
start();
