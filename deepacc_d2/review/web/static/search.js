import { api, counted, el, start } from "./common.js";

const names = ["", ...Array.from({ length: 22 }, (_, n) => String(n + 1)), "X", "Y", "mar", "?", "none"];
const select = (label) => el("select", { "aria-label": label }, ...names.map((n) => el("option", { value: n }, n || "any")));
const predicted = select("predicted"), current = select("now");
const body = el("tbody"), count = el("p", { class: "pale" });

async function load() {
  const query = new URLSearchParams({ predicted: predicted.value, current: current.value });
  history.replaceState(null, "", `/search?${query}`);
  const told = await api(`/corrections?${query}`);
  count.textContent = counted(told.total, "chromosome") + (told.total > told.corrections.length ? `, the first ${told.corrections.length} below` : "");
  body.replaceChildren(...told.corrections.map((c) => el("tr", { onclick: () => { location.href = `/cell/${c.cell_id}#${c.chromosome}`; } },
    el("td", {}, el("a", { href: `/cell/${c.cell_id}#${c.chromosome}` }, c.name)), el("td", {}, c.case || ""),
    el("td", {}, String(c.chromosome)), el("td", {}, c.predicted || "none"), el("td", {}, c.current || "none"))));
}

await start();
const asked = new URLSearchParams(location.search);
predicted.value = asked.get("predicted") || "";
current.value = asked.get("current") || "";
predicted.addEventListener("change", load);
current.addEventListener("change", load);
document.getElementById("main").append(el("section", { class: "card" },
  el("h1", {}, "Corrections over all cases"),
  el("div", { class: "row" }, "predicted as", predicted, "now", current), count,
  el("table", { id: "found" }, el("thead", {}, el("tr", {}, ...["cell", "case", "chromosome", "predicted", "now"].map((n) => el("th", {}, n)))), body)));
predicted.focus();
await load();
document.body.dataset.ready = "1";
