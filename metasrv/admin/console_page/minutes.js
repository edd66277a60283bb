// What this node was doing: a strip of the minutes that it has kept, each of which opens as a flame graph.

import { getJson, getText } from "./api.js";
import { openDialog } from "./dialogs.js";
import { drawing, element, update } from "./dom.js";
import { flameGraph } from "./flame_graph.js";
import { dateAndTime, number, timeOfDay, whole } from "./format.js";

const MINUTES = "/v1/profile/minutes";
const HISTORY = "/v1/profile/history";
const MINUTE_MS = 60_000;
const BAR_PIXELS = 40;
const COLUMNS = 11; // ten minutes, and the one that has begun

/** Asks now and each half minute while the page is looked at; a node that keeps none, or does not tell, has no strip. */
export function watchMinutes(target) {
  const ask = async () => {
    if (document.hidden) return;
    try {
      show(target, (await getJson(MINUTES)).minutes);
    } catch {
      target.hidden = true;
    }
  };
  ask();
  setInterval(ask, MINUTE_MS / 2);
}

function show(target, minutes) {
  target.hidden = minutes.length === 0;
  // The newest minute is on the right, and as wide as it will be once all are there.
  const empty = Array.from({ length: Math.max(0, COLUMNS - minutes.length) }, () => element("span", { class: "no-minute" }));
  update(
    target,
    element("h3", {}, "What this node was doing"),
    element("p", { class: "quiet" }, "How much of each minute a thread was at work; a full bar is all of it. Choose one to see its stacks."),
    element("div", { class: "strip" }, empty, minutes.map(column)),
  );
}

function column({ start_ms: startMs, looks, busy_looks: busy }) {
  const share = looks ? busy / looks : 0;
  const moment = timeOfDay(startMs).slice(0, 5);
  const height = Math.round(share * BAR_PIXELS);
  const label = `${moment}, at work in ${number(100 * share)} % of ${whole(looks)} looks`;
  return element(
    "button",
    { type: "button", class: "minute", "data-action": "minute", "data-key": startMs, "data-start": startMs, "aria-label": label, title: label },
    drawing(
      "svg",
      { viewBox: `0 0 20 ${BAR_PIXELS}`, preserveAspectRatio: "none", "aria-hidden": true },
      drawing("rect", { x: 0, y: BAR_PIXELS - height, width: 20, height }),
    ),
    element("span", { "aria-hidden": true }, moment),
  );
}

/** The flame graph of the minute that a column stands for. */
export async function openMinute(button, node) {
  const startMs = Number(button.dataset.start);
  const abort = new AbortController();
  const outcome = element("div", { class: "outcome", "aria-live": "polite" }, element("p", { class: "quiet" }, "Waiting for the node …"));
  openDialog(`Node ${node} at ${dateAndTime(startMs)}, one minute`, outcome, { whenClosed: () => abort.abort(), isWide: true });
  const query = new URLSearchParams({ from_ms: startMs, to_ms: startMs + MINUTE_MS, format: "folded" });
  try {
    const folded = await getText(`${HISTORY}?${query}`, abort.signal);
    outcome.replaceChildren(flameGraph(folded, (value) => `${whole(value)} looks`));
  } catch (error) {
    if (!abort.signal.aborted) outcome.replaceChildren(element("p", { class: "failed" }, error.message));
  }
}
