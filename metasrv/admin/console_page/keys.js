// The key browser: folders of keys with counts and sizes, and one record. It only reads, and nothing before it is asked to.

import { getJson } from "./api.js";
import { byId, element } from "./dom.js";
import { bytes, dateAndTime, whole } from "./format.js";
import { bytesOf, formsOf } from "./values.js";

const DELIMITER = "/";

/** Show what is below a prefix. */
export async function showKeys(prefix) {
  const target = byId("key-list");
  byId("key-prefix").value = prefix;
  byId("key-record").replaceChildren();
  const query = new URLSearchParams({ prefix, delimiter: DELIMITER });
  try {
    const found = await getJson(`/v1/console/keys?${query}`);
    target.replaceChildren(trail(prefix), listing(prefix, found));
  } catch (error) {
    target.replaceChildren(refused(error));
  }
}

/** Show one record. */
export async function showRecord(key) {
  const target = byId("key-record");
  for (const button of document.querySelectorAll('#key-list [data-action="record"]')) {
    button.setAttribute("aria-current", String(button.dataset.key === key));
  }
  try {
    const query = new URLSearchParams({ key });
    target.replaceChildren(record(await getJson(`/v1/console/key?${query}`)));
  } catch (error) {
    target.replaceChildren(refused(error));
  }
}

function refused(error) {
  const text = error.status === 404 ? "This node offers no such record or no key browser." : error.message;
  return element("p", { class: "notice warning", role: "status" }, text);
}

/** The prefix as a path whose parts lead back. */
function trail(prefix) {
  const parts = prefix.split(DELIMITER).filter(Boolean);
  const steps = parts.map((part, position) => {
    const path = parts.slice(0, position + 1).join(DELIMITER) + DELIMITER;
    return ["/", folder(path, part)];
  });
  return element("p", { class: "trail" }, folder("", "All keys"), steps);
}

function folder(prefix, label) {
  return element("button", { type: "button", class: "link", "data-action": "keys", "data-prefix": prefix }, label);
}

function listing(prefix, { prefixes, records, more }) {
  if (!prefixes.length && !records.length) return element("p", { class: "quiet" }, "No key begins with this.");
  const head = ["Key", "Keys", "Size", "Seq", "Expires"].map((title) => element("th", { scope: "col" }, title));
  const rest = (name) => (name.startsWith(prefix) ? name.slice(prefix.length) : name) || name;
  const folders = prefixes.map((one) =>
    row(folder(one.prefix, rest(one.prefix)), whole(one.keys), bytes(one.bytes), "", ""),
  );
  const leaves = records.map((one) => {
    const attributes = { type: "button", class: "link", "data-action": "record", "data-key": one.key };
    const name = element("button", attributes, rest(one.key));
    return row(name, "", bytes(one.size_bytes), whole(one.seq), one.expires_at_ms === null ? "" : dateAndTime(one.expires_at_ms));
  });
  return element(
    "div",
    { class: "scroll" },
    element("table", {}, element("thead", {}, element("tr", {}, head)), element("tbody", {}, folders, leaves)),
    more ? element("p", { class: "quiet" }, "There are more; a longer prefix shows the rest.") : null,
  );
}

function row(name, ...values) {
  return element("tr", {}, element("td", {}, name), values.map((value) => element("td", { class: "value" }, value)));
}

function record({ key, seq, meta, expires_at_ms: expiresAtMs, size_bytes: sizeBytes, value_base64: base64, truncated }) {
  const forms = formsOf(bytesOf(base64 ?? ""));
  const content = element("div", { class: "value-form" }, forms[0].show());
  const choices = forms.map(({ name }, position) =>
    element("button", { type: "button", class: "choice", "aria-pressed": position === 0 }, name),
  );
  choices.forEach((choice, position) => {
    choice.addEventListener("click", () => {
      content.replaceChildren(forms[position].show());
      for (const other of choices) other.setAttribute("aria-pressed", String(other === choice));
    });
  });
  const facts = [
    ["Sequence number", whole(seq)],
    ["Size", bytes(sizeBytes)],
    ["Expires", expiresAtMs === null ? "never" : dateAndTime(expiresAtMs)],
    ["Meta", meta === null ? "none" : JSON.stringify(meta)],
  ];
  return element(
    "article",
    { class: "card record", "aria-label": `Record ${key}` },
    element("h3", {}, key),
    element("dl", { class: "values" }, facts.map(([name, value]) => element("div", {}, element("dt", {}, name), element("dd", {}, value)))),
    element("div", { class: "choices", role: "group", "aria-label": "Form of the value" }, choices),
    truncated ? element("p", { class: "notice warning" }, "The value is longer; only its beginning is shown.") : null,
    content,
  );
}
