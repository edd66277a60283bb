// Asks for the token of a node that has tokens configured. It stays in this tab and goes into a header, never into an address.

import { token, useToken } from "./api.js";
import { byId, element, update } from "./dom.js";

/** Show or hide the form; `error` is what the node said about the last token. */
export function showTokenForm(isNeeded, error = "") {
  const target = byId("token");
  byId("forget").hidden = !token();
  if (target.hidden === !isNeeded) return;
  target.hidden = !isNeeded;
  if (!isNeeded) return;
  const field = { id: "token-text", type: "password", autocomplete: "off", required: true, spellcheck: "false" };
  update(
    target,
    element("h2", { id: "token-title" }, "This node asks for a token"),
    element("p", {}, "One of scope ", element("code", {}, "read"), " shows everything; actions need ", element("code", {}, "operate"), "."),
    element(
      "form",
      { id: "token-form", class: "row" },
      element("label", { for: "token-text" }, "Token"),
      element("input", field),
      element("button", { type: "submit", class: "button primary" }, "Use it"),
    ),
    element("p", { class: "quiet" }, "It is kept for this tab only, and sent to this node alone."),
    token() && error ? element("p", { class: "failed", role: "alert" }, error) : null,
  );
  byId("token-text").focus();
}

/** Call `whenGiven` after a token was entered. */
export function watchTokenForm(whenGiven) {
  document.addEventListener("submit", (event) => {
    if (event.target.id !== "token-form") return;
    event.preventDefault();
    useToken(byId("token-text").value.trim());
    byId("token-text").value = "";
    byId("token").hidden = true;
    whenGiven();
  });
}
