// What all pages share: requests, elements, the bar, messages.
const API = "/api/v1";
let me = null;

export class ApiError extends Error {
  constructor(status, content) {
    super(content.detail || `the server answered ${status}`);
    this.status = status;
    this.content = content;
  }
}

// Sends a request; without a connection it throws an error that has no status. What only reads is
// asked for three times.
export async function api(path, options = {}) {
  for (let left = options.method ? 0 : 2; ; left -= 1) {
    try { return await once(path, options); } catch (error) {
      if (error.status || !left) throw error;
      await new Promise((done) => setTimeout(done, 1000));
    }
  }
}

async function once(path, options) {
  const headers = {};
  if (options.body !== undefined) headers["content-type"] = "application/json";
  if (me && options.method) headers["x-review-token"] = me.token;
  const answer = await fetch(API + path, {
    method: options.method || "GET",
    headers,
    body: options.body === undefined ? undefined : JSON.stringify(options.body),
    signal: options.signal || AbortSignal.timeout(30000),
  });
  const content = await answer.json().catch(() => ({}));
  if (answer.status === 401 && path !== "/login" && !options.stay) {
    location.href = `/login?next=${encodeURIComponent(location.pathname)}`;
    await new Promise(() => {});
  }
  if (!answer.ok) throw new ApiError(answer.status, content);
  return content;
}

export const token = () => (me ? me.token : "");
export const post = (path, body, more = {}) => api(path, { method: "POST", body, ...more });

// Saves what the server makes; where it cannot, says why instead of leaving the page.
export async function save(path, name) {
  toast(`${name} is being made`, 60000);
  try {
    const answer = await fetch(API + path);
    if (!answer.ok) throw new ApiError(answer.status, await answer.json().catch(() => ({})));
    const address = URL.createObjectURL(await answer.blob());
    el("a", { href: address, download: name }).click();
    setTimeout(() => URL.revokeObjectURL(address), 60000);
    toast(`${name} is saved`, 2000);
  } catch (error) { toast(error.message); }
}

// Makes an element; text is always text, never markup.
export function el(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value === true) made.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) made.setAttribute(name, value);
  }
  made.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return made;
}

const SVG = "http://www.w3.org/2000/svg";
export function svg(tag, attributes = {}, ...children) {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

export const chip = (text, kind = "") => el("span", { class: `chip ${kind}` }, text.replaceAll("_", " "));
export const counted = (n, thing) => `${n} ${thing}${n === 1 ? "" : "s"}`;
export const percent = (p) => (p > 0 && p < 0.01 ? "<1 %" : `${Math.round(100 * p)} %`);
export const newKey = () => Array.from(crypto.getRandomValues(new Uint8Array(16)), (b) => b.toString(16).padStart(2, "0")).join("");

// What stops a page before it is there is told in its place.
window.addEventListener("error", (event) => {
  if (!document.body.dataset.ready) document.getElementById("main").append(el("p", { class: "alarm", role: "alert" }, `The page could not be loaded (${event.message}): reload it.`));
});

let hide = 0;
export function toast(text, milliseconds = 5000) {
  const place = document.getElementById("toast");
  place.textContent = text;
  place.classList.add("shown");
  clearTimeout(hide);
  hide = setTimeout(() => place.classList.remove("shown"), milliseconds);
}

function theme(next) {
  const kinds = ["auto", "light", "dark"];
  let now = localStorage.getItem("review-theme") || "auto";
  if (next) now = kinds[(kinds.indexOf(now) + 1) % 3];
  localStorage.setItem("review-theme", now);
  if (now === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = now;
  return now;
}

// Fills the bar and the foot, and tells who is here.
export async function start(...middle) {
  theme(false);
  me = await api("/me");
  const colors = el("button", { title: "light or dark", "aria-label": "color theme", onclick: () => { colors.textContent = `◐ ${theme(true)}`; } }, `◐ ${theme(false)}`);
  const bar = document.getElementById("bar");
  bar.replaceChildren(
    el("a", { class: "brand", href: "/" }, "DeepACC-D2 review"),
    el("a", { href: "/" }, "Worklist"),
    el("a", { href: "/search" }, "Search"),
    ...middle,
    el("span", { class: "space" }),
    colors,
    el("span", { class: "pale" }, me.user, el("span", { class: "role" }, `, ${me.role}`)),
  );
  if (me.login) {
    bar.append(el("button", { onclick: async () => { await post("/logout"); location.href = "/login"; } }, "Log out"));
  }
  document.getElementById("foot").textContent = me.disclaimer;
  return me;
}

// Asks in a dialog; gives the fields' values, or null. Fields: [name, label, kind, value].
export function ask(title, fields, action = "OK") {
  return new Promise((done) => {
    const inputs = fields.map(([name, label, kind, value]) => {
      const input = kind === "textarea" ? el("textarea", { name, required: true }) : el("input", { name, type: kind || "text" });
      input.value = value || "";
      return el("label", {}, label, input);
    });
    const form = el("form", { method: "dialog" },
      el("h2", {}, title), ...inputs,
      el("div", { class: "buttons" },
        el("button", { type: "button", onclick: () => dialog.close("no") }, "Cancel"),
        el("button", { class: "main", value: "yes" }, action)));
    const dialog = el("dialog", {}, form);
    dialog.addEventListener("close", () => {
      const values = Object.fromEntries(new FormData(form));
      dialog.remove();
      done(dialog.returnValue === "yes" ? values : null);
    });
    dialog.addEventListener("keydown", (event) => event.stopPropagation());
    document.body.append(dialog);
    dialog.showModal();
  });
}

export function sheet(title, keys) {
  const dialog = el("dialog", {}, el("h2", {}, title),
    el("div", { class: "sheet" }, ...keys.map(([key, text]) => el("div", {}, el("kbd", {}, key), el("span", {}, text)))),
    el("p", { class: "pale" }, "Esc closes this sheet."));
  dialog.addEventListener("close", () => dialog.remove());
  document.body.append(dialog);
  dialog.showModal();
}

// Calls back with what others changed, every two seconds while the page is seen.
export function watch(since, changed) {
  let seq = since;
  const look = async () => {
    if (!document.hidden) {
      try {
        const told = await api(`/changes?after=${seq}`);
        if (told.seq > seq) { seq = told.seq; await changed(told); }
      } catch (error) { if (error.status) console.warn(error.message); }
    }
    setTimeout(look, 2000);
  };
  setTimeout(look, 2000);
}

export const typing = (event) => /^(INPUT|TEXTAREA|SELECT)$/.test(event.target.tagName) || document.querySelector("dialog[open]");
