// Values as a person reads them; null and undefined become a dash. Pure.

export const UNKNOWN = "–";

const WHOLE = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const UNITS = ["B", "KiB", "MiB", "GiB", "TiB"];

function isKnown(value) {
  return typeof value === "number" && Number.isFinite(value);
}

/** 1234567 as 1,234,567. */
export function whole(value) {
  return isKnown(value) ? WHOLE.format(value) : UNKNOWN;
}

/** Three digits that count: 0.42, 4.2, 42, 4,200. */
export function number(value) {
  if (!isKnown(value)) return UNKNOWN;
  const size = Math.abs(value);
  if (size >= 100 || Number.isInteger(value)) return WHOLE.format(value);
  return String(Number(value.toFixed(size >= 10 ? 1 : 2)));
}

export function bytes(value) {
  if (!isKnown(value)) return UNKNOWN;
  let scaled = value;
  let unit = 0;
  while (Math.abs(scaled) >= 1024 && unit < UNITS.length - 1) {
    scaled /= 1024;
    unit += 1;
  }
  return `${unit === 0 ? WHOLE.format(scaled) : number(scaled)} ${UNITS[unit]}`;
}

export function bytesPerSecond(value) {
  return isKnown(value) ? `${bytes(value)}/s` : UNKNOWN;
}

/** A short time: 0.42 ms, 850 ms, 12 s, 3 min. */
export function milliseconds(value) {
  if (!isKnown(value)) return UNKNOWN;
  const size = Math.abs(value);
  if (size < 1000) return `${number(value)} ms`;
  if (size < 120_000) return `${number(value / 1000)} s`;
  return duration(value);
}

/** A long time, in its two largest units: 3 d 4 h. */
export function duration(value) {
  if (!isKnown(value)) return UNKNOWN;
  const seconds = Math.max(0, Math.floor(value / 1000));
  const parts = [
    [Math.floor(seconds / 86_400), "d"],
    [Math.floor(seconds / 3600) % 24, "h"],
    [Math.floor(seconds / 60) % 60, "min"],
    [seconds % 60, "s"],
  ];
  const first = parts.findIndex(([count]) => count > 0);
  if (first < 0) return "0 s";
  return parts
    .slice(first, first + 2)
    .filter(([count]) => count > 0)
    .map(([count, unit]) => `${count} ${unit}`)
    .join(" ");
}

/** +1.2 ms or −300 ms. */
export function offset(value) {
  if (!isKnown(value)) return UNKNOWN;
  const sign = value > 0 ? "+" : value < 0 ? "−" : "±";
  return `${sign}${milliseconds(Math.abs(value))}`;
}

/** The local time of day, with seconds. */
export function timeOfDay(wallMs) {
  return isKnown(wallMs) ? new Date(wallMs).toLocaleTimeString("en-GB") : UNKNOWN;
}

export function dateAndTime(wallMs) {
  if (!isKnown(wallMs)) return UNKNOWN;
  const moment = new Date(wallMs);
  const two = (value) => String(value).padStart(2, "0");
  const date = `${moment.getFullYear()}-${two(moment.getMonth() + 1)}-${two(moment.getDate())}`;
  return `${date} ${timeOfDay(wallMs)}`;
}

/** `one node`, `3 nodes`. */
export function counted(count, singular, plural = `${singular}s`) {
  return count === 1 ? `one ${singular}` : `${whole(count)} ${plural}`;
}

/** `1, 2 and 3`. */
export function listed(parts) {
  if (parts.length < 2) return parts.join("");
  return `${parts.slice(0, -1).join(", ")} and ${parts[parts.length - 1]}`;
}
