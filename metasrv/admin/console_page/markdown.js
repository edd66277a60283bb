// Markdown as elements, for the runbooks: headings, paragraphs, lists, code, tables, emphasis, links.
// Makes nodes and no markup, so that a text cannot bring elements of its own. Must not know the page.

import { element } from "./dom.js";

const ITEM = /^(\s*)([-*]|\d+[.)])\s+(.*)$/;
const FENCE = /^\s*(```|~~~)/;
const INLINE = /(`+)(.+?)\1|\*\*(.+?)\*\*|\*(?!\s)(.+?)\*|\[([^\]]+)\]\(([^)\s]+)\)/;

/** Nodes for `text`; `link(label, target)` makes what stands for a link. */
export function markdown(text, link) {
  return blocks(text.replace(/\r\n?/g, "\n").split("\n"), link);
}

function blocks(lines, link) {
  const made = [];
  let at = 0;
  while (at < lines.length) {
    const [node, next] = block(lines, at, link);
    if (node) made.push(node);
    at = next;
  }
  return made;
}

function block(lines, at, link) {
  const line = lines[at];
  if (!line.trim()) return [null, at + 1];
  if (FENCE.test(line)) return fenced(lines, at);
  if (/^( {4}|\t)/.test(line)) return indented(lines, at);
  const heading = /^(#{1,6})\s+(.*?)\s*#*$/.exec(line);
  if (heading) return [element(`h${Math.min(6, heading[1].length + 3)}`, {}, inline(heading[2], link)), at + 1];
  if (line.trimStart().startsWith("|")) return table(lines, at, link);
  if (ITEM.test(line)) return list(lines, at, link);
  return paragraph(lines, at, link);
}

function fenced(lines, at) {
  let end = at + 1;
  while (end < lines.length && !FENCE.test(lines[end])) end += 1;
  return [code(lines.slice(at + 1, end)), end + 1];
}

function indented(lines, at) {
  let end = at;
  while (end < lines.length && (/^( {4}|\t)/.test(lines[end]) || !lines[end].trim())) end += 1;
  return [code(lines.slice(at, end).map((line) => line.replace(/^( {4}|\t)/, ""))), end];
}

function code(lines) {
  return element("pre", { tabindex: 0 }, element("code", {}, lines.join("\n").trimEnd()));
}

function table(lines, at, link) {
  let end = at;
  while (end < lines.length && lines[end].trimStart().startsWith("|")) end += 1;
  const rows = lines
    .slice(at, end)
    .filter((line) => !/^\s*\|[\s:|-]+\|?\s*$/.test(line))
    .map((line) => line.trim().replace(/^\||\|$/g, "").split(/(?<!\\)\|/));
  const cells = (row, tag) => row.map((cell) => element(tag, {}, inline(cell.trim().replaceAll("\\|", "|"), link)));
  const made = element(
    "table",
    {},
    element("thead", {}, element("tr", {}, cells(rows[0] ?? [], "th"))),
    element("tbody", {}, rows.slice(1).map((row) => element("tr", {}, cells(row, "td")))),
  );
  return [element("div", { class: "scroll", tabindex: 0 }, made), end];
}

function list(lines, at, link) {
  const first = ITEM.exec(lines[at]);
  const margin = first[1].length;
  const isOrdered = /\d/.test(first[2]);
  const items = [];
  let end = at;
  while (end < lines.length) {
    const item = ITEM.exec(lines[end]);
    if (!item || item[1].length !== margin || /\d/.test(item[2]) !== isOrdered) break;
    const inside = [item[3]];
    const width = lines[end].length - item[3].length;
    end += 1;
    while (end < lines.length && belongs(lines, end, margin)) {
      inside.push(lines[end].replace(new RegExp(`^\\s{0,${width}}`), ""));
      end += 1;
    }
    items.push(element("li", {}, blocks(inside, link)));
  }
  return [element(isOrdered ? "ol" : "ul", isOrdered ? { start: parseInt(first[2], 10) } : {}, items), end];
}

/** Whether a line goes on with the item above it: deeper than its margin, or an empty line before such a line. */
function belongs(lines, at, margin) {
  const line = lines[at];
  if (line.trim()) return line.length - line.trimStart().length > margin;
  const next = lines.slice(at).find((later) => later.trim());
  return next !== undefined && next.length - next.trimStart().length > margin;
}

function paragraph(lines, at, link) {
  let end = at;
  const isEnd = (line) => !line.trim() || FENCE.test(line) || /^#{1,6}\s/.test(line) || ITEM.test(line);
  while (end < lines.length && (end === at || !isEnd(lines[end]))) end += 1;
  return [element("p", {}, inline(lines.slice(at, end).map((line) => line.trim()).join(" "), link)), end];
}

function inline(text, link) {
  const made = [];
  let rest = text;
  for (let found = INLINE.exec(rest); found; found = INLINE.exec(rest)) {
    made.push(rest.slice(0, found.index));
    if (found[2] !== undefined) made.push(element("code", {}, found[2]));
    else if (found[3] !== undefined) made.push(element("strong", {}, inline(found[3], link)));
    else if (found[4] !== undefined) made.push(element("em", {}, inline(found[4], link)));
    else made.push(link(found[5], found[6]));
    rest = rest.slice(found.index + found[0].length);
  }
  made.push(rest);
  return made.filter((part) => part !== "");
}
