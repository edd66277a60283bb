// What can be done to the node that serves this page. Each action names its consequence and waits for a confirmation; the
// answer stands in the same dialog. An action whose route the node's API does not describe is left out.

import { act, download, getJson, put } from "./api.js";
import { byId, element, update } from "./dom.js";
import { openDialog } from "./dialogs.js";
import { flameGraph } from "./flame_graph.js";
import { bytes, dateAndTime, timeOfDay, whole } from "./format.js";
import { answering } from "./situation.js";

const SNAPSHOT = "/v1/ctrl/trigger_snapshot";
const TRANSFER = "/v1/ctrl/trigger_transfer_leader";
const DRAIN = "/v1/ctrl/drain";
const LOG_LEVELS = "/v1/log-levels";
const DIAGNOSTICS = "/v1/diagnostics";
const CPU = "/debug/pprof/profile";
const MEMORY = "/debug/mem/pprof/profile";
const CAPTURES = "/v1/profile/captures";

/** `refusal(state)` says why it cannot be done now; `run(path, signal)` resolves to what is shown afterwards. */
const ACTIONS = {
  transfer: {
    title: "Hand leadership over",
    summary: "Another voter leads, for maintenance of this node.",
    path: TRANSFER,
    confirm: "Hand over",
    isGrave: true,
    refusal: ({ cluster, answered_by: id }) =>
      cluster.leader_id === id ? null : cluster.leader_id === null ? "No node leads." : `Node ${cluster.leader_id} leads; do it on its page.`,
    consequence: ({ answered_by: id }) =>
      `Node ${id} stops leading and asks the other node to begin an election. Writes wait until it leads, usually well below a second.`,
    fields: (state) => [targetField(state)],
    run: async (path, signal) => {
      const done = await (await act(path, signal)).json();
      return `Node ${done.to} was asked to take over from node ${done.from}.`;
    },
  },
  snapshot: {
    title: "Write a snapshot",
    summary: "A file with the whole state, on this node.",
    path: SNAPSHOT,
    confirm: "Write it",
    consequence: (state) =>
      `Node ${state.answered_by} copies its state into a new file. That takes room on its disk (the database has ` +
      `${bytes(answering(state)?.database_bytes)}) and slows its disk down meanwhile. Requests are answered as before.`,
    run: async (path, signal) => {
      await act(path, signal);
      return "The snapshot has begun. An event says when it is written.";
    },
  },
  drain: {
    title: "Drain this node",
    summary: "Take this node out of service before it is stopped.",
    path: DRAIN,
    confirm: "Change it",
    isGrave: true,
    consequence: ({ answered_by: id }) =>
      `Drained, node ${id} hands leadership over, stands for no election and says that it is not ready, so that clients and load ` +
      "balancers go elsewhere. That lasts until it is ended here or the node restarts.",
    fields: (state) => [drainField(state)],
    run: async (path, signal) => {
      const { id, drained } = await (await act(path, signal)).json();
      return drained ? `Node ${id} is drained.` : `Node ${id} is in service.`;
    },
  },
  logLevel: {
    title: "Change a log level",
    summary: "Let a part of this node log more, or less, for a while.",
    path: LOG_LEVELS,
    confirm: "Change it",
    consequence: ({ answered_by: id }) =>
      `Node ${id} logs that part, and all below it, from another level on. At debug and trace that may be many lines. ` +
      "The level goes back by itself when the time is over; another change of the same part takes its place.",
    fields: () => levelFields(),
    run: async (path, signal) => {
      const { logger, level, seconds } = Object.fromEntries(new URL(path, location.href).searchParams);
      const set = await (await put(LOG_LEVELS, { logger, level, seconds: Number(seconds) }, signal)).json();
      return `${set.logger} logs from ${set.level} on until ${timeOfDay(set.expires_at_ms)}, then from ${set.configured} on.`;
    },
  },
  diagnostics: {
    title: "Download diagnostics",
    summary: "One archive with what is known about this node.",
    path: DIAGNOSTICS,
    confirm: "Download",
    consequence: ({ answered_by: id }) =>
      `Node ${id} collects its status, events, metrics, newest log lines, configuration, threads, files and a profile. ` +
      "Secrets and stored values are left out; addresses and log lines are in it. metactl diagnose does this for all nodes at once.",
    fields: () => [secondsField(0, 60, 2)],
    run: async (path, signal) => {
      const { name, size } = await download(path, signal);
      return `${name}, ${bytes(size)}, is saved by your browser.`;
    },
  },
  cpu: {
    title: "Profile the processor",
    summary: "A flame graph of where time is spent.",
    path: CPU,
    confirm: "Take the profile",
    consequence: ({ answered_by: id }) =>
      `The stacks of node ${id} are sampled 99 times a second. Its requests may take a little longer meanwhile. Closing this ends it.`,
    fields: () => [secondsField(), switchField("idle", "with threads that wait")],
    run: (path, signal) => profile(path, signal, (value) => `${whole(value)} samples`),
  },
  memory: {
    title: "Profile the memory",
    summary: "A flame graph of what is allocated.",
    path: MEMORY,
    confirm: "Take the profile",
    consequence: ({ answered_by: id }) =>
      `The allocations of node ${id} are recorded, so its requests take clearly longer meanwhile. Closing this ends it.`,
    fields: () => [secondsField(), baseField(), switchField("small_objects", "with each small object, which costs much more")],
    run: (path, signal) => profile(path, signal, bytes),
  },
};

