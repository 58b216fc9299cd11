// The page of a cell: it holds what the server told, sends events, and hands both to its parts.
import { api, ask, chip, el, newKey, post, sheet, start, toast, typing, watch } from "./common.js";
import { showDetail } from "./detail.js";
import { Karyogram } from "./karyogram.js";
import { Spread } from "./spread.js";

const number = Number(location.pathname.split("/").pop());
// Everything the page needs is asked for at once; each is awaited where it is used.
const first = { classes: api("/classes"), cell: api(`/cells/${number}`), strips: api(`/cells/${number}/strips`) };
new Image().src = `/api/v1/cells/${number}/image.png`;
for (const each of Object.values(first)) each.catch(() => {});
const KEYS = [
  ["← → or Tab", "next, previous chromosome"], ["n, Shift+N", "next, previous one with a flag"], ["1 to 22, x, y", "give a class; Enter for 1 and 2 at once"],
  ["m, u", "marker, unidentified"], ["q", "derivative of its class, or not"], ["Delete", "not a chromosome"], ["t", "turn upside down"], ["w", "swap with another: choose it, Enter"],
  ["+ j", ""], ["d", "draw a chromosome"], ["s", "split by a line"], ["Shift+S", "split along the masks, or at the waist"], ["r", "give another box"], ["o", "draw its outline"],
  ["z, Shift+Z", "undo, redo"], ["b, a, k", "confirm: counted, analyzed, karyotyped"], ["g", "not countable, or countable"], ["v", "remark"],
  ["+ − 0", "zoom in, out, all"], ["Shift+arrows", "pan"], ["< >", "contrast"], ["i", "invert"], ["f", "boxes on or off"], ["c", "masks on or off"], ["l", "the trail of this cell"],
  [". ,", "next, previous cell"], ["e, h", "case, worklist"], ["Esc", "leave a mode, clear the choice"], ["?", "this sheet"],
  ["while drawing", "arrows move the cross (Shift: far), Enter sets a corner"],
].map((each) => (each[0] === "+ j" ? ["j", "join with another: choose it, Enter"] : each));

let cell = null, chosen = null, second = null, hover = null, mode = null, busy = false, digits = "", digitsWait = 0;
let clock = performance.now(), worked = 0;

const title = el("span", { class: "karyotype big", id: "karyotype" }), chips = el("span"), name = el("span", { class: "name" });
const undo = el("button", { onclick: () => send({ kind: "undo" }), title: "z" }, "Undo"), redo = el("button", { onclick: () => send({ kind: "redo" }), title: "Shift+Z" }, "Redo");
const confirms = ["counted", "analyzed", "karyotyped"].map((level) => el("button", { onclick: () => confirm(level), id: `confirm-${level}`, title: { counted: "b", analyzed: "a", karyotyped: "k" }[level] }, level));
const unfit = el("button", { onclick: countable, title: "g" }, "Not countable");
const main = document.getElementById("main");
const [me, classes] = await Promise.all([start(name, title, chips), first.classes]);
const strips = {};

const told = el("div", { class: "mode", role: "status" });
const tool = (label, title, action) => el("button", { title, onclick: action }, label);
const spreadPlace = el("section", { class: "pane", id: "spread" },
  el("div", { class: "tools" }, tool("+", "zoom in (+)", () => spread.zoom(1.4)), tool("−", "zoom out (−)", () => spread.zoom(1 / 1.4)), tool("all", "whole image (0)", () => spread.fit()),
    tool("invert", "i", () => spread.invert()), tool("contrast", ">", () => spread.contrastBy(spread.contrast === 7 ? -7 : 1)), tool("boxes", "f", () => spread.bare()), tool("masks", "c", masks),
    tool("draw", "d", () => enter("draw")), tool("split", "s", () => enter("split")), tool("join", "j", () => enter("join")), tool("swap", "w", () => enter("swap")),
    tool("turn", "t", turn), tool("new box", "r", () => enter("recut")), tool("outline", "o", () => enter("outline")), tool("marker", "m", () => reclassify("mar")),
    tool("derivative", "q", derivative), tool("no class", "u", () => reclassify("?")), tool("delete", "Delete", remove), tool("remark", "v", note), tool("trail", "l", trail), tool("?", "all keys", help)), told);
