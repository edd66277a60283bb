// The top of the page: the failure tolerance in words, facts of the cluster, notices, problems with what to do.

import { element, update, withCode } from "./dom.js";
import { counted, dateAndTime, timeOfDay, whole } from "./format.js";
import { pageAddress } from "./model.js";
import { runbookFold } from "./runbooks.js";
import { answering, isCutOff, noticesOf, situationOf } from "./situation.js";

const REFUSALS = {
  absent: "This node has no console",
  busy: "This node does not serve the console now",
  forbidden: "This node does not let the console in",
};
const SEVERITY = { critical: "Critical", warning: "Warning", info: "Note" };

/** The sentence at the top; without a connection, where to go on. */
export function showVerdict(target, model) {
  const { connection, state } = model;
  if (connection === "lost") {
    update(target, lost(model));
    return;
  }
  const refusal = REFUSALS[connection];
  if (refusal) {
    update(target, verdict({ tone: "unknown", title: refusal, text: `It answered: ${model.error}. The page keeps trying.` }));
    return;
  }
  if (state === null) {
    update(target, verdict({ tone: "unknown", title: "Looking at the cluster …", text: "The node is being asked." }));
    return;
  }
  const addresses = state.nodes.map((node) => ({ id: node.id, address: node.admin_url ?? node.admin_address }));
  const links = isCutOff(state) ? elsewhere(addresses, state.answered_by) : [];
  // What a removed node knows of the cluster is the past, and one that waits knows nothing of one.
  const isMember = state.nodes.length > 0 && answering(state)?.role !== "removed";
  update(target, verdict(situationOf(state), links), isMember ? facts(state) : null);
}

function verdict({ tone, title, text }, links = []) {
  return element(
    "div",
    { class: `verdict ${tone}` },
    element("span", { class: `dot ${tone}`, "aria-hidden": true }),
    element(
      "div",
      {},
      element("p", { class: "verdict-title" }, title),
      element("p", { class: "verdict-text" }, text),
      links.length ? element("p", { class: "elsewhere" }, links) : null,
    ),
  );
}

/** Links to the pages of the other nodes. */
function elsewhere(nodes, answeredBy) {
  return nodes
    .filter(({ id }) => id !== answeredBy)
    .map(({ id, address }) => ({ id, address, href: pageAddress(address) }))
    .filter(({ href }) => href !== null)
    .map(({ id, address, href }) => element("a", { class: "button", href }, `Node ${id} · ${address.replace(/^https?:\/\//, "")}`));
}

function facts({ cluster, nodes, now_ms: nowMs }) {
  const rows = [
    ["Leader", cluster.leader_id === null ? "none" : `node ${cluster.leader_id}`],
    ["Term", whole(cluster.term)],
    ["Voters", cluster.voters.join(", ") || "none"],
    ["Learners", cluster.learners.join(", ") || "none"],
    ["Ready", `${nodes.filter((node) => node.ready).length} of ${nodes.length}`],
    ["Node's clock", timeOfDay(nowMs)],
  ];
  return element(
    "dl",
    { class: "facts" },
    rows.map(([name, value]) => element("div", {}, element("dt", {}, name), element("dd", {}, value))),
  );
}

function lost(model) {
  const known = model.known;
  const others = known ? elsewhere(known.nodes, known.answered_by) : [];
  const name = known ? `Node ${known.answered_by}` : "This node";
  const seen = model.state ? `What is below was true at ${dateAndTime(model.receivedAt)}.` : "Nothing is known yet.";
  const where = others.length ? "Go on at another node:" : "No address of another node is known.";
  return element(
    "div",
    { class: "verdict critical" },
    element("span", { class: "dot critical", "aria-hidden": true }),
    element(
      "div",
      {},
      element("p", { class: "verdict-title" }, `${name} does not answer`),
      element("p", { class: "verdict-text" }, `${seen} The page keeps trying. ${where}`),
      element(
        "p",
        { class: "elsewhere" },
        others,
        element("button", { type: "button", class: "button", "data-action": "reconnect" }, "Try now"),
      ),
    ),
  );
}

/** Notices and problems. */
export function showProblems(target, model) {
  const { state } = model;
  if (state === null) {
    update(target);
    return;
  }
  const problems = [...state.problems].sort((a, b) => rank(a) - rank(b));
  const notices = noticesOf(state, model.missingNodes);
  update(
    target,
    problems.map((problem) => problemCard(problem)),
    notices.map(({ tone, text }) => element("p", { class: `notice ${tone}`, "data-key": text }, text)),
  );
}

/** What a screen reader says of the problems: their titles, because the texts count seconds and change all the time. */
export function announcementOf(model) {
  const { problems } = model.state;
  const said = problems.map(({ severity, title }) => `${SEVERITY[severity] ?? severity}: ${title}.`);
  return said.length ? `${counted(said.length, "problem")}. ${said.join(" ")}` : "No problems.";
}

function rank(problem) {
  return problem.severity === "critical" ? 0 : 1;
}

function problemCard({ severity, title, text, node_id: nodeId, runbook }) {
  const key = `${severity} ${nodeId} ${title}`;
  return element(
    "article",
    { class: `problem ${severity}`, "data-key": key },
    element(
      "h3",
      {},
      element("span", { class: `tag ${severity}` }, SEVERITY[severity] ?? severity),
      title,
      nodeId === null || title.toLowerCase().includes(`node ${nodeId}`) ? null : element("span", { class: "quiet" }, ` node ${nodeId}`),
    ),
    element("p", {}, withCode(text)),
    runbook ? runbookFold(runbook, `${key} runbook`) : null,
  );
}

/** A few words for the header: how many problems there are. */
export function summaryOf(model) {
  if (model.connection === "lost") return { tone: "critical", text: "not reachable" };
  if (model.connection === "token") return { tone: "unknown", text: "token needed" };
  if (model.state === null) return { tone: "unknown", text: model.connection === "connecting" ? "connecting" : "no data" };
  const { problems } = model.state;
  if (problems.some((problem) => problem.severity === "critical")) {
    return { tone: "critical", text: counted(problems.length, "problem") };
  }
  if (problems.length) return { tone: "warning", text: counted(problems.length, "problem") };
  if (model.state.cluster.voters.length === 0) return { tone: "warning", text: "not in a cluster" };
  const { tone } = situationOf(model.state);
  return { tone: tone === "unknown" ? "ok" : tone, text: tone === "critical" ? "not serving" : "no problems" };
}
