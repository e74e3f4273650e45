'use strict';

// The theme: as the system has it, until the button says otherwise; remembered where the browser allows that.
{
  const root = document.documentElement;
  const system = matchMedia('(prefers-color-scheme: dark)');
  const remember = theme => { try { localStorage.setItem('lriad-theme', theme); } catch { /* forgotten with the page */ } };
  root.classList.add('js');
  try { root.dataset.theme = localStorage.getItem('lriad-theme') ?? ''; } catch { /* as the system has it */ }
  const isDark = () => root.dataset.theme ? root.dataset.theme === 'dark' : system.matches;
  addEventListener('DOMContentLoaded', () => {
    const button = document.getElementById('theme');
    const name = () => { button.textContent = isDark() ? 'light theme' : 'dark theme'; };
    button.hidden = false;
    name();
    system.addEventListener('change', name);
    button.addEventListener('click', () => {
      root.dataset.theme = isDark() ? 'light' : 'dark';
      remember(root.dataset.theme);
      name();
    });
  });
}
