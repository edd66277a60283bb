// The cluster as a picture: nodes on a ring in the order of their ids, so that they stay where they are when the leader
// changes, and a line from the leader to each other node with its lag and round trip. The cards beside it say the same in text.

import { drawing, element, update } from "./dom.js";
import { milliseconds, whole } from "./format.js";

const WIDTH = 380;
const HEIGHT = 310;
const RADIUS = 25;
const CROWDED = 6; // from so many nodes on there is no room for text on the lines
const LAG_MAX = 1000; // above it a node is not ready
const CONTACT_MAX_MS = 2000;

export function showMap(target, state) {
  const places = placesOf(state.nodes);
  const leader = state.cluster.leader_id;
  const others = state.nodes.filter((node) => node.id !== leader && node.role !== "removed");
  // What a node that does not hear the leader would draw here is not known to it.
  const from = state.nodes.some((node) => node.id === leader && node.reachable) ? places.get(leader) : undefined;
  const isCrowded = state.nodes.length >= CROWDED;
  const picture = drawing(
    "svg",
    { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": inWords(state) },
    from ? others.map((node) => edge(from, places.get(node.id), measured(node, state), isCrowded)) : null,
    state.nodes.map((node) => circle(places.get(node.id), node, state, isCrowded && from && node.id !== leader)),
    leader === null ? drawing("text", { x: WIDTH / 2, y: HEIGHT / 2 + 5, class: "map-empty" }, "no leader") : null,
  );
  update(target, picture, legend());
}

/** A place for each node: on a ring, or in the middle if there is only one. */
function placesOf(nodes) {
  const count = nodes.length;
  const places = new Map();
  nodes.forEach((node, position) => {
    const angle = (position / count) * 2 * Math.PI - Math.PI / 2;
    const [wide, high] = count === 1 ? [0, 0] : [count === 3 ? 160 : 146, count === 3 ? 136 : 108];
    const middle = count === 3 ? HEIGHT / 2 + 26 : HEIGHT / 2 - 10;
    places.set(node.id, { x: WIDTH / 2 + wide * Math.cos(angle), y: middle + high * Math.sin(angle) });
  });
  return places;
}

/**
 * The node with what was measured on its line to the leader. Contact and round trip are between a node and the one that
 * answers, so they belong to this line only where it ends at the one that answers.
 */
function measured(node, { nodes, cluster, answered_by: answeredBy }) {
  if (answeredBy === cluster.leader_id) return node;
  const leader = node.id === answeredBy ? nodes.find((one) => one.id === cluster.leader_id) : null;
  return { ...node, last_contact_ms: leader?.last_contact_ms ?? null, round_trip_ms: leader?.round_trip_ms ?? null };
}

function edge(from, to, node, isBare) {
  const state = linkState(node);
  const line = drawing("line", { x1: from.x, y1: from.y, x2: to.x, y2: to.y });
  const attributes = { class: `edge ${state}`, "data-key": `edge ${node.id}` };
  if (isBare) return drawing("g", attributes, line);
  const along = 0.54;
  const [x, y] = [from.x + (to.x - from.x) * along, from.y + (to.y - from.y) * along];
  const texts = state === "lost" ? ["not reachable"] : [lagOf(node)];
  if (state !== "lost" && node.round_trip_ms !== null) texts.push(milliseconds(node.round_trip_ms));
  const width = Math.max(...texts.map((text) => text.length)) * 6.4 + 10;
  return drawing(
    "g",
    attributes,
    line,
    drawing("rect", { x: x - width / 2, y: y - texts.length * 7.5, width, height: texts.length * 15, rx: 4 }),
    texts.map((text, row) => drawing("text", { x, y: y + 4 + (row - (texts.length - 1) / 2) * 13 }, text)),
  );
}

function lagOf(node) {
  return `lag ${whole(node.lag_entries)}`;
}

/** lost, late or good. */
function linkState(node) {
  if (!node.reachable) return "lost";
  return (node.lag_entries ?? 0) > LAG_MAX || (node.last_contact_ms ?? 0) > CONTACT_MAX_MS ? "late" : "good";
}

function circle({ x, y }, node, state, hasLag) {
  const classes = ["map-node", node.role, node.votes ? "votes" : "", node.reachable ? "" : "lost"].join(" ");
  return drawing(
    "g",
    { class: classes, "data-key": `node ${node.id}` },
    node.id === state.answered_by ? drawing("circle", { cx: x, cy: y, r: RADIUS + 5, class: "here" }) : null,
    drawing("circle", { cx: x, cy: y, r: RADIUS, class: "body" }),
    drawing("text", { x, y: y + 6, class: "map-id" }, String(node.id)),
    drawing("text", { x, y: y + RADIUS + 16, class: "map-role" }, hasLag && node.reachable ? `${node.role}, ${lagOf(node)}` : node.role),
  );
}

function legend() {
  const entries = [
    ["votes", "votes"],
    ["silent", "does not vote"],
    ["here", "shows this page"],
  ];
  return element(
    "p",
    { class: "legend", "aria-hidden": true },
    entries.map(([name, text]) => element("span", {}, element("i", { class: `key ${name}` }), text)),
  );
}

function inWords({ cluster, nodes }) {
  const leads = cluster.leader_id === null ? "No node leads." : `Node ${cluster.leader_id} leads.`;
  const each = nodes.map((node) => `Node ${node.id}: ${node.role}, ${node.votes ? "votes" : "does not vote"}.`);
  return `Map of the cluster. ${leads} ${each.join(" ")}`;
}
