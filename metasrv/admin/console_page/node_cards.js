// A card for each node with every value the cluster knows of it, and its checks of readiness.

import { element, update, withCode } from "./dom.js";
import { bytes, bytesPerSecond, duration, milliseconds, offset, UNKNOWN, whole } from "./format.js";
import { pageAddress } from "./model.js";
import { runbookFold } from "./runbooks.js";

export function showNodes(target, state) {
  update(
    target,
    state.nodes.map((node) => card(node, state)),
  );
}

function card(node, state) {
  const isHere = node.id === state.answered_by;
  return element(
    "article",
    { class: `card node ${node.role}${node.reachable ? "" : " lost"}`, "data-key": node.id, "aria-label": `Node ${node.id}` },
    element(
      "header",
      {},
      element("h3", {}, `Node ${node.id}`),
      element("span", { class: `tag role ${node.role}` }, node.role),
      node.votes || ["learner", "removed"].includes(node.role) ? null : element("span", { class: "tag" }, "no vote"),
      isHere ? element("span", { class: "tag", title: "This node serves this page" }, "here") : null,
      readiness(node),
    ),
    element("dl", { class: "values" }, rows(node, state).map(row)),
    checks(node),
  );
}

function readiness({ ready, reachable, role }) {
  if (!reachable && role !== "unreachable") return element("span", { class: "state critical" }, "unreachable");
  if (!reachable || ready === null) return null;
  return element("span", { class: `state ${ready ? "ok" : "warning"}` }, ready ? "ready" : "not ready");
}

function rows(node, { cluster }) {
  const leads = node.id === cluster.leader_id;
  return [
    ["Term", whole(node.term)],
    ["Uptime", duration(node.uptime_ms)],
    ["Log, applied", pair(whole, node.last_log_index, node.applied_index)],
    ["Lag", leads ? UNKNOWN : entries(node.lag_entries)],
    ["Last contact", ago(node.last_contact_ms)],
    ["Round trip", milliseconds(node.round_trip_ms)],
    ["Sent, received", pair(bytesPerSecond, node.bytes_sent_per_second, node.bytes_received_per_second)],
    ["Clock offset", offset(node.clock_offset_ms)],
    ["Database, log", pair(bytes, node.database_bytes, node.log_bytes)],
    ["Admin", address(node.admin_address, pageAddress(node.admin_url ?? node.admin_address))],
    ["gRPC", node.grpc_address],
    ["Raft", node.raft_address],
    ["Version", node.version],
  ];
}

function row([name, value]) {
  return element("div", {}, element("dt", {}, name), element("dd", {}, value ?? UNKNOWN));
}

function pair(show, first, second) {
  return first === null && second === null ? UNKNOWN : `${show(first)} · ${show(second)}`;
}

function entries(count) {
  if (count === null) return UNKNOWN;
  return count === 1 ? "1 entry" : `${whole(count)} entries`;
}

function ago(value) {
  return value === null ? UNKNOWN : `${milliseconds(value)} ago`;
}

function address(text, href) {
  return href ? element("a", { href }, text) : text;
}

function checks(node) {
  if (!node.checks.length) return element("p", { class: "checks quiet" }, "Its checks are not known.");
  const failing = node.checks.filter((check) => !check.ok);
  const warning = node.checks.filter((check) => check.ok && check.warns);
  const standing = [...failing, ...warning].filter(({ name }) => isOwn(name, node));
  const title = failing.length
    ? `${failing.length} of ${node.checks.length} checks fail`
    : `All ${node.checks.length} checks pass${warning.length ? `, ${warning.length} ${warning.length === 1 ? "warns" : "warn"}` : ""}`;
  return element(
    "div",
    { class: "checks" },
    standing.map((check) => standsOut(check, node.id)),
    element(
      "details",
      { "data-key": "all checks" },
      element("summary", { class: failing.length || warning.length ? "warning" : "ok" }, title),
      element(
        "ul",
        {},
        node.checks.map(({ name, ok, reason }) =>
          element(
            "li",
            { class: ok ? "ok" : "failed", "data-key": name },
            element("span", { class: "mark" }, ok ? "pass" : "fail"),
            element("span", {}, element("b", {}, name), ` ${reason}`),
          ),
        ),
      ),
    ),
  );
}

/** Whether the check says something of this node alone. Those of the whole cluster are said once, at the top of the page. */
function isOwn(name, { role }) {
  return name !== "writes" && (role !== "removed" || name === "member");
}

/** A check that fails or warns stands open, with its runbook below it. */
function standsOut({ name, reason, runbook }, nodeId) {
  return element(
    "div",
    { class: "failing", "data-key": `failing ${name}` },
    element("p", {}, element("b", {}, name), " ", withCode(reason)),
    runbook ? runbookFold(runbook, `runbook ${nodeId} ${name}`) : null,
  );
}
