"use strict";
// The script of every page: the table of samples, and the values under the pointer in a plot.
// Texts only ever become textContent, so nothing that a model wrote is markup.

const STEP = 25; // samples that are drawn at once
const LONG = 320; // characters from which a text is folded

function node(tag, text, className) {
  const made = document.createElement(tag);
  if (text) made.textContent = text;
  if (className) made.className = className;
  return made;
}

function signed(value, digits) {
  const text = Math.abs(value).toFixed(digits);
  return (Number(text) === 0 ? "" : value < 0 ? "-" : "+") + text;
}

// A text; folded where it is toxic or long. Of a prompt the end is shown, which was answered.
function textNode(text, toxic, atEnd, none) {
  if (!text.trim()) return node("p", none, "empty");
  const whole = node("p", text, "text");
  whole.dir = "auto";
  if (!toxic && text.length <= LONG) return whole;
  const box = node("details");
  const head = node("summary", "", toxic ? "toxic" : "");
  const letters = toxic ? [] : Array.from(text);
  const part = (atEnd ? letters.slice(-LONG) : letters.slice(0, LONG)).join("");
  const begin = node("span", toxic ? "Toxic text: show" : atEnd ? "\u2026 " + part : part + " \u2026", "begin");
  begin.dir = "auto";
  head.append(begin, node("span", toxic ? "Hide toxic text" : "Show less", "less"));
  box.append(head, whole);
  return box;
}

// Places of the scores that have a column.
const ordered = (data) => [...data.scores.keys()].filter((at) => data.scores[at].ordered);

function sampleRow(row, data, headings) {
  const line = node("tr");
  line.setAttribute("role", "row");
  const cell = (place, className) => {
    const made = line.appendChild(node("td", "", className));
    made.setAttribute("role", "cell");
    made.dataset.label = headings[place];
    return made;
  };
  const prompt = cell(0, "side");
  prompt.append(textNode(row.prompt, row.toxic[0], true, "(empty prompt)"));
  if (row.further.length) {
    const more = prompt.appendChild(node("details", "", "meta"));
    more.append(node("summary", "More of this sample"));
    for (const [name, value] of row.further) {
      const text = more.appendChild(node("p", name + ": " + value, "text"));
      text.dir = "auto";
    }
  }
  data.sides.forEach((side, place) => {
    const made = cell(1 + place, "side");
    made.append(textNode(row.responses[place], row.toxic[1 + place], false, "(empty response)"));
    const scores = data.scores.map(
      (score, at) => row.scores[at][place] === null ? "" : score.label + " " + row.scores[at][place].toFixed(score.digits));
    made.append(node("p", scores.filter(Boolean).join(" \u00b7 "), "meta"));
  });
  ordered(data).forEach((at, column) => {
    const score = data.scores[at];
    const change = row.changes[at];
    const sign = score.better === "higher" ? 1 : score.better === "lower" ? -1 : 0;
    const text = change === null ? "n/a" : data.signed ? signed(change, score.digits) : change.toFixed(score.digits);
    const direction = Math.sign(Number(text)) * sign; // what is shown as 0 has no colour
    const className = direction > 0 ? "better" : direction < 0 ? "worse" : "";
    cell(1 + data.sides.length + column, data.signed ? className : "").append(node("span", text));
  });
  return line;
}

