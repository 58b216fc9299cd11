// The metaphase: image, boxes, zoom, pan, contrast, and drawing of boxes, lines and outlines.
import { svg } from "./common.js";

const STEPS = [0.6, 0.8, 1, 1.25, 1.6, 2, 2.5, 3];

export class Spread {
  // place: element; color(class): of a box; on: {pick, hover, drawn}.
  constructor(place, color, on) {
    Object.assign(this, { place, color, on, contrast: 2, inverted: false, mode: null, points: [] });
    this.image = svg("image", { x: 0, y: 0, preserveAspectRatio: "none" });
    this.items = svg("g");
    this.over = svg("g");
    this.root = svg("svg", { role: "img", "aria-label": "metaphase" }, this.image, this.items, this.over);
    place.append(this.root);
    this.root.addEventListener("wheel", (e) => { e.preventDefault(); this.zoom(Math.exp(-e.deltaY / 500), this.at(e)); }, { passive: false });
    this.root.addEventListener("pointerdown", (e) => this.down(e));
    this.root.addEventListener("pointermove", (e) => this.move(e));
    this.root.addEventListener("pointerup", (e) => this.up(e));
    this.root.addEventListener("pointercancel", () => { this.drag = null; this.points = []; this.rubber(); });
    new ResizeObserver(() => this.apply()).observe(this.root);
  }

  setImage(href, width, height) {
    if (this.size && this.size[0] === width && this.href === href) return;
    this.href = href;
    this.size = [width, height];
    this.image.setAttribute("href", href);
    this.image.setAttribute("width", width);
    this.image.setAttribute("height", height);
    this.cursor = [width / 2, height / 2];
    this.fit();
  }

  fit() { this.view = { x: this.size[0] / 2, y: this.size[1] / 2, scale: 1 }; this.apply(); }

  // view.scale is 1 where the whole image fits.
  apply() {
    if (!this.size) return;
    const { width: w, height: h } = this.root.getBoundingClientRect();
    const base = Math.max(this.size[0] / Math.max(w, 1), this.size[1] / Math.max(h, 1));
    this.perPixel = base / this.view.scale;
    const [vw, vh] = [w * this.perPixel, h * this.perPixel];
    this.root.setAttribute("viewBox", `${this.view.x - vw / 2} ${this.view.y - vh / 2} ${vw} ${vh}`);
    this.items.style.fontSize = `${13 * this.perPixel}px`;
    this.items.querySelectorAll("text").forEach((t) => t.setAttribute("stroke-width", 3 * this.perPixel));
    this.image.style.filter = `${this.inverted ? "invert(1) " : ""}contrast(${STEPS[this.contrast]})`;
    this.rubber();
  }

  zoom(factor, about = [this.view.x, this.view.y]) {
    const before = this.view.scale;
    this.view.scale = Math.min(40, Math.max(0.5, before * factor));
    const kept = before / this.view.scale;
    this.view.x = about[0] + (this.view.x - about[0]) * kept;
    this.view.y = about[1] + (this.view.y - about[1]) * kept;
    this.apply();
  }

  pan(dx, dy) { this.view.x += dx * this.perPixel; this.view.y += dy * this.perPixel; this.apply(); }
  contrastBy(step) { this.contrast = Math.min(STEPS.length - 1, Math.max(0, this.contrast + step)); this.apply(); }
  invert() { this.inverted = !this.inverted; this.apply(); }
  bare() { this.place.classList.toggle("bare"); }
  masks() { this.place.classList.toggle("masked"); return this.items.querySelector("path.mask") !== null; }

  show(chromosomes) {
    this.items.replaceChildren(...chromosomes.map((c) => {
      const [x0, y0, x1, y1] = c.box;
      const color = this.color(c.class);
      const kind = c.class === null ? "left" : c.confidence < 0.8 ? "low" : "";
      const parts = [svg("rect", { class: `box ${kind}`, x: x0, y: y0, width: x1 - x0, height: y1 - y0, stroke: color })];
      if (c.mask.length) {
        const path = c.mask.map((ring) => `M${ring.map((p) => p.join(" ")).join("L")}Z`).join("");
        parts.push(svg("path", { class: "mask", d: path, fill: color, "fill-rule": "evenodd" }));
      }
      if (c.outline.length) parts.push(svg("polygon", { points: c.outline.map((p) => p.join(",")).join(" "), stroke: color }));
      const text = svg("text", { x: x0, y: y0, fill: color, dy: "-0.15em" });
      text.textContent = c.class === null ? "–" : c.class;
      const item = svg("g", { class: "item", "data-id": c.id }, ...parts, text);
      item.addEventListener("pointerenter", () => this.on.hover(c.id));
      item.addEventListener("pointerleave", () => this.on.hover(null));
      return item;
    }));
    this.apply();
  }

