"""The page of a comparison: one HTML file that opens without network, plots included."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.resources import files

import plotly.io
from plotly.offline import get_plotlyjs

from deepacc_d2.evaluation.comparison.colors import color_runs
from deepacc_d2.evaluation.comparison.page_figure import Plot
from deepacc_d2.evaluation.comparison.page_grids import (
    class_plot,
    group_error_plots,
    parallel_plot,
)
from deepacc_d2.evaluation.comparison.page_plots import (
    bar_plots,
    cost_plots,
    curve_plots,
    loss_plots,
)
from deepacc_d2.evaluation.comparison.page_sensitivity import (
    TEST,
    VALIDATION,
    interaction_plots,
    sensitivity_plots,
)
from deepacc_d2.evaluation.comparison.page_tables import (
    differences_table,
    esc,
    groups_table,
    intervals_table,
    plain_table,
    runs_table,
)
from deepacc_d2.evaluation.comparison.result import Comparison, to_dict
from deepacc_d2.evaluation.comparison.settings import show

POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data: blob:; "
    "script-src 'unsafe-inline' 'unsafe-eval'"
)
"""Nothing is loaded from anywhere; the drawing of parallel coordinates compiles its own code."""

LONG = 16
"""Rows up to which a table of groups is shown unfolded."""


@dataclass
class _Page:
    """Sections in the making, and the figures that they refer to by number."""

    sections: list[tuple[str, str, str]] = field(default_factory=list)
    figures: list[dict] = field(default_factory=list)

    def add(self, name: str, title: str, content: str) -> None:
        self.sections.append((name, title, content))

    def plot(self, plot: Plot, *, hidden: bool = False, heading: bool = False) -> str:
        # Through Plotly's own encoder, which knows what its figures hold.
        self.figures.append(json.loads(plotly.io.to_json(plot.figure, validate=False)))
        number = len(self.figures) - 1
        height = plot.figure.layout.height
        return (
            f"<figure{' hidden' if hidden else ''}>"
            + (f"<h3>{esc(plot.title)}</h3>" if heading else "")
            + f'<div class="plot" data-figure="{number}" style="min-height:{height}px" '
            f'role="img" aria-label="{esc(plot.title)}"></div>'
            + (f"<figcaption>{esc(plot.note)}</figcaption>" if plot.note else "")
            + "</figure>"
        )

    def tabs(self, plots: Sequence[Plot]) -> str:
        """One plot at a time, chosen by buttons."""
        if len(plots) == 1:
            return self.plot(plots[0])
        buttons = "".join(
            f'<button type="button" aria-pressed="{str(not i).lower()}">{esc(plot.title)}</button>'
            for i, plot in enumerate(plots)
        )
        shown = "".join(self.plot(plot, hidden=i > 0) for i, plot in enumerate(plots))
        return f'<div><div class="tabs">{buttons}</div>{shown}</div>'

    def grid(self, plots: Sequence[Plot]) -> str:
        """All plots, as many beside each other as there is room for."""
        content = "".join(self.plot(plot, heading=True) for plot in plots)
        return f'<div class="grid">{content}</div>'


def build_page(comparison: Comparison) -> str:
    """Returns the page: one HTML text with style, program, data and plots in it."""
    page = _Page()
    _add_tables(page, comparison)
    _add_plots(page, comparison)
    _add_facts(page, comparison)
    here = files(__package__)
    style = (here / "page.css").read_text(encoding="utf-8")
    program = (here / "page.js").read_text(encoding="utf-8")
    links = "".join(f'<a href="#{name}">{esc(title)}</a>' for name, title, _ in page.sections)
    sections = "".join(
        f'<section id="{name}"><h2>{esc(title)}</h2>{content}</section>'
        for name, title, content in page.sections
    )
    notes = "".join(f'<p class="note">{esc(note)}</p>' for note in comparison.notes)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{esc(comparison.title)}</title><style>{style}</style></head>\n"
        f"<body><header><h1>{esc(comparison.title)}</h1>{_subtitle(comparison)}{notes}"
        f"{_cards(comparison)}<nav>{links}</nav></header>\n<main>{sections}</main>\n"
        "<footer>Made by DeepACC-D2. Research software, not a medical device. This page holds all "
        "that it shows, its plots by Plotly.js (MIT licence) included.</footer>\n"
        f"{_data('comparison', to_dict(comparison))}"
        f"{_data('csv', comparison.table.to_csv(index=False))}"
        f"{_data('figures', page.figures)}\n"
        f"<script>{get_plotlyjs()}</script>\n<script>{program}</script>\n</body></html>\n"
    )


def _data(name: str, content: object) -> str:
    # Within a script only "<" can end it or open a comment.
    text = json.dumps(content, allow_nan=False).replace("<", "\\u003c")
    return f'<script type="application/json" id="{name}">{text}</script>'


def _subtitle(comparison: Comparison) -> str:
    runs = comparison.runs
    data = dict.fromkeys(f"{r.data_name} ({(r.fingerprint or 'unknown')[:12]})" for r in runs)
    code = dict.fromkeys((r.revision or "unknown")[:12] for r in runs)
    parts = [f"data {', '.join(data)}", f"revision {', '.join(code)}"]
    varying = ", ".join(comparison.settings.labels.values())
    parts.append(f"the runs differ in {varying}" if varying else "no setting differs")
    if comparison.left_out:
        parts.append(f"{len(comparison.left_out)} more could not be compared")
    return f'<p class="soft">{esc("; ".join(parts))}.</p>'


def _cards(comparison: Comparison) -> str:
    table = comparison.table
    cards = [(str(len(table)), "runs compared")]
    if table["val_map50"].notna().any():
        best = table.loc[table["val_map50"].idxmax()]
        cards.append((show(best["run"]), "best run, chosen by validation map50"))
        cards.append((f"{best['val_map50']:.2f} %", "its validation map50"))
        for metric, name in (("test_map50", "map50"), ("test_aer", "AER")):
            if not math.isnan(best[metric]):
                cards.append((f"{best[metric]:.2f} %", f"its test {name}"))
    inner = "".join(
        f'<div class="card"><b>{esc(value)}</b><span>{esc(name)}</span></div>'
        for value, name in cards
    )
    return f'<div class="cards">{inner}</div>'


def _add_tables(page: _Page, comparison: Comparison) -> None:
    coloring = color_runs(comparison)
    page.add(
        "summary",
        "Runs",
        '<p class="soft">Metrics in percent. ★ is the best by validation map50; test metrics are '
        "reported, not chosen by. A click on a heading sorts.</p>"
        '<div class="tools"><input id="filter" type="search" placeholder="Filter: preset, value, '
        'name" aria-label="Filter runs"><button id="save" type="button">Save as CSV</button></div>'
        + runs_table(comparison, coloring),
    )
    if any(len(group.rows) > 1 for group in comparison.groups):
        page.add(
            "groups",
            "Groups",
            '<p class="soft">Mean ± standard deviation over the runs of a group, percent.</p>'
            + groups_table(comparison),
        )
    if comparison.reference:
        intervals = intervals_table(comparison)
        page.add(
            "differences",
            f"Differences to {comparison.reference}",
            '<p class="soft">Percentage points, ± standard deviation of the difference of one run '
            "to one run. * paired: mean over the seeds that both have.</p>"
            + _folded(differences_table(comparison), len(comparison.groups))
            + (
                "<h3>On the same test images</h3>" + _folded(intervals, len(comparison.groups))
                if intervals
                else ""
            )
            + f'<p class="soft">{esc(comparison.bootstrap_note)}</p>',
        )


def _folded(table: str, rows: int) -> str:
    if rows <= LONG:
        return table
    return f"<details><summary>{rows} rows</summary>{table}</details>"


def _add_plots(page: _Page, comparison: Comparison) -> None:
    coloring = color_runs(comparison)
    bars = bar_plots(comparison, coloring)
    if bars and len(comparison.groups) > 1:
        page.add("bars", "Metrics by group", page.tabs(bars))
    chosen = sensitivity_plots(comparison, coloring, VALIDATION)
    if chosen:
        reported = sensitivity_plots(comparison, coloring, TEST)
        content = (
            "<p>Settings are chosen by validation. What the test split says of them is below, to "
            "report and not to choose by.</p>"
        )
        content += page.grid([plot for plots in chosen.values() for plot in plots])
        if reported:
            inner = page.grid([plot for plots in reported.values() for plot in plots])
            content += f"<details><summary>On the test split</summary>{inner}</details>"
        page.add("sensitivity", "Sensitivity to each setting", content)
    pairs = interaction_plots(comparison)
    if pairs:
        page.add(
            "interactions",
            "Pairs of settings",
            '<p class="soft">Mean validation map50, percent, and number of runs.</p>'
            + page.grid(pairs),
        )
    parallel = parallel_plot(comparison)
    if parallel:
        page.add("parallel", parallel.title, page.plot(parallel))
    legend = {
        "group": "",
        "preset": "Colors stand for presets.",
        "val_map50": "Color: validation map50, from yellow (lowest) to dark blue (highest).",
    }[coloring.by]
    curves, losses = curve_plots(comparison, coloring), loss_plots(comparison, coloring)
    if curves or losses:
        content = f'<p class="soft">{legend}</p>' if legend else ""
        content += page.grid(curves) + (page.tabs(losses) if losses else "")
        page.add("curves", "Learning curves", content)
    classes = class_plot(comparison)
    if classes:
        page.add("classes", classes.title, page.plot(classes))
    errors = group_error_plots(comparison)
    if errors:
        page.add("errors", "Errors by Denver group", page.tabs(errors))
    cost = cost_plots(comparison, coloring)
    if cost:
        page.add("cost", "Cost", page.grid(cost))


def _add_facts(page: _Page, comparison: Comparison) -> None:
    if comparison.left_out:
        rows = [[run.name, run.state, run.reason] for run in comparison.left_out]
        page.add("left-out", "Not compared", plain_table(["run", "state", "why"], rows, "why"))
    runs = comparison.runs
    facts = {
        "git revision": dict.fromkeys(str(run.revision) for run in runs),
        "data": dict.fromkeys(f"{run.data_name}, fingerprint {run.fingerprint}" for run in runs),
        "device": dict.fromkeys(str(run.facts.get("device")) for run in runs),
        "versions": dict.fromkeys(_versions(run.facts.get("versions")) for run in runs),
    }
    rows = [[name, "; ".join(values)] for name, values in facts.items()]
    settings = [[key, show(value)] for key, value in comparison.settings.common.items()]
    page.add(
        "common",
        "What the runs have in common",
        plain_table(["", ""], rows, "value")
        + f"<details><summary>{len(settings)} settings that do not differ</summary>"
        + plain_table(["key", "value"], settings, "value")
        + "</details>",
    )


def _versions(found: object) -> str:
    if not isinstance(found, dict):
        return "unknown"
    return ", ".join(f"{name} {version}" for name, version in found.items())
