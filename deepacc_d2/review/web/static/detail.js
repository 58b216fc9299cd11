// What is told of the chosen chromosome: odds, itself beside its homologs and the ideogram.
import { chip, counted, el, percent, svg } from "./common.js";

const STAINS = { gneg: "#ffffff", gpos25: "#c8c8c8", gpos50: "#969696", gpos75: "#5f5f5f", gpos100: "#2a2a2a", acen: "#c98a8a", gvar: "#b0b0c8", stalk: "#dcdcf0" };

function ideogram(told, height) {
  const [w, h] = [16, height];
  const made = svg("svg", { width: w, height: h, viewBox: `0 0 ${w} ${h}`, role: "img", "aria-label": "ideogram" });
  told.stains.forEach((stain, n) => {
    const [y0, y1] = [told.edges[n] * h, told.edges[n + 1] * h];
    const inset = stain === "acen" || stain === "stalk" ? 4 : 1;
    const band = svg("rect", { x: inset, y: y0, width: w - 2 * inset, height: Math.max(y1 - y0, 0.4), fill: STAINS[stain] || "#fff", stroke: "#444", "stroke-width": 0.5 });
    const title = svg("title");
    title.textContent = told.names[n];
    band.append(title);
    made.append(band);
  });
  return made;
}

// place: element; c: chromosome or null; page: {chromosomes, strip(id), classes, cell}; reclassify(class).
export function showDetail(place, c, page, reclassify) {
  const cell = page.cell;
  const about = el("div", {}, el("h3", {}, "cell"),
    el("div", {}, `${counted(cell.count, "chromosome")}, confidence ${percent(cell.confidence)}`),
    el("div", {}, ...cell.flags.flatMap((f) => [chip(f, "warn"), " "])),
    ...cell.reasons.map((r) => el("div", { class: "alarm" }, r)),
    el("div", { class: "pale" }, cell.predicted_karyotype === cell.karyotype ? "as predicted" : `predicted: ${cell.predicted_karyotype || "no karyotype"}`));
  about.style.maxWidth = "300px";
  if (!c) {
    place.replaceChildren(about, el("div", { class: "pale" }, "Choose a chromosome by a click, Tab or the arrow keys; ? shows all keys."));
    return;
  }
  const odds = el("div", { class: "odds" }, ...c.alternatives.slice(0, 4).flatMap(([name, p]) => [
    el("button", { disabled: name === "none" || name === c.class, onclick: () => reclassify(name) }, name),
    el("meter", { min: 0, max: 1, value: p, "aria-label": `probability of ${name}` }), el("span", {}, percent(p))]));
  const told = page.classes.ideograms[c.class];
  const alike = [c, ...cell.chromosomes.filter((o) => o.class === c.class && o.id !== c.id)].slice(0, 5);
  const strips = alike.map((o) => page.strip(o.id));
  const scale = 84 / Math.max(1, ...strips.map((s) => s.length));
  const bodies = el("div", { class: "bodies" }, ...strips.map((s, n) => {
    // Without a picture as yet: its place.
    const image = el(s.image ? "img" : "span", { src: s.image || null, alt: n ? "homolog" : "chosen chromosome" });
    image.style.height = `${s.length * scale}px`;
    return image;
  }), told ? ideogram(told, 84) : "");
  place.replaceChildren(
    el("div", {}, el("h3", {}, "chosen"), el("div", { class: "karyotype big" }, c.class ?? "left out"),
      el("div", { class: "pale" }, c.by_person ? "by a person" : `confidence ${percent(c.confidence)}`),
      c.predicted !== c.class ? el("div", { class: "pale" }, `predicted: ${c.predicted || "none"}`) : ""),
    el("div", {}, el("h3", {}, "the program's probabilities"), c.alternatives.length ? odds : el("div", { class: "pale" }, "made by a person")),
    el("div", {}, el("h3", {}, told ? "this one, its homologs, the ideogram" : "this one"), bodies),
    el("div", {}, el("h3", {}, "flags"), ...c.flags.flatMap((f) => [chip(f, "warn"), " "]), c.turned ? chip("turned") : "",
      el("div", { class: "pale" }, `box ${c.box.map((v) => Math.round(v)).join(", ")}`)),
    about);
}
