"use strict";
// Plots are drawn when they first come near the window: a page of many opens at once.
const figures = JSON.parse(document.getElementById("figures").textContent);
// Nothing leaves this page: Plotly would offer to upload a chart.
const config = {
  responsive: true, displaylogo: false, showSendToCloud: false, plotlyServerURL: "",
  modeBarButtons: [["zoom2d", "pan2d", "resetScale2d", "toImage"]],
};

function draw(plot) {
  if (plot.dataset.drawn || plot.closest("[hidden]")) return Promise.resolve();
  plot.dataset.drawn = "yes";
  plot.textContent = "";
  const figure = figures[plot.dataset.figure];
  return Plotly.newPlot(plot, figure.data, figure.layout, config);
}

const plots = [...document.querySelectorAll(".plot")];
const watcher = new IntersectionObserver(
  (entries) => entries.filter((e) => e.isIntersecting).forEach((e) => draw(e.target)),
  { rootMargin: "600px" },
);
plots.forEach((plot) => watcher.observe(plot));

// Plotly does not follow the width of paper by itself.
const PAPER = 680;
window.addEventListener("beforeprint", () => {
  document.querySelectorAll("details").forEach((part) => { part.open = true; });
  plots.forEach((plot) => {
    draw(plot);
    if (plot.dataset.drawn) Plotly.relayout(plot, { autosize: false, width: PAPER });
  });
});
window.addEventListener("afterprint", () => plots.forEach((plot) => {
  if (plot.dataset.drawn) Plotly.relayout(plot, { autosize: true, width: null });
}));

document.querySelectorAll(".tabs").forEach((tabs) => {
  const buttons = [...tabs.querySelectorAll("button")];
  const shown = [...tabs.parentElement.querySelectorAll(":scope > figure")];
  buttons.forEach((button, chosen) => button.addEventListener("click", () => {
    buttons.forEach((b, i) => b.setAttribute("aria-pressed", String(i === chosen)));
    shown.forEach((figure, i) => { figure.hidden = i !== chosen; });
    draw(shown[chosen].querySelector(".plot"));
  }));
});

// Unknown values go last whichever way a column is sorted.
function sortBy(table, column, descending) {
  const body = table.tBodies[0];
  const key = (row) => row.cells[column].dataset.value ?? row.cells[column].textContent;
  const rows = [...body.rows].sort((a, b) => {
    const [x, y] = [key(a), key(b)];
    if (x === "" || y === "") return (x === "") - (y === "");
    const [m, n] = [Number(x), Number(y)];
    const order = Number.isNaN(m) || Number.isNaN(n) ? x.localeCompare(y, undefined, { numeric: true }) : m - n;
    return descending ? -order : order;
  });
  body.append(...rows);
}

document.querySelectorAll("table.sortable").forEach((table) => {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => head.querySelector("button").addEventListener("click", () => {
    const before = head.getAttribute("aria-sort");
    const descending = before ? before === "ascending" : head.dataset.first === "descending";
    heads.forEach((other) => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", descending ? "descending" : "ascending");
    sortBy(table, column, descending);
  }));
});

const filter = document.getElementById("filter");
if (filter) {
  const rows = [...document.getElementById("runs").tBodies[0].rows];
  filter.addEventListener("input", () => {
    const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
    rows.forEach((row) => {
      const text = row.dataset.search;
      row.hidden = !words.every((word) => text.includes(word));
    });
  });
  document.getElementById("save").addEventListener("click", () => {
    const text = JSON.parse(document.getElementById("csv").textContent);
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([text], { type: "text/csv" }));
    link.download = "compare.csv";
    link.click();
    URL.revokeObjectURL(link.href);
  });
}