const pagePlace = el("section", { class: "pane", id: "page" }), detailPlace = el("section", { class: "pane", id: "detail", "aria-live": "polite" });
main.append(spreadPlace, pagePlace, detailPlace);
document.getElementById("bar").querySelector(".space").after(undo, redo, el("span", { class: "pale" }, "confirm as"), ...confirms, unfit);

const color = (c) => classes.colors[classes.groups[c]] || (c === null ? "#888888" : "#c8102e");
const spread = new Spread(spreadPlace, color, { pick, hover: hovering, drawn });
const page = new Karyogram(pagePlace, classes, { pick, hover: hovering, drop });

const find = (id) => cell.chromosomes.find((c) => c.id === id) || null;

function show(next) {
  cell = next;
  document.title = `${cell.name} - DeepACC-D2 review`;
  name.textContent = cell.name;
  title.textContent = cell.karyotype || (cell.draft ? `(${cell.draft})` : "no karyotype");
  title.title = cell.karyotype ? "" : "an unfit cell has no karyotype; this is what was found in it";
  title.classList.toggle("pale", !cell.karyotype);
  name.title = cell.name;
  chips.replaceChildren(chip(cell.state, cell.state), ...(cell.confirmed ? [" ", chip(cell.confirmed, "done")] : []), ...(cell.markers ? [" ", chip("marker", "warn")] : []));
  undo.disabled = !cell.can_undo;
  redo.disabled = !cell.can_redo;
  confirms.forEach((b) => { b.className = b.textContent === cell.confirmed ? "main" : ""; b.disabled = cell.status === "unfit"; });
  unfit.textContent = cell.status === "unfit" ? "Countable" : "Not countable";
  if (chosen !== null && !find(chosen)) chosen = null;
  spread.setImage(`/api/v1/cells/${number}/image.png`, cell.width, cell.height);
  spread.show(cell.chromosomes);
  page.show(cell.chromosomes);
  mark();
  loadStrips();
}

let firstDrawn = null;
function ready() { document.body.dataset.ready = String(cell.version); firstDrawn(); }
const drawnOnce = new Promise((done) => { firstDrawn = done; });
// The pictures of the cell as it is now. A server that is busy is asked again until it answers.
async function askStrips() {
  for (let wait = 500; ; wait = Math.min(2 * wait, 10000)) {
    const early = first.strips;
    first.strips = null;
    try {
      const got = await (early || api(`/cells/${number}/strips`));
      // Those asked for with the page may be of an earlier state than the cell that came with them.
      if (!early || got.version === cell.version) return got;
    } catch (error) {
      if (error.status && error.status !== 503) throw error;
      toast("the pictures are not there yet: they are asked for again", wait + 1500);
      await new Promise((done) => setTimeout(done, wait));
    }
  }
}
async function loadStrips() {
  const version = cell.version;
  try {
    const got = await askStrips();
    if (version !== cell.version || got.version !== cell.version) return;  // a later call has them
    for (const id of Object.keys(strips)) delete strips[id];
    Object.assign(strips, got.strips);
    page.show(cell.chromosomes, strips);
    mark();
    ready();
  } catch (error) {
    page.show(cell.chromosomes, {});
    mark();
    toast(error.message);
    ready();
  }
}

function mark() {
  spread.mark(chosen, second, hover);
  page.mark(chosen, second, hover);
  showDetail(detailPlace, chosen === null ? null : find(chosen), { cell, classes, strip: (id) => page.strip(id) }, (c) => reclassify(c));
}
function hovering(id) { hover = id; spread.mark(chosen, second, hover); page.mark(chosen, second, hover); }

// Sends an event until the server has it: a lost connection loses no change, and none is made twice.
async function send(event) {
  if (busy) { toast("the last change is still being saved"); return false; }
  busy = true;
  const body = { event, base: cell.version, key: newKey() };
  try {
    for (let wait = 500; ; wait = Math.min(2 * wait, 10000)) {
      try {
        show(await post(`/cells/${number}/events`, body));
        return true;
      } catch (error) {
        if (error.status && error.status !== 503) throw error;
        toast(`${error.status ? error.message : "no connection"}: one change is waiting and is sent again`, wait + 1500);
        await new Promise((done) => setTimeout(done, wait));
      }
    }
  } catch (error) {
    toast(error.message);
    if (error.status === 409) show(await api(`/cells/${number}`));
    return false;
  } finally { busy = false; }
}