// Search, order, toxic texts and "show more" over the rows in the JSON beside the table.
function samples(root) {
  const data = JSON.parse(root.querySelector("script").textContent);
  const body = root.querySelector("tbody");
  const more = root.querySelector("button.more");
  const search = root.querySelector("input[type=search]");
  const all = root.querySelector("input[type=checkbox]");
  const heads = Array.from(root.querySelectorAll("thead th"));
  const headings = heads.map((head) => head.dataset.name);
  const places = [-1, ...data.sides.map(() => null), ...ordered(data)]; // of each heading; -1: as in the data
  let order = { at: 0, way: data.signed ? "other" : "descending" }; // other: by size
  let rows = [];
  const words = data.rows.map(() => null);
  const matches = (row, wanted, at) => {
    words[at] = words[at] ?? [row.prompt, ...row.responses, ...row.further.flat()].join("\n").toLowerCase();
    return words[at].includes(wanted);
  };
  const draw = (upTo) => {
    const next = rows.slice(body.children.length, upTo).map((row) => sampleRow(row, data, headings));
    for (const line of next) for (const box of line.querySelectorAll("summary.toxic")) box.parentNode.open = all.checked;
    body.append(...next);
    more.hidden = body.children.length >= rows.length;
    const count = rows.length === data.rows.length ? rows.length : rows.length + " matching, of " + data.rows.length;
    root.querySelector("[role=status]").textContent = body.children.length + " shown of " + count + " samples";
  };
  const restart = () => {
    const wanted = search.value.trim().toLowerCase();
    rows = wanted ? data.rows.filter((row, at) => matches(row, wanted, at)) : data.rows.slice();
    const value = (row) => row.changes[order.at] ?? 0;
    if (order.way === "other") rows.sort((one, two) => Math.abs(value(two)) - Math.abs(value(one)));
    if (order.way === "ascending") rows.sort((one, two) => value(one) - value(two));
    if (order.way === "descending") rows.sort((one, two) => value(two) - value(one));
    heads.forEach((head, place) => {
      if (head.hasAttribute("aria-sort")) head.setAttribute("aria-sort", places[place] === order.at ? order.way : "none");
    });
    body.replaceChildren();
    draw(STEP);
  };
  heads.forEach((head, place) => head.querySelector("button")?.addEventListener("click", () => {
    const at = places[place];
    const ways = at === -1 ? ["ascending"] : data.signed ? ["other", "ascending", "descending"] : ["descending", "ascending"];
    const next = at === order.at ? ways[(ways.indexOf(order.way) + 1) % ways.length] : ways[0];
    order = { at, way: next };
    restart();
  }));
  search.addEventListener("input", restart);
  more.addEventListener("click", () => draw(body.children.length + 4 * STEP));
  all.addEventListener("change", () => {
    for (const box of body.querySelectorAll("summary.toxic")) box.parentNode.open = all.checked;
  });
  restart();
}

// The row of the table behind a plot that is nearest to the pointer.
function readout(figure) {
  const svg = figure.querySelector("svg");
  const shown = figure.querySelector(".readout");
  const [left, right, first, last, top, bottom] = figure.dataset.axis.split(" ").map(Number);
  const names = Array.from(figure.querySelectorAll("thead th"), (head) => head.textContent);
  const rows = Array.from(figure.querySelectorAll("tbody tr"));
  const line = document.createElementNS("http://www.w3.org/2000/svg", "line");
  for (const [name, value] of Object.entries({ y1: top, y2: bottom, stroke: "currentColor", opacity: 0 }))
    line.setAttribute(name, value);
  svg.append(line);
  const show = (event) => {
    const box = svg.getBoundingClientRect();
    const x = (event.clientX - box.left) * svg.viewBox.baseVal.width / box.width;
    const value = first + (x - left) / (right - left) * (last - first);
    const gap = (row) => Math.abs(Number(row.dataset.x) - value);
    const row = rows.reduce((best, one) => gap(one) < gap(best) ? one : best);
    const place = left + (Number(row.dataset.x) - first) / (last - first) * (right - left);
    line.setAttribute("x1", place);
    line.setAttribute("x2", place);
    line.setAttribute("opacity", 0.5);
    const cells = Array.from(row.children, (cell) => cell.textContent);
    shown.textContent = cells.map((cell, at) => cell && names[at] + " " + cell).filter(Boolean).join(", ");
  };
  svg.addEventListener("pointermove", show);
  svg.addEventListener("pointerdown", show); // a finger's touch
}

document.querySelectorAll(".samples").forEach(samples);
document.querySelectorAll("figure[data-axis]").forEach(readout);
