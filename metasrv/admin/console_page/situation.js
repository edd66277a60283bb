// What the cluster's state means, in words: the sentence at the top of the page and the notices below it. Pure.

import { counted, listed } from "./format.js";

/** The node that answered, as the state describes it. */
export function answering(state) {
  return state.nodes.find((node) => node.id === state.answered_by) ?? null;
}

/** `tone` is ok, warning, critical or unknown. */
export function situationOf(state) {
  const { cluster, nodes } = state;
  const own = answering(state);
  const voters = nodes.filter((node) => node.votes);
  const reachable = voters.filter((node) => node.reachable);
  const majority = Math.floor(cluster.voters.length / 2) + 1;
  if (own?.role === "removed") {
    return {
      tone: "critical",
      title: `Node ${own.id} is no longer a member of this cluster`,
      text: "It serves no requests. Stop it, or empty its data directory and let it join again. The cluster goes on without it, at these nodes:",
    };
  }
  if (cluster.voters.length === 0) {
    const text = cluster.waiting_for ? `What it waits for: ${cluster.waiting_for}.` : "It has to begin one or join one; its log says what it tries.";
    return { tone: "warning", title: "This node does not belong to a cluster yet", text };
  }
  if (cluster.leader_id === null && reachable.length < majority) {
    const missing = majority - reachable.length;
    return {
      tone: "critical",
      title: `No majority: ${reachable.length} of ${cluster.voters.length} voters ${reachable.length === 1 ? "answers" : "answer"}`,
      text:
        `This node refuses writes and consistent reads until it hears ${counted(missing, "more voter")}. No acknowledged write is lost. ` +
        "If only this node is cut off, the others go on without it, and say so on their pages:",
    };
  }
  if (cluster.leader_id === null) {
    return {
      tone: "critical",
      title: "No leader",
      text: "A majority answers, so an election should end within seconds. Until then writes are refused.",
    };
  }
  if (cluster.read_only) {
    return {
      tone: "warning",
      title: "The cluster is read-only",
      text: `Writes are refused, reads are answered. ${sentence(cluster.tolerance_text)}. ${leadership(cluster, nodes)}`,
    };
  }
  return {
    tone: toneOf(state),
    title: sentence(cluster.tolerance_text),
    text: leadership(cluster, nodes),
  };
}

/** Nothing is shown in green while there is a problem, whatever the tolerance. */
function toneOf({ cluster: { failure_tolerance: tolerance, voters }, problems }) {
  if (problems.length) return "warning";
  if (tolerance === null) return "unknown";
  return tolerance > 0 || voters.length === 1 ? "ok" : "warning";
}

function leadership({ leader_id: leaderId, voters, learners, term }, nodes) {
  const answer = nodes.filter((node) => node.votes && node.reachable).length;
  const parts = [`Node ${leaderId} leads in term ${term}.`];
  if (voters.length === 1) parts.push("It is the only voter, so there is no second copy.");
  else parts.push(`${answer} of ${voters.length} voters answer.`);
  if (learners.length === 1) parts.push(`Node ${learners[0]} is a learner: it has a copy and does not vote.`);
  else if (learners.length) parts.push(`${learners.length} learners have copies and do not vote.`);
  return parts.join(" ");
}

/** Whether other nodes may know more than this one: it was removed, or hears too few of them. */
export function isCutOff(state) {
  const voters = state.nodes.filter((node) => node.votes);
  const heard = voters.filter((node) => node.reachable).length;
  return answering(state)?.role === "removed" || (voters.length > 0 && 2 * heard <= voters.length);
}

/** What else a reader has to know about the node or the cluster; each is a sentence with its tone. */
export function noticesOf(state, missingNodes) {
  const own = answering(state);
  const notices = [];
  if (own?.role === "learner") {
    const text = `Node ${own.id}, which shows this page, is a learner: it has a copy of everything and does not vote.`;
    notices.push({ tone: "info", text });
  }
  if (own?.role === "removed") {
    return [{ tone: "info", text: "Nobody tells a removed node anything: what it shows of the others is what it knew last." }];
  }
  const unreachable = state.nodes.filter((node) => !node.reachable && node.role !== "removed").map((node) => node.id);
  const told = new Set(state.problems.map((problem) => problem.node_id));
  const untold = unreachable.filter((id) => !told.has(id));
  if (untold.length) {
    const does = untold.length === 1 ? "does" : "do";
    const whose = untold.length === 1 ? "Its values are" : "Their values are";
    const text = `${nodesNamed(untold)} ${does} not answer node ${state.answered_by}. ${whose} the last known ones.`;
    notices.push({ tone: "warning", text });
  }
  const silent = missingNodes.filter((id) => !unreachable.includes(id));
  if (silent.length) notices.push({ tone: "info", text: `The events of ${nodesNamed(silent).toLowerCase()} are missing.` });
  return notices;
}

function nodesNamed(ids) {
  return `${ids.length === 1 ? "Node" : "Nodes"} ${listed(ids.map(String))}`;
}

function sentence(text) {
  if (!text) return "The failure tolerance is not known";
  return text.charAt(0).toUpperCase() + text.slice(1);
}