function secondsField(min = 1, max = 300, value = 5, name = "Seconds") {
  const input = element("input", { type: "number", name: "seconds", min, max, value, required: true, autofocus: true });
  return element("label", {}, min ? `${name} ` : "Seconds of the profile ", input);
}

/** The parts of the node are offered once it has named them; anything can be typed before. */
function levelFields() {
  const names = element("datalist", { id: "loggers" });
  const now = element("p", { class: "quiet", "aria-live": "polite" });
  const logger = element("input", { name: "logger", list: "loggers", value: "metasrv", required: true, autofocus: true, spellcheck: false });
  const level = element("select", { name: "level" }, ["debug", "trace", "info", "warn", "error"].map((name) => element("option", { value: name }, name)));
  getJson(LOG_LEVELS).then(
    ({ levels, loggers }) => {
      names.append(...loggers.map((name) => element("option", { value: name })));
      now.textContent = `Now: ${levels.map((one) => `${one.logger} ${one.level}${one.expires_at_ms === null ? "" : ` until ${timeOfDay(one.expires_at_ms)}`}`).join(", ")}.`;
    },
    (error) => { now.textContent = error.message; },
  );
  return [
    [element("label", {}, "Part ", logger), names],
    [element("label", {}, "Level ", level), " ", secondsField(1, 86_400, 300, "for seconds")],
    now,
  ];
}

function switchField(name, text) {
  return element("label", {}, element("input", { type: "checkbox", name, value: "true" }), ` ${text}`);
}

/** The earlier profiles that the node has kept come in later; without them there is nothing to choose. */
function baseField() {
  const select = element("select", { name: "base" }, element("option", { value: "" }, "nothing: what is allocated"));
  getJson(CAPTURES).then(
    ({ captures }) =>
      select.append(
        ...captures.map(({ capture, started_at_ms: at, seconds }) =>
          element("option", { value: capture }, `${dateAndTime(at)}, ${seconds} s`),
        ),
      ),
    () => {},
  );
  return element("label", {}, "Compare with ", select);
}

function targetField({ nodes, answered_by: id }) {
  const voters = nodes.filter((node) => node.votes && node.id !== id);
  const options = voters.map((node) =>
    element("option", { value: node.id, disabled: !node.reachable }, `Node ${node.id}${node.reachable ? "" : ", unreachable"}`),
  );
  return element("label", {}, "To ", element("select", { name: "to", autofocus: true }, element("option", { value: "" }, "the next voter"), options));
}

/** The node's id goes with it, so that a request that reaches another node is refused there. */
function drainField({ answered_by: id }) {
  const choices = [["true", "drain it"], ["false", "end the drain"]].map(([value, text]) => element("option", { value }, text));
  const select = element("select", { name: "on", autofocus: true }, choices);
  return element("label", {}, `Node ${id} `, select, element("input", { type: "hidden", name: "id", value: id }));
}

async function profile(path, signal, show) {
  const address = new URL(path, location.href);
  address.searchParams.set("format", "folded");
  const folded = await (await act(address.pathname + address.search, signal)).text();
  return flameGraph(folded, show, address.searchParams.has("base"));
}

/** The buttons for what this node offers; `paths` is what its API describes. */
export function showActions(target, state, paths) {
  const offered = Object.entries(ACTIONS).filter(([, action]) => paths[action.path]);
  update(
    target,
    offered.map(([name, action]) => {
      const refusal = action.refusal?.(state) ?? null;
      const attributes = { type: "button", class: "button", "data-action": "act", "data-name": name, disabled: refusal !== null };
      return element(
        "div",
        { class: "card action", "data-key": name },
        element("h3", {}, action.title),
        element("p", { class: "quiet" }, refusal ?? action.summary),
        element("button", attributes, `${action.confirm} …`),
      );
    }),
  );
}

/** Ask before it is done. */
export function askFor(name, state) {
  const action = ACTIONS[name];
  const abort = new AbortController();
  const confirm = element("button", { type: "submit", class: `button ${action.isGrave ? "grave" : "primary"}` }, action.confirm);
  const cancel = element("button", { type: "button", class: "button", "data-action": "close", autofocus: !action.fields }, "Cancel");
  const outcome = element("div", { class: "outcome", "aria-live": "polite" });
  const form = element(
    "form",
    { class: "ask" },
    element("p", { class: "consequence" }, action.consequence(state)),
    (action.fields?.(state) ?? []).map((field) => (field.tagName === "P" ? field : element("p", {}, field))),
    element("p", { class: "quiet" }, "The node writes this down in its audit log."),
    element("div", { class: "row" }, confirm, cancel),
  );
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    perform(action, form, outcome, abort.signal);
  });
  openDialog(`${action.title} · node ${state.answered_by}`, [form, outcome], { whenClosed: () => abort.abort() });
}

async function perform(action, form, outcome, signal) {
  const query = new URLSearchParams([...new FormData(form)].filter(([, value]) => value !== ""));
  for (const field of form.elements) field.disabled = field.dataset.action !== "close";
  outcome.replaceChildren(element("p", { class: "quiet" }, "Waiting for the node …"));
  try {
    const shown = await action.run(query.size ? `${action.path}?${query}` : action.path, signal);
    if (signal.aborted) return;
    form.remove();
    if (typeof shown !== "string") byId("dialog").classList.add("wide");
    outcome.replaceChildren(typeof shown === "string" ? element("p", { class: "done" }, shown) : shown);
  } catch (error) {
    if (signal.aborted) return;
    for (const field of form.elements) field.disabled = false;
    outcome.replaceChildren(element("p", { class: "failed" }, error.message));
  }
}
