import { api, ask, chip, el, newKey, post, save, sheet, start, toast, typing, watch } from "./common.js";

const number = Number(location.pathname.split("/").pop());
const KEYS = [["Enter", "open the first cell that is not done"], ["o", "give another karyotype, with a reason"], ["1, 2", "sign as first, second reader"],
  ["u", "reopen a signed case"], ["p", "the case's page as PDF"], ["s, w", "the worksheet, for print, as PDF"], ["f", "a signed case as FHIR"], ["h", "worklist"], ["?", "this sheet"]];
const main = document.getElementById("main");
const me = await start();
let page = null;

async function send(event, more = {}) {
  try {
    page = await post(`/cases/${number}/events`, { event, base: page.version, key: newKey(), ...more });
    draw();
  } catch (error) {
    toast(error.message);
    if (error.status === 409) await load();
  }
}

async function override() {
  const given = await ask("Karyotype of the case", [["karyotype", "ISCN (empty: what the cells give)", "text", page.override.karyotype], ["reason", "Reason", "textarea"]], "Give");
  if (given) await send({ kind: "override", karyotype: given.karyotype.trim(), reason: given.reason });
}

async function sign(role) {
  const fields = [];
  if (page.missing) fields.push(["reason", `The rule is not met (${page.missing}). Reason to sign all the same`, "textarea"]);
  if (me.login) fields.push(["password", "Your password", "password"]);
  const shown = page.override.karyotype || page.result.karyotype || "no karyotype";
  const given = await ask(`Sign as ${role} reader: ${shown}`, fields, "Sign");
  if (given) await send({ kind: "sign", role, reason: given.reason || "" }, me.login ? { password: given.password } : {});
}

async function reopen() {
  const given = await ask("Reopen the case", [["reason", "Reason", "textarea"]], "Reopen");
  if (given) await send({ kind: "reopen", reason: given.reason });
}

const worksheet = (kind) => save(`/cases/${number}/worksheet.${kind}`, `worksheet-${number}.${kind}`);
const pdf = () => save(`/cases/${number}/report.pdf`, `case-${number}.pdf`);
const fhir = () => save(`/cases/${number}/fhir`, `case-${number}.fhir.json`);

function draw() {
  document.title = `${page.name} - DeepACC-D2 review`;
  const given = page.override, signed = given.signatures;
  const clone = new Map();
  for (const c of page.result.clones) for (const name of c.names) clone.set(name, c.karyotype);
  const out = new Map(page.result.excluded.map((e) => [e.name, e.reason]));
  const differs = new Map(page.result.disagreeing.map((d) => [d.name, d.differs.join(" ")]));
  const left = el("section", { class: "card" },
    el("h1", { class: "name-of-case" }, `Case ${page.name}`),
    el("div", { class: "karyotype big", id: "karyotype" }, given.karyotype || page.result.karyotype || "no karyotype"),
    given.karyotype ? el("p", {}, `given by ${given.given_by}: ${given.reason}; the cells give ${page.result.karyotype || "none"}`) : "",
    ...page.result.notes.map((n) => el("p", { class: "pale" }, n)),
    page.markers ? el("p", { class: "alarm" }, `${page.markers} cells have a marker: whether two markers are the same one, the program cannot tell.`) : "",
    el("div", { class: "row" }, el("button", { onclick: override, disabled: given.locked }, "Other karyotype (o)"), el("button", { onclick: pdf }, "PDF (p)"), el("button", { onclick: () => worksheet("html") }, "Worksheet (s)"),
      el("button", { onclick: () => worksheet("pdf") }, "Worksheet PDF (w)"), el("button", { onclick: fhir, disabled: !given.locked, title: "of a case that two readers signed" }, "FHIR (f)"), el("button", { onclick: () => sheet("Keys of the case", KEYS) }, "?")));
  const right = el("section", { class: "card" }, el("h2", {}, "Confirmed, of what the rule asks"),
    el("table", {}, el("tbody", {}, ...Object.entries(page.rule).map(([level, [found, wanted]]) => el("tr", { class: "plain" },
      el("td", {}, level), el("td", { class: `number ${found >= wanted ? "good" : "alarm"}` }, `${found} of ${wanted}`))))),
    el("br"), el("h2", {}, "Signatures"),
    ...["first", "second"].map((role) => {
      const s = signed.find((each) => each.role === role);
      return s ? el("p", { class: "good" }, `${role} reader: ${s.who}, ${s.at.slice(0, 16).replace("T", " ")} UTC${s.reason ? ` (${s.reason})` : ""}`)
        : el("p", {}, el("button", { onclick: () => sign(role), id: `sign-${role}`, disabled: given.locked || (role === "second") !== (signed.length === 1) }, `Sign as ${role} reader`));
    }),
    signed.length ? el("button", { onclick: reopen }, given.locked ? "Reopen (u)" : "Take the signature back (u)") : "",
    given.locked ? el("p", {}, chip("signed, locked", "done")) : "");
  const rows = page.cells.map((cell) => el("tr", { onclick: () => { location.href = `/cell/${cell.id}`; } },
    el("td", {}, el("a", { href: `/cell/${cell.id}` }, cell.name)), el("td", {}, chip(cell.state, cell.state)), el("td", {}, cell.confirmed),
    el("td", { class: "number" }, String(cell.count)), el("td", { class: "karyotype" }, cell.karyotype),
    el("td", {}, clone.get(cell.name) || ""), el("td", {}, out.get(cell.name) || differs.get(cell.name) || ""), el("td", { class: "number" }, String(cell.touched))));
  const clones = page.result.clones.map((c) => el("tr", { class: "plain" }, el("td", { class: "karyotype" }, c.karyotype), el("td", { class: "number" }, String(c.n)), el("td", {}, c.names.join(", "))));
  const head = (...names) => el("thead", {}, el("tr", {}, ...names.map((n) => el("th", { class: /^(count|corrected|cells)$/.test(n) ? "number" : "" }, n))));
  const ofClones = el("section", { class: "card" }, el("h2", {}, "Clones"),
    clones.length ? el("table", { id: "clones" }, head("karyotype", "cells", ""), el("tbody", {}, ...clones)) : el("p", { class: "pale" }, "No clone: a gain is seen in two cells of one, a loss in three."));
  main.replaceChildren(el("div", { class: "columns" }, el("div", {}, left, ofClones), right),
    el("section", { class: "card" }, el("h2", {}, "Cells"),
      el("table", { id: "cells" }, head("cell", "state", "confirmed", "count", "karyotype", "clone", "differs or is left out", "corrected"), el("tbody", {}, ...rows))));
}

async function load() { page = await api(`/cases/${number}`); draw(); }

document.addEventListener("keydown", (event) => {
  if (typing(event) || event.ctrlKey || event.metaKey || event.altKey || !page) return;
  const next = page.cells.find((c) => c.state === "new" || c.state === "in_review");
  const keys = { Enter: () => { if (next && event.target === document.body) location.href = `/cell/${next.id}`; }, o: override, 1: () => sign("first"), 2: () => sign("second"),
    u: reopen, p: pdf, s: () => worksheet("html"), w: () => worksheet("pdf"), f: fhir, h: () => { location.href = "/"; }, "?": () => sheet("Keys of the case", KEYS) };
  if (keys[event.key]) { if (event.key !== "Enter") event.preventDefault(); keys[event.key](); }
});

try { await load(); } catch (error) { main.append(el("p", { class: "alarm" }, error.message)); }
document.body.dataset.ready = "1";
if (page) watch(page.version, async (told) => { if (told.cases.includes(number) && !document.querySelector("dialog[open]")) await load(); });
