// The event history of the whole cluster, newest first, with filters for severity, node and words.

import { getJson } from "./api.js";
import { byId, element, update } from "./dom.js";
import { counted, dateAndTime, timeOfDay } from "./format.js";

const SHOWN_MAX = 200;
const LOADED_MAX = 1000;
const DAY_MS = 86_400_000;

export class Events {
  #model;

  constructor(model) {
    this.#model = model;
    for (const id of ["event-severity", "event-node", "event-words"]) byId(id).addEventListener("input", () => this.show());
  }

  show() {
    const { events, state } = this.#model;
    this.#offerNodes(state?.nodes ?? []);
    const chosen = events.filter((event) => this.#isWanted(event));
    const shown = chosen.slice(0, SHOWN_MAX);
    update(byId("event-list"), shown.map(line));
    const isFiltered = chosen.length < events.length;
    byId("event-count").textContent = events.length === 0
      ? "No events yet."
      : `${counted(chosen.length, "event")}${isFiltered ? ` of ${events.length}` : ""}` +
        `${chosen.length > SHOWN_MAX ? `, the newest ${SHOWN_MAX} are shown` : ""}`;
  }

  /** Ask for more than the stream has sent; the answer says which nodes' events are missing. */
  async loadMore(button) {
    button.disabled = true;
    try {
      const answer = await getJson(`/v1/events?limit=${LOADED_MAX}`);
      this.#model.take({ type: "events", ...answer });
      this.show();
    } catch (error) {
      byId("event-count").textContent = `Older events cannot be loaded: ${error.message}`;
    } finally {
      button.disabled = false;
    }
  }

  #isWanted({ severity, node_id: nodeId, text, kind }) {
    const least = byId("event-severity").value;
    const node = byId("event-node").value;
    const words = byId("event-words").value.trim().toLowerCase();
    if (least === "critical" && severity !== "critical") return false;
    if (least === "warning" && severity === "info") return false;
    if (node && String(nodeId) !== node) return false;
    return !words || `${kind} ${text}`.toLowerCase().includes(words);
  }

  #offerNodes(nodes) {
    const choice = byId("event-node");
    const offered = nodes.map((node) => element("option", { value: node.id, "data-key": node.id }, `Node ${node.id}`));
    update(choice, element("option", { value: "" }, "All nodes"), offered);
  }
}

function line({ id, time_ms: timeMs, node_id: nodeId, kind, severity, text, term }) {
  const isOld = Date.now() - timeMs > DAY_MS;
  return element(
    "li",
    { class: `event ${severity}`, "data-key": id },
    element(
      "time",
      { datetime: new Date(timeMs).toISOString(), title: dateAndTime(timeMs) },
      isOld ? dateAndTime(timeMs) : timeOfDay(timeMs),
    ),
    element("span", { class: "event-node" }, `node ${nodeId}`),
    element("span", { class: "event-kind" }, kind.replaceAll("_", " ")),
    element(
      "span",
      { class: "event-text" },
      severity === "info" ? null : element("span", { class: `tag ${severity}` }, severity),
      text,
      term === null ? null : element("span", { class: "quiet" }, ` term ${term}`),
    ),
  );
}