  mark(chosen, second, hover) {
    for (const item of this.items.children) {
      const id = Number(item.dataset.id);
      item.setAttribute("class", `item${id === chosen ? " chosen" : ""}${id === second ? " second" : ""}${id === hover ? " hover" : ""}`);
    }
  }

  at(event) {
    const box = this.root.getBoundingClientRect();
    return [this.view.x + (event.clientX - box.left - box.width / 2) * this.perPixel, this.view.y + (event.clientY - box.top - box.height / 2) * this.perPixel];
  }

  // mode: null, "box", "line", "outline"
  draw(mode) {
    this.mode = mode;
    this.points = [];
    this.place.classList.toggle("drawing", Boolean(mode));
    this.rubber();
  }

  down(event) {
    if (event.button !== 0) return;
    this.root.setPointerCapture(event.pointerId);
    const point = this.at(event);
    if (this.mode) { this.points = [point]; this.drag = { drawing: true }; return; }
    const item = document.elementsFromPoint(event.clientX, event.clientY).map((e) => e.closest?.("g.item")).find(Boolean);
    this.drag = { x: event.clientX, y: event.clientY, item, far: false };
  }

  move(event) {
    if (!this.drag) return;
    if (this.drag.drawing) {
      const point = this.at(event);
      if (this.mode === "outline") this.points.push(point);
      else this.points = [this.points[0], point];
      this.cursor = point;
      this.rubber();
      return;
    }
    const [dx, dy] = [event.clientX - this.drag.x, event.clientY - this.drag.y];
    if (Math.hypot(dx, dy) > 4) this.drag.far = true;
    if (this.drag.far) { this.pan(-dx, -dy); this.drag.x = event.clientX; this.drag.y = event.clientY; }
  }

  up() {
    const drag = this.drag;
    this.drag = null;
    if (!drag) return;
    if (drag.drawing) this.finish();
    else if (!drag.far) this.on.pick(drag.item ? this.smallest(drag.item) : null);
  }

  smallest(item) { return Number(item.dataset.id); }

  finish() {
    const points = this.points;
    const least = this.mode === "outline" ? 3 : 2;
    this.points = [];
    if (points.length < least) { this.rubber(); return; }
    const step = Math.ceil(points.length / 400);
    this.on.drawn(this.mode, points.filter((_, n) => n % step === 0).map((p) => p.map((v) => Math.round(v * 100) / 100)));
  }

  // Drawing by keyboard: the cross is moved, and each Enter sets a corner.
  step(dx, dy, far) {
    const by = (far ? 20 : 2) * Math.max(this.perPixel, 0.5);
    this.cursor = [Math.min(this.size[0], Math.max(0, this.cursor[0] + dx * by)), Math.min(this.size[1], Math.max(0, this.cursor[1] + dy * by))];
    if (this.points.length && this.mode !== "outline") this.points = [this.points[0], this.cursor];
    this.rubber();
  }

  set() {
    if (this.mode === "outline") {
      const near = this.points.length > 2 && Math.hypot(this.points[0][0] - this.cursor[0], this.points[0][1] - this.cursor[1]) < 6 * this.perPixel;
      if (near) { this.finish(); return; }
      this.points.push([...this.cursor]);
    } else if (this.points.length) { this.points = [this.points[0], [...this.cursor]]; this.finish(); return; } else this.points = [[...this.cursor]];
    this.rubber();
  }

  rubber() {
    const parts = [];
    if (this.mode) {
      const [a, b] = this.points;
      if (this.mode === "box" && b) {
        parts.push(svg("rect", { class: "rubber", x: Math.min(a[0], b[0]), y: Math.min(a[1], b[1]), width: Math.abs(a[0] - b[0]), height: Math.abs(a[1] - b[1]) }));
      } else if (this.mode === "line" && b) parts.push(svg("line", { class: "rubber", x1: a[0], y1: a[1], x2: b[0], y2: b[1] }));
      else if (this.mode === "outline" && a) parts.push(svg("polygon", { class: "rubber", points: this.points.map((p) => p.join(",")).join(" ") }));
      const r = 9 * this.perPixel, [x, y] = this.cursor;
      parts.push(svg("line", { class: "cross", x1: x - r, y1: y, x2: x + r, y2: y }), svg("line", { class: "cross", x1: x, y1: y - r, x2: x, y2: y + r }));
    }
    this.over.replaceChildren(...parts);
  }

  center(box) {
    const view = this.root.viewBox.baseVal;
    const [x, y] = [(box[0] + box[2]) / 2, (box[1] + box[3]) / 2];
    this.cursor = [x, y];
    if (x < view.x || y < view.y || x > view.x + view.width || y > view.y + view.height) { this.view.x = x; this.view.y = y; this.apply(); }
  }
}
