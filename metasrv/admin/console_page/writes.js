// The slowest and the largest writes of this node's clients in the last minutes; asked for when the reader wants them.

import { getJson } from "./api.js";
import { byId, element } from "./dom.js";
import { bytes, milliseconds, timeOfDay } from "./format.js";

const LISTS = { slowest: "Slowest", largest: "Largest" };

/** Show one of the two lists, with a choice of the other. */
export async function showWrites(list = "slowest") {
  const target = byId("write-list");
  try {
    const found = await getJson("/v1/slow-writes");
    const choices = Object.entries(LISTS).map(([name, text]) =>
      element("button", { type: "button", class: "choice", "data-action": "writes", "data-list": name, "aria-pressed": name === list }, text),
    );
    target.replaceChildren(
      element("div", { class: "choices", role: "group", "aria-label": "Which writes" }, choices),
      found[list].length ? table(found[list], found.keys === null) : element("p", { class: "quiet" }, `No write in the last ${found.minutes} minutes.`),
      found.keys === null ? "" : element("p", { class: "quiet" }, found.keys),
    );
  } catch (error) {
    target.replaceChildren(element("p", { class: "notice warning", role: "status" }, error.message));
  }
}

function table(writes, hasKeys) {
  const titles = ["Ended", "Took", "Size", "Method", "Operations", "Outcome", ...(hasKeys ? ["Keys"] : [])];
  const rows = writes.map((write) => {
    const outcome = write.failure === null ? "done" : element("span", { class: "tag warning" }, write.failure.replaceAll("_", " "));
    const values = [timeOfDay(write.ended_at_ms), milliseconds(write.milliseconds), bytes(write.size_bytes), write.method, write.operations || "", outcome];
    const keys = hasKeys ? [element("td", {}, keysOf(write))] : [];
    return element("tr", {}, values.map((value) => element("td", { class: "value" }, value)), keys);
  });
  return element(
    "div",
    { class: "scroll" },
    element(
      "table",
      {},
      element("thead", {}, element("tr", {}, titles.map((title) => element("th", { scope: "col" }, title)))),
      element("tbody", {}, rows),
    ),
  );
}

function keysOf({ keys, operations }) {
  const more = operations - keys.length;
  return keys.join(", ") + (more > 0 ? ` and ${more} more` : "");
}
