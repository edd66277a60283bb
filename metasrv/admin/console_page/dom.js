// Making and updating elements. What other machines wrote becomes text nodes and attributes, never markup.
// Events are delegated: an element names its action in data-action, so that an update keeps no stale handlers.

const SVG = "http://www.w3.org/2000/svg";

/** An HTML element; attributes that are null, undefined or false are left out, true is an empty attribute; aria-… take both. */
export function element(tag, attributes = {}, ...children) {
  return filled(document.createElement(tag), attributes, children);
}

/** An SVG element, with the same rules. */
export function drawing(tag, attributes = {}, ...children) {
  return filled(document.createElementNS(SVG, tag), attributes, children);
}

function filled(made, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    const isState = name.startsWith("aria-"); // its false says something, its empty text nothing
    if (value === null || value === undefined || (value === false && !isState)) continue;
    made.setAttribute(name, value === true && !isState ? "" : String(value));
  }
  made.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return made;
}

/** A sentence as children of an element; what stands between backticks becomes code. */
export function withCode(text) {
  const parts = text.split("`");
  if (parts.length % 2 === 0) return [text];
  return parts.map((part, position) => (position % 2 ? element("code", {}, part) : part));
}

/** The element with this id. */
export function byId(id) {
  return document.getElementById(id);
}

/**
 * Make the children of `target` look like `children`, and keep what is the same: focus, scrolling, selected text, opened
 * details. An element with data-kept owns its content; data-key tells elements apart that move.
 */
export function update(target, ...children) {
  const wanted = document.createElement("div");
  wanted.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  updateChildren(target, wanted);
}

function updateChildren(target, wanted) {
  const keyed = new Map();
  for (const child of target.children) if (child.dataset.key) keyed.set(child.dataset.key, child);
  let current = target.firstChild;
  for (const next of [...wanted.childNodes]) {
    const key = next.dataset?.key;
    const found = key ? keyed.get(key) : current && !current.dataset?.key ? current : null;
    if (found && isAlike(found, next)) {
      if (found === current) current = current.nextSibling;
      else target.insertBefore(found, current);
      updateNode(found, next);
    } else {
      target.insertBefore(next, current);
    }
  }
  while (current) {
    const after = current.nextSibling;
    current.remove();
    current = after;
  }
}

function isAlike(found, next) {
  return found.nodeType === next.nodeType && found.nodeName === next.nodeName;
}

function updateNode(found, next) {
  if (found.nodeType === Node.TEXT_NODE) {
    if (found.nodeValue !== next.nodeValue) found.nodeValue = next.nodeValue;
    return;
  }
  for (const { name, value } of next.attributes) {
    if (found.getAttribute(name) !== value) found.setAttribute(name, value);
  }
  for (const { name } of [...found.attributes]) {
    const isReadersChoice = name === "open" && found.nodeName === "DETAILS";
    if (!isReadersChoice && !next.hasAttribute(name)) found.removeAttribute(name);
  }
  if (!("kept" in next.dataset)) updateChildren(found, next);
}

/** Call `handlers[name](element, event)` for an event of `type` at an element whose data-action is `name`. */
export function delegate(type, handlers) {
  document.addEventListener(type, (event) => {
    const source = event.target instanceof Element ? event.target.closest("[data-action]") : null;
    const handler = source && handlers[source.dataset.action];
    if (handler) handler(source, event);
  });
}
