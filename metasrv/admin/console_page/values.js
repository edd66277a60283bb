// A record's value in the form a reader wants: text, JSON, the fields of a protobuf message, or hexadecimal.

import { element } from "./dom.js";
import { fieldsOf, textOf } from "./protobuf.js";

const BYTES_IN_A_ROW = 16;

export function bytesOf(base64) {
  return Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
}

/** The forms that fit these bytes, the best one first: [{name, show}]. */
export function formsOf(data) {
  const text = textOf(data);
  const json = text === null ? undefined : parsed(text);
  const fields = data.length ? fieldsOf(data) : null;
  const forms = [];
  if (json !== undefined && typeof json === "object") {
    forms.push({ name: "JSON", show: () => block(JSON.stringify(json, null, 2)) });
  }
  if (text !== null) forms.push({ name: "Text", show: () => block(text) });
  if (fields !== null && fields.length) forms.push({ name: "Protobuf", show: () => element("div", { class: "fields" }, tree(fields)) });
  forms.push({ name: "Hex", show: () => block(hexadecimal(data)) });
  return forms;
}

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

function block(text) {
  return element("pre", { tabindex: 0 }, text || "(empty)");
}

function tree(fields) {
  return element(
    "ul",
    {},
    fields.map((field) =>
      element("li", {}, element("b", {}, String(field.number)), " ", element("span", { class: "quiet" }, field.kind), " ", shown(field)),
    ),
  );
}

function shown({ kind, value, number64, number32 }) {
  if (kind === "message") return value.length ? tree(value) : "(empty)";
  if (kind === "text") return element("span", { class: "text" }, value === "" ? "(empty)" : value);
  if (kind === "bytes") return element("code", {}, [...value].map((byte) => hex(byte)).join(" "));
  const float = number64 ?? number32;
  return float === undefined ? String(value) : `${value} (as a number ${float})`;
}

function hex(byte) {
  return byte.toString(16).padStart(2, "0");
}

/** As hexdump -C writes it. */
export function hexadecimal(data) {
  const rows = [];
  for (let at = 0; at < data.length; at += BYTES_IN_A_ROW) {
    const row = [...data.subarray(at, at + BYTES_IN_A_ROW)];
    const digits = row.map(hex).join(" ").padEnd(BYTES_IN_A_ROW * 3 - 1);
    const characters = row.map((byte) => (byte >= 32 && byte < 127 ? String.fromCharCode(byte) : ".")).join("");
    rows.push(`${at.toString(16).padStart(6, "0")}  ${digits}  ${characters}`);
  }
  return rows.join("\n");
}