function need() { if (chosen === null) { toast("choose a chromosome first"); return false; } return true; }
async function reclassify(to, id = chosen) {
  if (id === null) { need(); return; }
  await (to === "none" ? send({ kind: "delete", chromosome: id }) : send({ kind: "reclassify", chromosome: id, to }));
}
function drop(id, to) { chosen = id; reclassify(to, id); }
async function turn() { if (need()) await send({ kind: "turn", chromosome: chosen }); }
async function derivative() { if (need()) await send({ kind: "derivative", chromosome: chosen }); }
async function remove() { if (need()) await send({ kind: "delete", chromosome: chosen }); }
async function confirm(level) {
  const seconds = worked + (document.hidden ? 0 : (performance.now() - clock) / 1000);
  if (await send({ kind: "confirm", level, seconds: Math.round(seconds * 10) / 10 })) { worked = 0; clock = performance.now(); }
}
async function countable() {
  const now = cell.status !== "unfit";
  const given = await ask(now ? "Why can the cell not be counted?" : "Why can it be counted after all?", [["reason", "Reason", "textarea"]]);
  if (given) await send({ kind: "set_countable", countable: !now, reason: given.reason });
}
async function note() {
  const given = await ask("Remark on the cell", [["text", "Remark", "textarea"]], "Keep");
  if (given) await send({ kind: "note", text: given.text });
}
async function trail() {
  const entries = await api(`/cells/${number}/trail`);
  sheet(`Trail of ${cell.name}`, entries.slice(-60).reverse().map((e) => [`${e.seq} ${e.kind}`, `${e.at.slice(0, 19).replace("T", " ")} ${e.who}${e.event.to ? ` to ${e.event.to}` : ""}`]));
}

// Modes
const MODES = {
  draw: ["box", "Draw a box around a chromosome"], split: ["line", "Draw a line across the chosen chromosome"], recut: ["box", "Draw the chosen chromosome's box"],
  outline: ["outline", "Draw the chosen chromosome's outline"], join: [null, "Choose the chromosome to join with"], swap: [null, "Choose the chromosome to swap with"],
};
function enter(next) {
  if (next !== "draw" && !need()) return;
  mode = next;
  second = null;
  told.textContent = `${MODES[next][1]}; ${MODES[next][0] ? "or move the cross by arrows, Enter sets a corner" : "arrows choose, Enter does it"}; Esc leaves.`;
  spread.draw(MODES[next][0]);
}
function leave() { mode = null; second = null; told.textContent = ""; spread.draw(null); if (cell) mark(); }

async function drawn(kind, points) {
  const now = mode;
  leave();
  const flat = [...points[0], ...points[points.length - 1]];
  if (now === "draw") {
    if (await send({ kind: "draw", box: flat })) pick(Math.max(...cell.chromosomes.map((c) => c.id)));
  } else if (now === "recut") await send({ kind: "recut", chromosome: chosen, box: flat });
  else if (now === "outline") await send({ kind: "recut", chromosome: chosen, outline: points });
  else if (now === "split") await split(flat);
}
async function split(line) {
  if (!need()) return;
  try {
    const halves = await post(`/cells/${number}/split`, { chromosome: chosen, line });
    if (await send({ kind: "split", chromosome: chosen, line, ...halves })) pick(Math.max(...cell.chromosomes.map((c) => c.id)) - 1);
  } catch (error) { toast(error.message); }
}
async function pair() {
  const [now, other] = [mode, second];
  if (other === null || other === chosen) { toast("choose another chromosome"); return; }
  leave();
  await send({ kind: now, first: chosen, second: other });
  if (now === "join" && cell.chromosomes.length) pick(Math.max(...cell.chromosomes.map((c) => c.id)));
}

