// New images: dropped or chosen, sent one after the other, shown until they are predicted.
import { el, newKey, toast, token, api } from "./common.js";

const NAMES = { waiting: "waiting", predicting: "predicting", done: "done", failed: "failed", sending: "sending" };

export class Uploads {
  constructor() {
    this.sending = [];
    this.told = { items: [], active: 0, loading: false, suffixes: [], most_bytes: 0 };
    this.input = el("input", { type: "file", multiple: true, hidden: true, "aria-label": "images to add" });
    this.input.addEventListener("change", () => { this.add([...this.input.files]); this.input.value = ""; });
    this.case = el("input", { type: "text", size: 14, maxlength: 200, placeholder: "case (optional)", "aria-label": "case of the images" });
    this.list = el("ul", { class: "uploads", role: "status", "aria-live": "polite" });
    this.place = el("section", { class: "card drop", id: "uploads" },
      el("div", { class: "row" }, el("button", { onclick: () => this.choose(), title: "a" }, "Add images (a)"), this.case,
        el("span", { class: "pale" }, "or drop them anywhere on this page: they are predicted in the background")), this.input, this.list);
    this.wait = 0;
    const files = (event) => [...(event.dataTransfer?.types || [])].includes("Files");
    addEventListener("dragover", (event) => { if (files(event)) { event.preventDefault(); document.body.classList.add("dropping"); } });
    addEventListener("dragleave", (event) => { if (!event.relatedTarget) document.body.classList.remove("dropping"); });
    addEventListener("drop", (event) => {
      document.body.classList.remove("dropping");
      if (files(event)) { event.preventDefault(); this.add([...event.dataTransfer.files]); }
    });
    addEventListener("beforeunload", (event) => { if (this.sending.some((s) => s.state !== "failed")) event.preventDefault(); });
  }

  choose() { this.input.click(); }

  async start() { await this.look(); }

  async add(files) {
    if (!files.length) return;
    const idle = !this.sending.some((s) => s.state === "sending" || s.state === "waiting");
    for (const file of files) this.sending.push({ file, key: newKey(), name: file.name, case: this.case.value.trim(), state: "waiting", sent: 0, message: "" });
    this.draw();
    if (!idle) return;
    for (let next = this.next(); next; next = this.next()) {
      next.state = "sending";
      await this.send(next).then(
        (answer) => {
          this.sending.splice(this.sending.indexOf(next), 1);
          if (answer.known) toast(`${next.name} is here already: ${answer.name}`);
        },
        (error) => { next.state = "failed"; next.message = error.message; });
      await this.look();
    }
  }

  next() { return this.sending.find((s) => s.state === "waiting"); }

  refused(file) {
    const lower = file.name.toLowerCase();
    if (this.told.suffixes.length && !this.told.suffixes.some((s) => lower.endsWith(s))) return `not an image: give ${this.told.suffixes.join(", ")}`;
    if (this.told.most_bytes && file.size > this.told.most_bytes) return `over ${Math.round(this.told.most_bytes / 1e6)} MB: crop or shrink it`;
    return file.size ? "" : "empty (0 bytes): copy it again from its source";
  }

  // XMLHttpRequest, since fetch does not tell how much was sent.
  send(item) {
    const problem = this.refused(item.file);
    if (problem) return Promise.reject(new Error(`${item.name} is ${problem}`));
    return new Promise((done, failed) => {
      const request = new XMLHttpRequest();
      const query = new URLSearchParams({ file: item.name, case: item.case });
      request.open("POST", `/api/v1/uploads?${query}`);
      request.setRequestHeader("x-review-token", token());
      request.setRequestHeader("content-type", "application/octet-stream");
      request.upload.addEventListener("progress", (event) => { item.sent = event.loaded / Math.max(event.total, 1); this.draw(); });
      request.addEventListener("error", () => failed(new Error(`${item.name}: no connection: add it again`)));
      request.addEventListener("load", () => {
        let content = {};
        try { content = JSON.parse(request.responseText); } catch { /* told below */ }
        if (request.status === 200) done(content);
        else failed(new Error(content.detail || `${item.name}: the server answered ${request.status}`));
      });
      request.send(item.file);
    });
  }

  async look() {
    clearTimeout(this.wait);
    try { this.told = await api("/uploads"); } catch { /* asked again when something is added */ }
    this.draw();
    if (this.told.active) this.wait = setTimeout(() => this.look(), 1000);
  }

  draw() {
    const own = this.sending.map((s) => this.row(s.name, s.state, s.message, s.case, s.state === "sending" ? s.sent : null));
    const all = this.told.items;
    const shown = [...all.filter((i) => i.state === "predicting"), ...all.filter((i) => i.state === "failed"), ...all.filter((i) => i.state === "waiting"), ...all.filter((i) => i.state === "done")].slice(0, 12);
    const rows = shown.map((i) => this.row(i.name, i.state, i.state === "predicting" && this.told.loading ? "the model is loaded first" : i.message, i.case, null, i.cell));
    const finished = all.filter((i) => i.state === "done" || i.state === "failed").length;
    const summary = this.told.active ? [el("li", {}, el("progress", { max: all.length, value: finished, "aria-label": "images predicted" }), ` ${finished} of ${all.length} images`)] : [];
    this.list.replaceChildren(...own, ...summary, ...rows);
  }

  row(name, state, message, of, sent, cell = null) {
    return el("li", {}, el("span", { class: `chip ${state === "failed" ? "unfit" : state === "done" ? "done" : "new"}` }, NAMES[state]), " ",
      cell ? el("a", { href: `/cell/${cell}` }, name) : name, of ? el("span", { class: "pale" }, ` case ${of}`) : "",
      sent === null ? "" : el("progress", { max: 1, value: sent, "aria-label": `${name} sent` }), message ? el("span", { class: state === "failed" ? "alarm" : "pale" }, ` ${message}`) : "");
  }
}
