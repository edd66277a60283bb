// Zoom and search of one flame graph. The places of the boxes are in their attributes, their names in their tooltips.
"use strict";
const MARGIN = 10;
const CHARACTER = 7;
const svg = document.documentElement;
const whole = svg.viewBox.baseVal.width - 2 * MARGIN;
const found = document.getElementById("found");
const search = document.getElementById("search");
const boxes = [...document.querySelectorAll("#boxes > g")].map((group) => {
  const [title, rect, text] = group.children;
  const [left, width, top] = ["x", "width", "y"].map((name) => Number(rect.getAttribute(name)));
  return { group, rect, text, left, width, top, name: title.textContent.split("\n")[0], color: rect.getAttribute("fill") };
});
/** Whether `other` is `box` or stands below it. */
function isWithin(other, box) {
  const middle = other.left + other.width / 2;
  return other.top >= box.top && middle > box.left && middle < box.left + box.width;
}

function zoom(target) {
  const scale = whole / target.width;
  for (const box of boxes) {
    const isAbove = isWithin(target, box);
    const isShown = isAbove || isWithin(box, target);
    box.group.setAttribute("display", isShown ? "inline" : "none");
    if (!isShown) continue;
    box.group.setAttribute("opacity", isAbove && box !== target ? "0.6" : "1");
    const left = isAbove ? MARGIN : MARGIN + (box.left - target.left) * scale;
    const width = isAbove ? whole : box.width * scale;
    box.rect.setAttribute("x", left);
    box.rect.setAttribute("width", width);
    box.text.setAttribute("x", left + 3);
    const characters = Math.floor((width - 4) / CHARACTER);
    const cut = box.name.length <= characters ? box.name : `${box.name.slice(0, characters - 2)}..`;
    box.text.textContent = characters < 3 ? "" : cut;
  }
}

/** Mark the boxes with these words; each stack counts once. */
function find() {
  const words = search.value.trim().toLowerCase();
  const hits = boxes.filter((box) => words && box.name.toLowerCase().includes(words));
  for (const box of boxes) box.rect.setAttribute("fill", box.color);
  for (const box of hits) box.rect.setAttribute("fill", "rgb(190,90,230)");
  const outer = hits.filter((box) => !hits.some((other) => other.top < box.top && isWithin(box, other)));
  const share = (100 * outer.reduce((sum, box) => sum + box.width, 0)) / whole;
  found.textContent = words ? `${hits.length} boxes, ${share.toFixed(1)} % of all` : "";
}

for (const box of boxes) {
  box.group.setAttribute("cursor", "pointer");
  box.group.addEventListener("click", () => zoom(box));
}
search.addEventListener("input", find);
