"""A comparison of runs as text for the terminal."""

from __future__ import annotations

import math

from tabulate import tabulate

from deepacc_d2.evaluation.comparison.result import Comparison
from deepacc_d2.evaluation.comparison.settings import show
from deepacc_d2.evaluation.comparison.table import METRICS, NUMBERS, Difference, Spread

_STYLE: dict = {"tablefmt": "simple", "disable_numparse": True}
_HIDDEN = ("epochs", "best_epoch", "images_per_second", "parameters", "device")


def format_comparison(comparison: Comparison) -> str:
    """Returns notes, the table of runs, that of groups, differences, and what was left out."""
    blocks = [comparison.title]
    if comparison.notes:
        blocks.append("\n".join(f"note: {note}" for note in comparison.notes))
    blocks.append(_runs(comparison))
    if any(len(group.rows) > 1 for group in comparison.groups):
        blocks.append("by group, mean +- sd over its runs, percent\n" + _groups(comparison))
    if comparison.reference:
        blocks.append(
            f"difference to {comparison.reference}, percentage points, +- sd of one run's "
            "difference (* over paired seeds)\n" + _differences(comparison)
        )
    if comparison.left_out:
        rows = [[run.name, run.state, run.reason] for run in comparison.left_out]
        blocks.append("not compared\n" + tabulate(rows, headers=["run", "", "why"], **_STYLE))
    return "\n\n".join(blocks)


def number(column: str, value: float) -> str:
    """Formats a cell of the table of runs; ``-`` where unknown."""
    if math.isnan(value):
        return "-"
    if column.startswith(("val_", "test_")):
        return f"{value:.2f}"
    if column == "images_per_second":
        return f"{value:.1f}"
    return f"{value:.0f}"


def spread_text(spread: Spread, plus_minus: str = "+-") -> str:
    """Formats a mean with its standard deviation."""
    if not spread.n:
        return "-"
    if math.isnan(spread.sd):
        return f"{spread.mean:.2f}"
    return f"{spread.mean:.2f} {plus_minus} {spread.sd:.2f}"


def difference_text(found: Difference, plus_minus: str = "+-") -> str:
    """Formats a difference with its spread and whether it is over paired seeds."""
    if math.isnan(found.value):
        return "-"
    sd = "" if math.isnan(found.sd) else f" {plus_minus} {found.sd:.2f}"
    return f"{found.value:+.2f}{sd}{'*' if found.pairs else ''}"


def _runs(comparison: Comparison) -> str:
    table = comparison.table
    columns = [
        name
        for name in table.columns
        if name not in _HIDDEN and not (name in NUMBERS and table[name].isna().all())
    ]
    rows = [
        [number(name, row[name]) if name in NUMBERS else show(row[name]) for name in columns]
        for _, row in table.iterrows()
    ]
    headers = [name.removeprefix("test_").replace("train_seconds", "seconds") for name in columns]
    return tabulate(rows, headers=headers, **_STYLE)


def _groups(comparison: Comparison) -> str:
    metrics = _known(comparison)
    rows = [
        [group.label, str(len(group.rows)), *(spread_text(group.metrics[m]) for m in metrics)]
        for group in comparison.groups
    ]
    headers = ["", "n", *(name.removeprefix("test_") for name in metrics)]
    return tabulate(rows, headers=headers, **_STYLE)


def _differences(comparison: Comparison) -> str:
    metrics = _known(comparison)
    rows = [
        [group.label, *(difference_text(group.differences[m]) for m in metrics)]
        for group in comparison.groups
        if group.differences
    ]
    headers = ["", *(f"d {name.removeprefix('test_')}" for name in metrics)]
    return tabulate(rows, headers=headers, **_STYLE)


def _known(comparison: Comparison) -> list[str]:
    return [name for name in METRICS if comparison.table[name].notna().any()]
