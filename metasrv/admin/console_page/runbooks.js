// A runbook's text, folded out where it is needed. It is loaded when the fold is opened for the first time.

import { getText } from "./api.js";
import { element } from "./dom.js";
import { markdown } from "./markdown.js";

const loaded = new Map();

/** A fold for a runbook; `key` tells it apart from others of the same page. */
export function runbookFold(slug, key, label = "What to do") {
  return element(
    "details",
    { class: "runbook", "data-key": key, "data-runbook": slug },
    element("summary", {}, label),
    element("div", { class: "runbook-text", "data-kept": true }, element("p", { class: "quiet" }, "Loading …")),
  );
}

/** Load runbooks as their folds are opened. */
export function watchRunbooks() {
  document.addEventListener(
    "toggle",
    (event) => {
      const fold = event.target;
      if (fold.open && fold.dataset.runbook) show(fold.querySelector(".runbook-text"), fold.dataset.runbook);
    },
    true,
  );
}

async function show(target, slug) {
  try {
    if (!loaded.has(slug)) loaded.set(slug, await getText(`/v1/runbooks/${encodeURIComponent(slug)}`));
    target.replaceChildren(...markdown(loaded.get(slug), (label, address) => link(label, address)));
  } catch (error) {
    target.replaceChildren(element("p", { class: "failed" }, `The runbook ${slug} cannot be loaded: ${error.message}`));
  }
}

/** A link to another runbook opens it in the same place; what leads elsewhere in the documentation is only named. */
function link(label, address) {
  const runbook = /^(?:\.\/)?([a-z0-9-]+)\.md(?:#.*)?$/.exec(address);
  if (runbook) {
    return element("button", { type: "button", class: "link", "data-action": "runbook", "data-slug": runbook[1] }, label);
  }
  if (/^https:\/\//.test(address)) return element("a", { href: address, target: "_blank", rel: "noreferrer" }, label);
  return element("span", { title: address }, label);
}

/** For the delegated click on such a link. */
export function openLinkedRunbook(button) {
  show(button.closest(".runbook-text"), button.dataset.slug);
}
