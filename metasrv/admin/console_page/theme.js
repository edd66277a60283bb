// Light, dark, or as the system says; the choice is remembered in this browser.

import { byId } from "./dom.js";

const KEY = "metasrv.theme";
const THEMES = ["system", "light", "dark"];

function chosen() {
  const theme = localStorage.getItem(KEY);
  return THEMES.includes(theme) ? theme : "system";
}

export function applyTheme(theme = chosen()) {
  document.documentElement.dataset.theme = theme;
  const button = byId("theme");
  button.textContent = { system: "Auto", light: "Light", dark: "Dark" }[theme];
  button.setAttribute("aria-label", `Colours: ${theme}. Change`);
}

export function nextTheme() {
  const theme = THEMES[(THEMES.indexOf(chosen()) + 1) % THEMES.length];
  localStorage.setItem(KEY, theme);
  applyTheme(theme);
}
