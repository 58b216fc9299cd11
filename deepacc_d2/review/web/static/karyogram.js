// The karyogram: a slot for each class, chromosomes in it as strips; dragging gives another class.
import { el } from "./common.js";

const LABEL = 18, GAP = 2;
const TRAY = [["?", "no class"], ["mar", "marker"], ["none", "left out"]];

export class Karyogram {
  // place: element; classes: of the API; on: {pick, hover, drop}.
  constructor(place, classes, on) {
    Object.assign(this, { place, classes, on, chromosomes: [], strips: null });
    new ResizeObserver(() => this.draw()).observe(place);
  }

  show(chromosomes, strips) { this.chromosomes = chromosomes; this.strips = strips || this.strips; this.draw(); }

  strip(id) { return this.strips?.[id] || { length: 40, width: 12, centromere: 0.5, image: "" }; }

  of(name) {
    const wanted = name === "none" ? null : name;
    const own = this.chromosomes.filter((c) => c.class === wanted);
    return [...own.filter((c) => !c.derivative), ...own.filter((c) => c.derivative)];  // at the right
  }

  order() {
    const names = [...this.classes.rows.flat(), ...TRAY.map(([name]) => name)];
    return names.flatMap((name) => this.of(name)).map((c) => c.id);
  }

  // Pixels of the page for one of the image, so that all rows fit.
  scale() {
    const height = this.place.clientHeight - 4 * LABEL - 84, width = this.place.clientWidth - 24;
    let tall = 0, wide = 0.01;
    for (const row of this.classes.rows) {
      const all = row.flatMap((name) => this.of(name)).map((c) => this.strip(c.id));
      tall += Math.max(10, ...all.map((s) => s.centromere * s.length)) + Math.max(10, ...all.map((s) => (1 - s.centromere) * s.length));
      wide = Math.max(wide, all.reduce((sum, s) => sum + s.width, 0) / Math.max(width - GAP * all.length - 12 * row.length, 50));
    }
    return Math.max(0.05, Math.min(height / tall, 1 / wide, 4));
  }

  draw() {
    if (!this.strips || !this.place.clientHeight) return;  // pictures come first: it is drawn once
    const scale = this.scale();
    const rows = this.classes.rows.map((row) => {
      const above = Math.max(0, ...row.flatMap((name) => this.of(name)).map((c) => this.strip(c.id)).map((s) => s.centromere * s.length));
      return el("div", { class: "line" }, ...row.map((name) => this.slot(name, name, scale, above)));
    });
    const left = TRAY.map(([name, label]) => this.slot(name, label, Math.min(scale, 44 / Math.max(1, ...this.of(name).map((c) => this.strip(c.id).length)))));
    this.place.replaceChildren(...rows, el("div", { class: "tray" }, ...left));
    this.mark(...(this.marks || []));
  }

  slot(name, label, scale, above = null) {
    const own = this.of(name);
    const bodies = el("div", { class: "bodies" }, ...own.map((c) => this.body(c, scale, above)));
    const usual = name === "Y" ? this.of("Y").length : name === "X" ? (this.of("Y").length ? 1 : 2) : 2;
    const off = above === null ? 0 : own.length - usual;
    const der = own.some((c) => c.derivative) ? " der" : "";
    const text = el("div", { class: "label" }, label, el("b", {}, der), off ? el("b", {}, ` ${off > 0 ? "+" : "−"}${Math.abs(off)}`) : "");
    return el("div", { class: "slot", "data-class": name }, ...(above === null ? [text, bodies] : [bodies, text]));
  }

  body(c, scale, above) {
    const s = this.strip(c.id);
    const low = c.class !== null && c.confidence < 0.8;
    const made = el("div", { class: `strip${low ? " low" : ""}${c.by_person ? " person" : ""}`, "data-id": c.id, title: `${c.class ?? "left out"} (${c.id})` });
    made.style.width = `${Math.max(4, s.width * scale)}px`;
    made.style.height = `${Math.max(6, s.length * scale)}px`;
    if (above !== null) made.style.marginTop = `${Math.max(0, (above - s.centromere * s.length) * scale)}px`;
    if (s.image) made.append(el("img", { src: s.image, alt: "", draggable: "false" }));
    made.addEventListener("pointerenter", () => this.on.hover(c.id));
    made.addEventListener("pointerleave", () => this.on.hover(null));
    made.addEventListener("pointerdown", (event) => this.drag(event, c, made));
    return made;
  }

  mark(chosen, second, hover) {
    this.marks = [chosen, second, hover];
    for (const strip of this.place.querySelectorAll(".strip")) {
      const id = Number(strip.dataset.id);
      strip.classList.toggle("chosen", id === chosen);
      strip.classList.toggle("second", id === second);
      strip.classList.toggle("hover", id === hover);
    }
  }

  drag(event, c, body) {
    if (event.button !== 0) return;
    event.preventDefault();
    const from = [event.clientX, event.clientY];
    let ghost = null, target = null;
    const aim = (e) => document.elementsFromPoint(e.clientX, e.clientY).map((n) => n.closest?.(".slot")).find(Boolean) || null;
    const move = (e) => {
      if (!ghost && Math.hypot(e.clientX - from[0], e.clientY - from[1]) > 5) {
        ghost = body.cloneNode(true);
        ghost.id = "ghost";
        ghost.style.marginTop = "0";
        document.body.append(ghost);
        body.classList.add("moving");
      }
      if (!ghost) return;
      ghost.style.left = `${e.clientX - body.offsetWidth / 2}px`;
      ghost.style.top = `${e.clientY - body.offsetHeight / 2}px`;
      target?.classList.remove("target");
      target = aim(e);
      target?.classList.add("target");
    };
    const end = (e) => {
      window.removeEventListener("pointermove", move);
      window.removeEventListener("pointerup", end);
      window.removeEventListener("pointercancel", end);
      const dropped = ghost && e.type === "pointerup" ? aim(e) : null;
      ghost?.remove();
      body.classList.remove("moving");
      target?.classList.remove("target");
      if (!ghost && e.type === "pointerup") this.on.pick(c.id);
      else if (dropped && dropped.dataset.class !== (c.class ?? "none")) this.on.drop(c.id, dropped.dataset.class);
    };
    window.addEventListener("pointermove", move);
    window.addEventListener("pointerup", end);
    window.addEventListener("pointercancel", end);
  }
}
