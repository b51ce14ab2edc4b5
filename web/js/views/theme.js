// The switch between light, dark and as the system has it. The colours themselves are in base.css.

import { icon, iconButton } from '../dom.js';
import * as keep from '../keep.js';

const NEXT = { auto: 'light', light: 'dark', dark: 'auto' };
const SAID = { auto: 'as the system', light: 'light', dark: 'dark' };

export function themeButton() {
  const now = () => document.documentElement.dataset.theme ?? 'auto';
  const button = iconButton('auto', '', () => {
    const theme = NEXT[now()];
    document.documentElement.dataset.theme = theme;
    keep.theme.set(theme === 'auto' ? null : theme);
    show();
  });
  const show = () => {
    button.replaceChildren(icon(now()));
    button.title = `Colours: ${SAID[now()]}`;
    button.setAttribute('aria-label', button.title);
  };
  show();
  return button;
}
