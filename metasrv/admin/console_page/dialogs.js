// The one modal dialog of the page. The browser keeps the focus in it, closes it with Escape and gives the focus back.

import { byId, element } from "./dom.js";

let closing = null;

/** Show a dialog; `whenClosed` is called once when it ends, however it ends. */
export function openDialog(title, content, { whenClosed = null, isWide = false } = {}) {
  const dialog = byId("dialog");
  closeDialog();
  closing = whenClosed;
  dialog.classList.toggle("wide", isWide);
  dialog.replaceChildren(
    element(
      "header",
      {},
      element("h2", { id: "dialog-title" }, title),
      element("button", { type: "button", class: "button", "data-action": "close", "aria-label": "Close" }, "Close"),
    ),
    element("div", { class: "dialog-content" }, content),
  );
  dialog.showModal();
}

export function closeDialog() {
  const dialog = byId("dialog");
  if (dialog.open) dialog.close();
  ended();
}

/** Called at once when the page closes the dialog, and by its event when the reader does. */
function ended() {
  const called = closing;
  closing = null;
  byId("dialog").replaceChildren();
  called?.();
}

/** Connect the element; called once. */
export function watchDialog() {
  const dialog = byId("dialog");
  // The event comes later than the closing; by then another dialog may be open.
  dialog.addEventListener("close", () => {
    if (!dialog.open) ended();
  });
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog) dialog.close();
  });
}