function pick(id) {
  if ((mode === "join" || mode === "swap") && id !== null) { second = id; pair(); return; }
  chosen = id;
  if (id !== null) spread.center(find(id).box);
  mark();
}
function step(by, flagged = false) {
  const order = page.order().filter((id) => !flagged || find(id).flags.length);
  if (!order.length) return;
  const pairing = mode === "join" || mode === "swap";
  const at = order.indexOf(pairing && second !== null ? second : chosen);
  const next = order[at < 0 ? (by > 0 ? 0 : order.length - 1) : (at + by + order.length) % order.length];
  if (pairing) { second = next; mark(); } else pick(next);
}
function digit(key) {
  clearTimeout(digitsWait);
  digits += key;
  if (digits.length === 2 || Number(digits) > 2) give();
  else { toast(`class ${digits}…`, 900); digitsWait = setTimeout(give, 900); }
}
function give() {
  clearTimeout(digitsWait);
  const to = String(Number(digits));
  digits = "";
  if (Number(to) >= 1 && Number(to) <= 22) reclassify(to); else toast(`there is no class ${to}`);
}
let around = null;
const neighbors = () => (around = around || api(`/cells/${number}/neighbors`).catch((error) => { around = null; throw error; }));
async function sibling(by) {
  let next = null;
  try { next = (await neighbors())[by > 0 ? "next" : "previous"]; } catch (error) { toast(error.message); return; }
  if (next) location.href = `/cell/${next}`; else toast(by > 0 ? "this is the last cell" : "this is the first cell");
}
function masks() { if (!spread.masks()) toast("the model has no masks"); }
function help() { sheet("Keys of the cell", KEYS); }

document.addEventListener("keydown", (event) => {
  if (typing(event) || !cell || event.metaKey || event.altKey) return;
  const key = event.key;
  if (event.ctrlKey) {
    if (key === "z" || key === "y" || key === "Z") { event.preventDefault(); send({ kind: key === "z" ? "undo" : "redo" }); }
    return;
  }
  const arrows = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  let action = null;
  if (arrows[key]) {
    const [dx, dy] = arrows[key];
    if (mode && MODES[mode][0]) action = () => spread.step(dx, dy, event.shiftKey);
    else if (event.shiftKey) action = () => spread.pan(60 * dx, 60 * dy);
    else action = () => step(dx + dy);
  } else if (/^[0-9]$/.test(key) && (key !== "0" || digits)) action = () => digit(key);
  else {
    action = {
      Tab: event.target === document.body || event.target.closest?.("#spread, #page") ? () => step(event.shiftKey ? -1 : 1) : null,
      Enter: digits ? give : mode && MODES[mode][0] ? () => spread.set() : mode ? pair : null,
      Escape: () => { if (mode) leave(); else pick(null); }, n: () => step(1, true), N: () => step(-1, true), x: () => reclassify("X"), y: () => reclassify("Y"),
      m: () => reclassify("mar"), u: () => reclassify("?"), Delete: remove, Backspace: remove, t: turn, q: derivative, w: () => enter("swap"), j: () => enter("join"), d: () => enter("draw"),
      s: () => enter("split"), S: () => split(null), r: () => enter("recut"), o: () => enter("outline"), z: () => send({ kind: "undo" }), Z: () => send({ kind: "redo" }),
      b: () => confirm("counted"), a: () => confirm("analyzed"), k: () => confirm("karyotyped"), g: countable, v: note, "+": () => spread.zoom(1.4), "=": () => spread.zoom(1.4),
      "-": () => spread.zoom(1 / 1.4), 0: () => spread.fit(), "<": () => spread.contrastBy(-1), ">": () => spread.contrastBy(1), i: () => spread.invert(), f: () => spread.bare(), c: masks,
      l: trail, ".": () => sibling(1), ",": () => sibling(-1), e: () => { if (cell.case_id) location.href = `/case/${cell.case_id}`; }, h: () => { location.href = "/"; }, "?": help,
    }[key];
    if (key === "Enter" && event.target.tagName === "BUTTON" && !mode && !digits) action = null;
  }
  if (action) { event.preventDefault(); action(); }
});
document.addEventListener("visibilitychange", () => {
  if (document.hidden) worked += (performance.now() - clock) / 1000;
  clock = performance.now();
});

try {
  show(await first.cell);
  const wanted = Number(location.hash.slice(1));
  if (wanted && find(wanted)) pick(wanted);
  drawnOnce.then(neighbors).catch(() => {});
  watch(cell.version, async (changes) => {
    const other = changes.cells[number];
    if (other && other.version > cell.version && !busy && !spread.drag) {
      show(await api(`/cells/${number}`));
      if (other.who !== me.user) toast(`${other.who} changed this cell`);
    }
  });
} catch (error) {
  if (!error.status) throw error;
  main.replaceChildren(el("p", { class: "alarm" }, error.message));
}
