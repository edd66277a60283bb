// The last 15 minutes as small charts with one time axis: hovering, touching or the arrow keys show the values of one moment
// in all of them. Where a value is not known, the line has a gap.

import { drawing, element } from "./dom.js";
import { bytes, duration, milliseconds, number, timeOfDay, UNKNOWN } from "./format.js";
import { lengthOf } from "./model.js";

const WIDTH = 450;
const HEIGHT = 80;
const DASH = 5; // of a value without neighbours
const rate = (value) => (value === null || value === undefined ? UNKNOWN : `${number(value)}/s`);

const CHARTS = [
  { title: "Requests", format: rate, lines: [["writes_per_second", "writes"], ["reads_per_second", "reads"]] },
  {
    title: "Latency",
    format: milliseconds,
    lines: [["write_p99_ms", "write p99"], ["write_p50_ms", "write p50"], ["read_p99_ms", "read p99"]],
  },
  { title: "Log sync", format: milliseconds, lines: [["sync_ms", "sync"]] },
  { title: "Commands in a batch", format: number, lines: [["batch_commands", "commands"]] },
  { title: "Event loop lag", format: milliseconds, lines: [["loop_lag_ms", "lag"]] },
  { title: "Memory", format: bytes, isBytes: true, lines: [["memory_bytes", "resident"]] },
  { title: "On disk", format: bytes, isBytes: true, lines: [["database_bytes", "database"], ["log_bytes", "log"]] },
  { title: "Clients", format: number, lines: [["connections", "connections"], ["watchers", "watchers"]] },
];

export class Charts {
  #parts;
  #model;
  #position = null;

  constructor(target, model) {
    this.#model = model;
    this.#parts = CHARTS.map((chart) => part(chart));
    target.append(...this.#parts.map(({ root }) => root));
    for (const { plot } of this.#parts) {
      plot.addEventListener("pointermove", (event) => this.#point(event, plot));
      plot.addEventListener("pointerleave", () => this.#look(null));
      plot.addEventListener("blur", () => this.#look(null));
      plot.addEventListener("keydown", (event) => this.#step(event));
    }
  }

  show() {
    const length = lengthOf(this.#model.history);
    for (const made of this.#parts) draw(made, this.#model.history.series, length);
    this.#look(this.#position);
  }

  #point(event, plot) {
    const box = plot.getBoundingClientRect();
    const last = lengthOf(this.#model.history) - 1;
    const share = Math.min(1, Math.max(0, (event.clientX - box.left) / box.width));
    this.#look(last < 0 ? null : Math.round(share * last));
  }

  #step(event) {
    const last = lengthOf(this.#model.history) - 1;
    const steps = { ArrowLeft: -1, ArrowRight: 1, PageUp: -15, PageDown: 15, Home: -Infinity, End: Infinity };
    if (!(event.key in steps) || last < 0) {
      if (event.key === "Escape") this.#look(null);
      return;
    }
    event.preventDefault();
    this.#look(Math.min(last, Math.max(0, (this.#position ?? last) + steps[event.key])));
  }

  /** Show the values of one moment, or the newest ones with null. */
  #look(position) {
    const { series, start_ms: startMs, step_ms: stepMs } = this.#model.history;
    const last = lengthOf(this.#model.history) - 1;
    this.#position = position === null || last < 0 ? null : Math.min(position, last);
    const at = this.#position ?? last;
    for (const { chart, values, cursor, start, moment, plot } of this.#parts) {
      chart.lines.forEach(([name], row) => {
        values[row].textContent = chart.format(series[name]?.[at] ?? null);
      });
      cursor.toggleAttribute("hidden", this.#position === null);
      const x = last > 0 ? (at / last) * WIDTH : 0;
      cursor.setAttribute("x1", x);
      cursor.setAttribute("x2", x);
      start.textContent = last > 0 ? `${duration((last + 1) * stepMs)} ago` : "";
      moment.textContent = last < 0 ? "no values yet" : this.#position === null ? "now" : timeOfDay(startMs + at * stepMs);
      const said = chart.lines.map(([name, label]) => `${label} ${chart.format(series[name]?.[at] ?? null)}`);
      plot.setAttribute("aria-label", `${chart.title}, ${moment.textContent}: ${said.join(", ")}`);
    }
  }
}

/** The elements of one chart. */
function part(chart) {
  const values = chart.lines.map(() => element("b", {}, UNKNOWN));
  const paths = chart.lines.map((_, row) => drawing("path", { class: `line line-${row}` }));
  const cursor = drawing("line", { class: "cursor", y1: 0, y2: HEIGHT, hidden: true });
  const top = element("span", { class: "scale-top" });
  const start = element("span");
  const moment = element("span", {}, "now");
  const grid = [0.5, HEIGHT / 2, HEIGHT - 0.5].map((y) => drawing("line", { class: "grid", x1: 0, x2: WIDTH, y1: y, y2: y }));
  const plot = drawing(
    "svg",
    { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", tabindex: 0, role: "img", class: "plot" },
    grid,
    paths,
    cursor,
  );
  const root = element(
    "article",
    { class: "card chart" },
    element("h3", {}, chart.title),
    element(
      "p",
      { class: "series" },
      chart.lines.map(([, label], row) =>
        element("span", {}, element("i", { class: `swatch line-${row}`, "aria-hidden": true }), `${label} `, values[row]),
      ),
    ),
    element("div", { class: "plot-area" }, top, plot),
    element("p", { class: "axis", "aria-hidden": true }, start, moment),
  );
  return { chart, root, plot, values, paths, cursor, top, start, moment };
}

function draw({ chart, paths, top, root }, series, length) {
  const all = chart.lines.flatMap(([name]) => series[name] ?? []).filter((value) => value !== null);
  const highest = scaleTop(Math.max(0, ...all), chart.isBytes);
  chart.lines.forEach(([name], row) => paths[row].setAttribute("d", pathOf(series[name] ?? [], length, highest)));
  top.textContent = all.length ? chart.format(highest) : "";
  root.classList.toggle("empty", all.length === 0);
}

/** A round number that is not below the largest value; of bytes a power of two. */
export function scaleTop(largest, isBytes = false) {
  if (largest <= 0) return 1;
  if (isBytes) return 2 ** Math.ceil(Math.log2(largest));
  const power = 10 ** Math.floor(Math.log10(largest));
  return [1, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10].map((step) => step * power).find((step) => step >= largest * 0.999999);
}

/** An SVG path with a gap for each null; a value alone between gaps is a short dash. */
export function pathOf(points, length, highest) {
  const step = length > 1 ? WIDTH / (length - 1) : 0;
  const parts = [];
  let isOpen = false;
  points.forEach((value, position) => {
    if (value === null) {
      isOpen = false;
      return;
    }
    const x = (position * step).toFixed(1);
    const y = (HEIGHT - 1.5 - (Math.max(0, value) / highest) * (HEIGHT - 3)).toFixed(1);
    const isAlone = !isOpen && (points[position + 1] ?? null) === null;
    const left = Math.min(Math.max(0, x - DASH / 2), WIDTH - DASH).toFixed(1);
    parts.push(isAlone ? `M${left} ${y}h${DASH}` : `${isOpen ? "L" : "M"}${x} ${y}`);
    isOpen = true;
  });
  return parts.join("");
}
