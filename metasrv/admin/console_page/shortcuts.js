// Keys that act without a modifier, while nobody types; `?` lists them.

import { byId, element } from "./dom.js";
import { openDialog } from "./dialogs.js";
import { nextTheme } from "./theme.js";

const SECTIONS = ["cluster", "charts", "events", "writes", "keys", "actions"];

const SHORTCUTS = [
  ["?", "Show this list", () => showShortcuts()],
  ...SECTIONS.map((id, position) => [String(position + 1), `Go to ${id}`, () => goTo(id)]),
  ["/", "Search the events", () => byId("event-words").focus()],
  ["t", "Change the colours", () => nextTheme()],
];
const OTHERS = [
  ["← →", "In a chart: look at another moment"],
  ["Esc", "Close a dialog"],
];

export function showShortcuts() {
  const rows = [...SHORTCUTS, ...OTHERS].map(([key, text]) =>
    element("div", {}, element("dt", {}, element("kbd", {}, key)), element("dd", {}, text)),
  );
  openDialog("Keyboard", element("dl", { class: "shortcuts" }, rows));
}

function goTo(id) {
  const section = byId(id);
  section.scrollIntoView({ block: "start" });
  section.querySelector("h2").focus({ preventScroll: true });
}

export function watchShortcuts() {
  document.addEventListener("keydown", (event) => {
    const isTyping = event.target.matches("input, select, textarea");
    if (isTyping || event.ctrlKey || event.metaKey || event.altKey || byId("dialog").open) return;
    const found = SHORTCUTS.find(([key]) => key === event.key);
    if (!found) return;
    event.preventDefault();
    found[2]();
  });
}
