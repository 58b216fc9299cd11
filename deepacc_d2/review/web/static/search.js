import { api, counted, el, sheet, start, toast, typing } from "./common.js";

const names = ["", ...Array.from({ length: 22 }, (_, n) => String(n + 1)), "X", "Y", "mar", "?", "none"];
const KEYS = [["p, n", "what it was predicted as, what it is now: arrows or a number choose"], ["↓ ↑ or j k", "next, previous chromosome"], ["Enter", "open its cell, with it chosen"],
  ["m", "more"], ["h", "worklist"], ["?", "this sheet"]];
const select = (label) => el("select", { "aria-label": label }, ...names.map((n) => el("option", { value: n }, n || "any")));
const predicted = select("predicted"), current = select("now");
const body = el("tbody"), count = el("p", { class: "pale" });
const more = el("button", { onclick: () => load(found.length), title: "m" }, "more");
const table = el("table", { id: "found" }, el("thead", {}, el("tr", {}, ...["cell", "case", "chromosome", "predicted", "now"].map((n) => el("th", {}, n)))), body);
let found = [], chosen = 0, asked = 0;

const address = (c) => `/cell/${c.cell_id}#${c.chromosome}`;
function draw() {
  body.replaceChildren(...found.map((c, n) => el("tr", { class: n === chosen ? "chosen" : "", onclick: () => { location.href = address(c); } },
    el("td", {}, el("a", { href: address(c) }, c.name)), el("td", {}, c.case || ""),
    el("td", {}, String(c.chromosome)), el("td", {}, c.predicted || "none"), el("td", {}, c.current || "none"))));
}
async function load(from = 0) {
  const own = asked += 1;
  const query = new URLSearchParams({ predicted: predicted.value, current: current.value });
  history.replaceState(null, "", `/search?${query}`);
  let told = null;
  try { told = await api(`/corrections?${query}&start=${from}`); } catch (error) { toast(error.message); return; }
  if (own !== asked) return;  // the answer to an earlier question
  found = from ? [...found, ...told.corrections] : told.corrections;
  if (!from) chosen = 0;
  count.textContent = told.total ? counted(told.total, "chromosome") + (found.length < told.total ? `, the first ${found.length} below` : "") : "No chromosome was corrected so.";
  table.hidden = !found.length;
  more.hidden = found.length >= told.total;
  draw();
}
function move(step) {
  chosen = Math.max(0, Math.min(found.length - 1, chosen + step));
  draw();
  body.children[chosen]?.scrollIntoView({ block: "nearest" });
}

await start();
const wanted = new URLSearchParams(location.search);
predicted.value = wanted.get("predicted") || "";
current.value = wanted.get("current") || "";
for (const each of [predicted, current]) {
  each.addEventListener("change", () => load());
  each.addEventListener("keydown", (event) => { if (event.key === "Escape" || event.key === "Enter") { event.preventDefault(); each.blur(); } });
}
document.addEventListener("keydown", (event) => {
  if (typing(event) || event.ctrlKey || event.metaKey || event.altKey) return;
  const keys = { p: () => predicted.focus(), n: () => current.focus(), ArrowDown: () => move(1), ArrowUp: () => move(-1), j: () => move(1), k: () => move(-1),
    m: () => { if (!more.hidden) load(found.length); }, h: () => { location.href = "/"; }, "?": () => sheet("Keys of the search", KEYS),
    Enter: event.target === document.body && found[chosen] ? () => { location.href = address(found[chosen]); } : null };
  if (keys[event.key]) { event.preventDefault(); keys[event.key](); }
});
document.getElementById("main").append(el("section", { class: "card" },
  el("h1", {}, "Corrections over all cases"),
  el("div", { class: "row" }, "predicted as", predicted, "now", current, el("button", { onclick: () => sheet("Keys of the search", KEYS) }, "?")), count,
  table, more));
await load();
document.body.dataset.ready = "1";
