import { api, el, post, toast } from "./common.js";

const error = el("p", { class: "alarm", role: "alert" });
const form = el("form", { class: "card" },
  el("h1", {}, "DeepACC-D2 review"),
  el("label", {}, "User", el("input", { name: "user", autocomplete: "username", required: true, autofocus: true })),
  el("label", {}, "Password", el("input", { name: "password", type: "password", autocomplete: "current-password", required: true })),
  el("button", { class: "main" }, "Log in"), error);
form.addEventListener("submit", async (event) => {
  event.preventDefault();
  error.textContent = "";
  try {
    await post("/login", Object.fromEntries(new FormData(form)));
    const next = new URLSearchParams(location.search).get("next") || "/";
    // Only to a page of this server: never to another site.
    location.href = /^\/[a-z0-9/]*$/.test(next) && !next.startsWith("//") ? next : "/";
  } catch (problem) {
    error.textContent = problem.message;
    form.elements.password.value = "";
  }
});
document.getElementById("main").append(form);
api("/me", { stay: true }).then(() => { location.href = "/"; }, (problem) => { if (!problem.status) toast("the server cannot be reached"); });
