// A cluster with nothing in it: the commands to try, with the addresses of this cluster.

import { element, update } from "./dom.js";
import { answering } from "./situation.js";

export function showFirstSteps(target, state) {
  target.hidden = !state.cluster.empty || state.cluster.leader_id === null;
  if (target.hidden) return;
  update(
    target,
    element("h2", { id: "first-title" }, "Nothing is stored yet"),
    element("p", { class: "quiet" }, "Three commands to try. Every node takes reads and writes."),
    element("ol", { class: "commands" }, commandsFor(state).map(command)),
  );
}

function commandsFor(state) {
  const own = answering(state);
  const grpc = own?.grpc_address ?? "127.0.0.1:9191";
  const other = state.nodes.find((node) => node.id !== own?.id && node.reachable && node.grpc_address)?.grpc_address ?? grpc;
  const leader = state.nodes.find((node) => node.id === state.cluster.leader_id);
  const next = state.nodes.find((node) => node.votes && node.reachable && node.id !== state.cluster.leader_id);
  const third =
    next && leader?.admin_address
      ? [`Move the leadership to node ${next.id}`, `metactl transfer-leader --admin-api-address ${bare(leader.admin_address)} --to ${next.id}`]
      : ["Look at the cluster", `metactl status --grpc-api-address ${grpc}`];
  return [
    ["Write a record", `metactl upsert --grpc-api-address ${grpc} --key greeting --value hello`],
    [other === grpc ? "Read it" : "Read it through another node", `metactl get --grpc-api-address ${other} --key greeting`],
    third,
  ];
}

function bare(address) {
  return address.replace(/^https?:\/\//, "").replace(/\/$/, "");
}

function command([title, text]) {
  return element(
    "li",
    {},
    element("span", {}, title),
    element(
      "div",
      { class: "command" },
      element("code", { tabindex: 0 }, text),
      element("button", { type: "button", class: "button", "data-action": "copy", "data-text": text, "aria-label": `Copy: ${title}` }, "Copy"),
    ),
  );
}
