import { api, chip, counted, el, percent, post, sheet, start, toast, typing, watch } from "./common.js";
import { Uploads } from "./uploads.js";

const STATES = ["", "new", "in_review", "unfit", "done"];
const KEYS = [
  ["↓ ↑ or j k", "next, previous cell"], ["Enter", "open it"], ["c", "open its case"], ["/", "search"],
  ["1 to 5", "all, new, in review, unfit, done"], ["a", "add images"], ["r", "import new predictions"], ["?", "this sheet"],
];
const STEP = 100;
const uploads = new Uploads();
let cells = [], total = 0, chosen = 0, state = "", words = "";

const main = document.getElementById("main");
const search = el("input", { type: "search", placeholder: "cell, case, karyotype, flag", size: 34, "aria-label": "search" });
const buttons = STATES.map((name, n) => el("button", { onclick: () => filter(name), title: `key ${n + 1}` }, name ? name.replace("_", " ") : "all"));
const body = el("tbody");
const count = el("span", { class: "pale" });
const more = el("button", { onclick: () => load(cells.length) }, "more");
const casesBody = el("tbody");
const figures = el("p", { class: "pale" });

function line(cell, n) {
  const flags = [...cell.flags.map((flag) => chip(flag, "warn")), ...(cell.touched ? [chip(`${cell.touched} corrected`)] : [])];
  const karyotype = cell.karyotype || (cell.reasons[0] ? "" : "none");
  return el("tr", { class: n === chosen ? "chosen" : "", "data-id": cell.id, onclick: () => open(cell) },
    el("td", { class: "name" }, el("a", { href: `/cell/${cell.id}`, title: cell.name }, cell.name)),
    el("td", { class: "name" }, cell.case_id ? el("a", { href: `/case/${cell.case_id}`, title: cell.case, onclick: (e) => e.stopPropagation() }, cell.case) : ""),
    el("td", { class: "state" }, chip(cell.state, cell.state), cell.confirmed ? el("div", { class: "pale" }, cell.confirmed) : ""),
    el("td", { class: "number" }, String(cell.count)),
    el("td", {}, el("span", { class: "karyotype" }, karyotype), ...cell.reasons.map((r) => el("div", { class: "pale" }, r))),
    el("td", { class: "number" }, percent(cell.confidence)),
    el("td", {}, ...flags.flatMap((f) => [f, " "])));
}

function draw() {
  body.replaceChildren(...cells.map(line));
  count.textContent = counted(total, "cell");
  more.hidden = cells.length >= total;
  buttons.forEach((button, n) => { button.className = STATES[n] === state ? "main" : ""; });
}

let asked = 0;
async function load(from = 0) {
  const own = asked += 1;
  const query = new URLSearchParams({ state, words, start: from, limit: STEP });
  const told = await api(`/cells?${query}`);
  if (own !== asked) return;  // the answer to an earlier question
  cells = from ? [...cells, ...told.cells] : told.cells;
  total = told.total;
  chosen = Math.min(chosen, Math.max(cells.length - 1, 0));
  draw();
}

async function loadCases() {
  const told = await api("/cases");
  casesBody.replaceChildren(...told.map((c) => el("tr", { onclick: () => { location.href = `/case/${c.id}`; } },
    el("td", { class: "name" }, el("a", { href: `/case/${c.id}` }, c.name)),
    el("td", {}, Object.entries(c.states).filter(([, n]) => n).map(([name, n]) => `${n} ${name.replace("_", " ")}`).join(", ")),
    el("td", {}, Object.entries(c.progress).map(([name, [n, wanted]]) => `${n}/${wanted} ${name}`).join(", ")),
    el("td", {}, c.locked ? chip("signed, locked", "done") : c.signed_by.length ? chip(`signed by ${c.signed_by[0]}`, "in_review") : ""))));
  const f = await api("/figures");
  figures.textContent = f.cells
    ? `${counted(f.cells, "cell")} analyzed; ${(100 * f.touched_share).toFixed(1)} % of ${f.chromosomes} chromosomes touched; ` +
      `${counted(f.untouched_cells, "cell")} as predicted` + (f.seconds_per_cell === null ? "" : `; ${Math.round(f.seconds_per_cell)} s a cell (median)`)
    : "No cell is analyzed yet.";
}

function filter(name) { state = name; chosen = 0; load(); }
function open(cell) { if (cell) location.href = `/cell/${cell.id}`; }
function move(step) {
  chosen = Math.max(0, Math.min(cells.length - 1, chosen + step));
  draw();
  body.children[chosen]?.scrollIntoView({ block: "nearest" });
}
async function refresh() {
  const told = await post("/refresh", {});
  toast(told.lines.join("; ") || "nothing new");
  await Promise.all([load(), loadCases()]);
}

let wait = 0;
search.addEventListener("input", () => {
  clearTimeout(wait);
  wait = setTimeout(() => { words = search.value; chosen = 0; load(); }, 200);
});
search.addEventListener("keydown", (event) => { if (event.key === "Escape" || event.key === "Enter") search.blur(); });
document.addEventListener("keydown", (event) => {
  if (typing(event) || event.ctrlKey || event.metaKey || event.altKey) return;
  const keys = {
    ArrowDown: () => move(1), ArrowUp: () => move(-1), j: () => move(1), k: () => move(-1), Enter: () => open(cells[chosen]),
    c: () => { if (cells[chosen]?.case_id) location.href = `/case/${cells[chosen].case_id}`; },
    "/": () => search.focus(), a: () => uploads.choose(), r: refresh, "?": () => sheet("Keys of the worklist", KEYS),
  };
  const action = keys[event.key] || (/^[1-5]$/.test(event.key) ? () => filter(STATES[event.key - 1]) : null);
  if (action) { event.preventDefault(); action(); }
});

const head = (...names) => el("thead", {}, el("tr", {}, ...names.map((n) => el("th", { class: /^(count|confidence)$/.test(n) ? "number" : "" }, n))));
await start();
main.append(
  uploads.place,
  el("section", { class: "card" }, el("h1", {}, "Cells: what needs attention first"),
    el("div", { class: "row" }, search, ...buttons, count, el("button", { onclick: refresh }, "Import new"), el("button", { onclick: () => sheet("Keys of the worklist", KEYS) }, "?")),
    el("table", { id: "cells" }, head("cell", "case", "state", "count", "karyotype", "confidence", "flags"), body), more),
  el("section", { class: "card" }, el("h1", {}, "Cases"), figures, el("table", { id: "cases" }, head("case", "cells", "confirmed", "signatures"), casesBody)));
await Promise.all([load(), loadCases(), uploads.start()]);
document.body.dataset.ready = "1";
watch((await api("/changes?after=2000000000")).seq, () => Promise.all([load(), loadCases()]));
