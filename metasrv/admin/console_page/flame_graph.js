// A flame graph from folded stacks (`main;work 42`, root first): zoom with a click, search by words. Of a difference each
// line has the values of both moments (`main;work 42 50`): a box is as wide as the larger, red for more, blue for less.

import { element } from "./dom.js";
import { number } from "./format.js";

const SHARE_MIN = 0.001; // narrower boxes cannot be seen or hit
const ROW_PIXELS = 19;
const DEPTH_MAX = 200;

/** The tree of all stacks: {name, value, before, after, children: Map, parent}. */
export function treeOf(folded, isDifference = false) {
  const made = (name, parent) => ({ name, value: 0, before: 0, after: 0, children: new Map(), parent });
  const root = made("all", null);
  const form = isDifference ? /^(.+) (\d+) (\d+)$/ : /^(.+) (\d+)$/;
  for (const line of folded.split("\n")) {
    const [, stack, first, second = first] = form.exec(line) ?? [];
    const [before, after] = [Number(first), Number(second)];
    const value = Math.max(before, after);
    if (!stack || !(value > 0)) continue;
    const path = [root];
    for (const name of stack.split(";").slice(0, DEPTH_MAX)) {
      const box = path[path.length - 1];
      if (!box.children.has(name)) box.children.set(name, made(name, box));
      path.push(box.children.get(name));
    }
    for (const box of path) {
      box.value += value;
      box.before += before;
      box.after += after;
    }
  }
  return root;
}

/** The graph with its search field; `show(value)` gives a value with its unit. */
export function flameGraph(folded, show, isDifference = false) {
  const root = treeOf(folded, isDifference);
  if (root.value === 0) return element("p", { class: "quiet" }, "No samples were taken: the process was idle.");
  return new FlameGraph(root, show, isDifference).element;
}

class FlameGraph {
  #root;
  #show;
  #isDifference;
  #zoomed;
  #words = "";
  #graph = element("div", { class: "flames" });
  #detail = element("p", { class: "flame-detail", "aria-live": "polite" });
  #found = element("span", { class: "quiet", role: "status" });

  constructor(root, show, isDifference) {
    this.#root = root;
    this.#isDifference = isDifference;
    this.#zoomed = root;
    this.#show = show;
    const search = element("input", { type: "search", placeholder: "Search functions", "aria-label": "Search functions" });
    const reset = element("button", { type: "button", class: "button" }, "Show all");
    search.addEventListener("input", () => {
      this.#words = search.value.trim().toLowerCase();
      this.#draw();
    });
    reset.addEventListener("click", () => this.#zoom(this.#root));
    for (const type of ["pointerover", "focusin"]) {
      this.#graph.addEventListener(type, (event) => this.#describe(event.target.closest("button")?.box));
    }
    this.element = element("div", {}, element("div", { class: "row" }, search, reset, this.#found), this.#graph, this.#detail);
    this.#zoom(root);
  }

  #zoom(box) {
    this.#zoomed = box;
    this.#draw();
    this.#describe(box);
  }

  #describe(box) {
    if (!box) return;
    if (this.#isDifference) {
      const change = `${box.after < box.before ? "−" : "+"}${this.#show(Math.abs(box.after - box.before))}`;
      this.#detail.textContent = `${box.name} · ${this.#show(box.before)} before, ${this.#show(box.after)} now: ${change}`;
      return;
    }
    const share = number((100 * box.value) / this.#root.value);
    this.#detail.textContent = `${box.name} · ${this.#show(box.value)} · ${share} %`;
  }

  #draw() {
    const boxes = [];
    let depth = 0;
    const chain = [];
    for (let box = this.#zoomed.parent; box; box = box.parent) chain.unshift(box);
    for (const box of chain) boxes.push({ box, left: 0, share: 1, depth: depth++, isAbove: true });
    this.#place(this.#zoomed, 0, 1, depth, boxes);
    this.#graph.style.height = `${(Math.max(...boxes.map((placed) => placed.depth)) + 1) * ROW_PIXELS}px`;
    this.#graph.replaceChildren(...boxes.map((placed) => this.#button(placed)));
    this.#count();
  }

  #place(box, left, share, depth, boxes) {
    boxes.push({ box, left, share, depth, isAbove: false });
    let start = left;
    const children = [...box.children.values()].sort((a, b) => (a.name < b.name ? -1 : 1));
    for (const child of children) {
      const part = (share * child.value) / box.value;
      if (part >= SHARE_MIN) this.#place(child, start, part, depth + 1, boxes);
      start += part;
    }
  }

  #button({ box, left, share, depth, isAbove }) {
    const made = element("button", { type: "button", class: `flame ${this.#isDifference ? change(box) : `shade-${shade(box.name)}`}`, title: box.name }, box.name);
    made.classList.toggle("above", isAbove);
    made.classList.toggle("found", this.#isFound(box));
    made.style.left = `${left * 100}%`;
    made.style.width = `${share * 100}%`;
    made.style.top = `${depth * ROW_PIXELS}px`;
    made.box = box;
    made.addEventListener("click", () => this.#zoom(box));
    return made;
  }

  #isFound(box) {
    return this.#words !== "" && box.name.toLowerCase().includes(this.#words);
  }

  /** Each stack counts once, however often the words are in it. */
  #count() {
    const sum = (box) => (this.#isFound(box) ? box.value : [...box.children.values()].reduce((all, child) => all + sum(child), 0));
    const share = this.#words ? number((100 * sum(this.#root)) / this.#root.value) : null;
    this.#found.textContent = share === null ? "" : `${share} % of all samples`;
  }
}

/** Red for more, blue for less, in two strengths. */
function change({ before, after, value }) {
  const share = (after - before) / value;
  if (Math.abs(share) < 0.02) return "same";
  return `${share > 0 ? "more" : "less"}-${Math.abs(share) < 0.5 ? 0 : 1}`;
}

/** One of four shades, the same for each frame of a module. */
function shade(name) {
  const module = /\(([^:)]*)/.exec(name)?.[1] ?? name;
  let sum = 0;
  for (const character of module) sum = (sum * 31 + character.codePointAt(0)) % 9973;
  return sum % 4;
}
