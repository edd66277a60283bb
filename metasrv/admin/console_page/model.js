// What the page knows: the last state, the history of charts, events. Messages of the stream change it.
// Remembers the addresses of all nodes for the moment at which this one does not answer. Must not know elements.

const EVENTS_MAX = 1000;
const POINTS_MAX = 450; // 15 minutes of a point every 2 s
const KNOWN_KEY = "metasrv.nodes";

export class Model {
  constructor() {
    this.state = null;
    this.history = { step_ms: 2000, start_ms: 0, series: {} };
    this.events = [];
    this.missingNodes = [];
    /** connecting, live, lost, busy, token, forbidden or absent */
    this.connection = "connecting";
    this.error = "";
    this.receivedAt = 0;
    this.known = remembered();
  }

  /** Take one message; says what changed: state, history or events. */
  take(message) {
    if (message.type === "state") {
      this.state = message.state;
      this.receivedAt = Date.now();
      this.#remember();
      return "state";
    }
    if (message.type === "history") {
      this.history = message.history;
      return "history";
    }
    if (message.type === "point") {
      addPoint(this.history, message.time_ms, message.values);
      return "history";
    }
    if (message.type === "events") {
      this.#addEvents(message.events);
      this.missingNodes = message.missing_nodes ?? [];
      return "events";
    }
    if (message.type === "event") {
      this.#addEvents([message.event]);
      return "events";
    }
    return "nothing";
  }

  #addEvents(added) {
    const byId = new Map([...this.events, ...added].map((event) => [event.id, event]));
    this.events = [...byId.values()].sort((a, b) => b.time_ms - a.time_ms).slice(0, EVENTS_MAX);
  }

  #remember() {
    const { cluster, nodes } = this.state;
    const addresses = nodes.map((node) => ({ id: node.id, address: node.admin_url ?? node.admin_address }));
    this.known = { cluster: cluster.name, answered_by: this.state.answered_by, nodes: addresses };
    try {
      localStorage.setItem(KNOWN_KEY, JSON.stringify(this.known));
    } catch {
      // A browser without storage: the addresses are in memory all the same.
    }
  }
}

function remembered() {
  try {
    const known = JSON.parse(localStorage.getItem(KNOWN_KEY));
    return Array.isArray(known?.nodes) ? known : null;
  } catch {
    return null;
  }
}

/** Put a point where its time belongs; times without a point are gaps. */
export function addPoint(history, timeMs, values) {
  const { series, step_ms: stepMs } = history;
  const known = lengthOf(history);
  const names = new Set([...Object.keys(series), ...Object.keys(values)]);
  const position = Math.max(0, Math.round((timeMs - history.start_ms) / stepMs));
  if (known === 0 || position >= known + POINTS_MAX) {
    // Nothing of what is known would still be shown.
    history.start_ms = timeMs;
    for (const name of names) series[name] = [values[name] ?? null];
    return;
  }
  const length = Math.max(known, position + 1);
  const dropped = Math.max(0, length - POINTS_MAX);
  for (const name of names) {
    const points = (series[name] ??= []);
    while (points.length < length) points.push(null);
    points[position] = values[name] ?? null;
    points.splice(0, dropped);
  }
  history.start_ms += dropped * stepMs;
}

/** How many points the longest series has. */
export function lengthOf(history) {
  return Math.max(0, ...Object.values(history.series).map((points) => points.length));
}

/** Where a node with this admin address serves its page, with the scheme of this page; null for what is no address. */
export function pageAddress(adminAddress) {
  if (!adminAddress) return null;
  try {
    const text = adminAddress.includes("://") ? adminAddress : `${location.protocol}//${adminAddress}`;
    const address = new URL(text);
    return address.protocol === "http:" || address.protocol === "https:" ? `${address.origin}/` : null;
  } catch {
    return null;
  }
}
