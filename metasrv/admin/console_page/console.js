// The console: connects the stream of this node with the parts of the page.

import { askFor, showActions } from "./actions.js";
import { describedPaths, useToken } from "./api.js";
import { Charts } from "./charts.js";
import { showMap } from "./cluster_map.js";
import { closeDialog, watchDialog } from "./dialogs.js";
import { byId, delegate, element, update } from "./dom.js";
import { Events } from "./events.js";
import { showFirstSteps } from "./first_steps.js";
import { showKeys, showRecord } from "./keys.js";
import { openMinute, watchMinutes } from "./minutes.js";
import { Model } from "./model.js";
import { showNodes } from "./node_cards.js";
import { announcementOf, showProblems, showVerdict, summaryOf } from "./overview.js";
import { openLinkedRunbook, watchRunbooks } from "./runbooks.js";
import { showShortcuts, watchShortcuts } from "./shortcuts.js";
import { Live } from "./stream.js";
import { applyTheme, nextTheme } from "./theme.js";
import { showTokenForm, watchTokenForm } from "./token_form.js";
import { showWrites } from "./writes.js";

const model = new Model();
const live = new Live(take, setConnection);
const charts = new Charts(byId("chart-list"), model);
const events = new Events(model);
let paths = null;

/** One message of the stream: show the part that it changed. */
function take(message) {
  if (model.connection !== "live") setConnection("live", null);
  const changed = model.take(message);
  if (changed === "state") showState();
  if (changed === "history") charts.show();
  if (changed === "events") {
    events.show();
    showTop();
  }
}

function setConnection(name, error) {
  model.connection = name;
  model.error = error?.message ?? "";
  document.body.dataset.connection = name;
  showTokenForm(name === "token", model.error);
  showTop();
  if (name === "live" && paths === null) learnPaths();
}

/** What the node offers to do; asked once, when it answers for the first time. */
async function learnPaths() {
  paths = {};
  paths = await describedPaths();
  if (model.state) showActions(byId("action-list"), model.state, paths);
  if (paths["/v1/profile/minutes"]) watchMinutes(byId("minutes"));
}

function showTop() {
  const { tone, text } = summaryOf(model);
  update(byId("summary"), element("span", { class: `dot ${tone}`, "aria-hidden": true }), text);
  const cluster = model.state?.cluster.name ?? model.known?.cluster ?? "";
  byId("cluster-name").textContent = cluster;
  document.title = `${tone === "critical" ? "● " : ""}${cluster || "metasrv"} · ${text}`;
  byId("verdict").hidden = model.connection === "token" && model.state === null;
  showVerdict(byId("verdict"), model);
  showProblems(byId("problems"), model);
}

function showState() {
  const { state } = model;
  document.body.dataset.state = "known";
  showTop();
  update(byId("announcement"), announcementOf(model));
  showFirstSteps(byId("first"), state);
  byId("cluster").hidden = state.nodes.length === 0;
  showMap(byId("map"), state);
  showNodes(byId("node-list"), state);
  showActions(byId("action-list"), state, paths ?? {});
  byId("answered-by").textContent = `node ${state.answered_by}`;
  events.show();
}

function forgetToken() {
  useToken("");
  location.reload();
}

async function copy(button) {
  try {
    await navigator.clipboard.writeText(button.dataset.text);
    button.textContent = "Copied";
  } catch {
    // Without a secure origin a browser gives no clipboard: select the command instead.
    getSelection().selectAllChildren(button.parentElement.querySelector("code"));
  }
}

delegate("click", {
  act: (button) => askFor(button.dataset.name, model.state),
  close: closeDialog,
  copy,
  events: (button) => events.loadMore(button),
  forget: forgetToken,
  minute: (button) => openMinute(button, model.state?.answered_by),
  keys: (button) => showKeys(button.dataset.prefix),
  reconnect: () => live.start(),
  record: (button) => showRecord(button.dataset.key),
  runbook: openLinkedRunbook,
  shortcuts: showShortcuts,
  theme: nextTheme,
  writes: (button) => showWrites(button.dataset.list),
});
byId("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  showKeys(byId("key-prefix").value);
});

applyTheme();
watchDialog();
watchRunbooks();
watchShortcuts();
watchTokenForm(() => live.start());
showTop();
live.start();
