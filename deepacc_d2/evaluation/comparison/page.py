"""The page of a comparison: one HTML file that opens without network, plots included."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from typing import Any

import plotly.io
from plotly.offline import get_plotlyjs

from deepacc_d2.evaluation.comparison.colors import Coloring, color_runs
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
from deepacc_d2.evaluation.comparison.result import Comparison, to_dict
from deepacc_d2.evaluation.comparison.settings import show
from deepacc_d2.evaluation.comparison.table import LOWER_IS_BETTER, METRICS, NUMBERS
from deepacc_d2.evaluation.comparison.text import (
    differences_table,
    groups_table,
    intervals_table,
    number,
    table_csv,
)
from deepacc_d2.pages import render

HEADS = {
    "val_map50": "val map50",
    "val_aer": "val AER",
    "best_epoch": "best epoch",
    "test_aer": "test AER",
    "train_seconds": "train s",
    "images_per_second": "images/s",
}
LEGENDS = {
    "group": "",
    "preset": "Colors stand for presets.",
    "val_map50": "Color: validation map50, from yellow (lowest) to dark blue (highest).",
}


def build_page(comparison: Comparison) -> str:
    """Returns the page: one HTML text with style, program, data and plots in it."""
    coloring = color_runs(comparison)
    runs = comparison.runs
    several = any(len(group.rows) > 1 for group in comparison.groups)
    figures: list[dict[str, Any]] = []

    def number_of(plot: Plot) -> int:
        # Through Plotly's own encoder, which knows what its figures hold.
        figures.append(json.loads(plotly.io.to_json(plot.figure, validate=False)))
        return len(figures) - 1

    facts = {
        "git revision": (run.revision for run in runs),
        "data": (f"{run.data_name}, fingerprint {run.fingerprint}" for run in runs),
        "device": (run.facts.get("device") for run in runs),
        "versions": (_versions(run.facts.get("versions")) for run in runs),
    }
    return render(
        __package__,
        "page.html.j2",
        comparison=comparison,
        subtitle=_subtitle(comparison),
        cards=_cards(comparison),
        runs=_runs(comparison, coloring),
        groups=groups_table(comparison, "±", head) if several else None,
        differences=differences_table(comparison, "±", lambda name: f"Δ {head(name)}"),
        intervals=intervals_table(comparison, lambda name: f"Δ {head(name)}"),
        bars=bar_plots(comparison, coloring),
        chosen=sensitivity_plots(comparison, coloring, VALIDATION),
        reported=sensitivity_plots(comparison, coloring, TEST),
        pairs=interaction_plots(comparison),
        parallel=parallel_plot(comparison),
        legend=LEGENDS[coloring.by],
        curves=curve_plots(comparison, coloring),
        losses=loss_plots(comparison, coloring),
        classes=class_plot(comparison),
        errors=group_error_plots(comparison),
        cost=cost_plots(comparison, coloring),
        left_out=[[run.name, run.state, run.reason] for run in comparison.left_out],
        facts=[[name, _distinct(values, "; ")] for name, values in facts.items()],
        settings=[[key, show(value)] for key, value in comparison.settings.common.items()],
        content=to_dict(comparison),
        csv=table_csv(comparison),
        figures=figures,
        number=number_of,
        plotly=get_plotlyjs(),
    )


def head(column: str) -> str:
    """Returns the heading of a column."""
    return HEADS.get(column, column.replace("test_", "test ").replace("val_", "val "))


def _distinct(values: Iterable[object], separator: str = ", ") -> str:
    return separator.join(dict.fromkeys(map(str, values)))


def _subtitle(comparison: Comparison) -> str:
    runs = comparison.runs
    varying = ", ".join(comparison.settings.labels.values())
    data = _distinct(f"{r.data_name} ({(r.fingerprint or 'unknown')[:12]})" for r in runs)
    parts = [
        f"data {data}",
        f"revision {_distinct((run.revision or 'unknown')[:12] for run in runs)}",
        f"the runs differ in {varying}" if varying else "no setting differs",
    ]
    if comparison.left_out:
        parts.append(f"{len(comparison.left_out)} more could not be compared")
    return "; ".join(parts)


def _cards(comparison: Comparison) -> list[tuple[str, str]]:
    table = comparison.table
    cards = [(str(len(table)), "runs compared")]
    if table["val_map50"].notna().any():
        best = table.loc[table["val_map50"].idxmax()]
        cards.append((show(best["run"]), "best run, chosen by validation map50"))
        cards.append((f"{best['val_map50']:.2f} %", "its validation map50"))
        for metric, name in (("test_map50", "map50"), ("test_aer", "AER")):
            if not math.isnan(best[metric]):
                cards.append((f"{best[metric]:.2f} %", f"its test {name}"))
    return cards


def _runs(comparison: Comparison, coloring: Coloring) -> dict[str, Any]:
    """Returns the sortable table of runs: of each cell what it is sorted by and what is shown."""
    table = comparison.table
    names = [c for c in table.columns if not (c in NUMBERS and table[c].isna().all())]
    best = table["val_map50"].idxmax() if table["val_map50"].notna().any() else None
    columns = [
        {
            "head": head(name),
            "text": name not in NUMBERS,
            "first": "descending"
            if name in METRICS and name not in LOWER_IS_BETTER
            else "ascending",
        }
        for name in names
    ]
    rows = []
    for row, record in enumerate(table.to_dict("records")):
        texts = {name: show(record[name]) for name in names if name not in NUMBERS}
        cells = [
            (texts[name],) * 2
            if name in texts
            else ("" if math.isnan(record[name]) else record[name], number(name, record[name]))
            for name in names
        ]
        search = " ".join(texts.values()).lower()
        color = coloring.colors[row]
        rows.append({"best": row == best, "search": search, "color": color, "cells": cells})
    return {"columns": columns, "rows": rows}


def _versions(found: object) -> str:
    if not isinstance(found, dict):
        return "unknown"
    return ", ".join(f"{name} {version}" for name, version in found.items())
