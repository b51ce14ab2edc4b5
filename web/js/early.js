// Runs before the first paint: the page does not flash in the other colours (see views/theme.js), and who comes to a
// session gets its modules in one go and not one import after the other.
try {
  document.documentElement.dataset.theme = JSON.parse(localStorage.getItem('argus.theme')) ?? 'auto';
} catch {
  document.documentElement.dataset.theme = 'auto';
}

if (location.hash.startsWith('#/s/')) {
  const modules = ['connection', 'history', 'inputs', 'markdown', 'outbox', 'queue', 'requests', 'talk', 'thread',
    'threads'];
  const views = ['cards', 'composer', 'conversation', 'fields', 'inside', 'item', 'log', 'tries', 'trouble', 'waiting'];
  for (const name of [...modules, ...views.map((view) => `views/${view}`)]) {
    const link = document.createElement('link');
    link.rel = 'modulepreload';
    link.href = `/assets/js/${name}.js`;
    document.head.append(link);
  }
}
