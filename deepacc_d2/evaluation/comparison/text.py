"""A comparison of runs as text for the terminal."""

from __future__ import annotations

import math
from collections.abc import Callable

from tabulate import tabulate

from deepacc_d2.evaluation.bootstrap import METRICS as TESTED
from deepacc_d2.evaluation.comparison.result import Comparison
from deepacc_d2.evaluation.comparison.settings import show
from deepacc_d2.evaluation.comparison.table import METRICS, NUMBERS, Difference, Spread
from deepacc_d2.files import plain_cell

Table = tuple[list[str], list[list[str]]]
"""Heads of the columns, and rows of as many texts."""
_STYLE: dict = {"tablefmt": "simple", "disable_numparse": True}
_HIDDEN = ("epochs", "best_epoch", "images_per_second", "parameters", "device")


def format_comparison(comparison: Comparison) -> str:
    """Returns notes, the table of runs, that of groups, differences, and what was left out."""
    blocks = [comparison.title]
    if comparison.notes:
        blocks.append("\n".join(f"note: {note}" for note in comparison.notes))
    blocks.append(_runs(comparison))
    if any(len(group.rows) > 1 for group in comparison.groups):
        blocks.append(
            "by group, mean +- sd over its runs, percent\n"
            + _text(groups_table(comparison, head=_short))
        )
    if comparison.reference:
        blocks.append(
            f"difference to {comparison.reference}, percentage points, +- sd of one run's "
            "difference (* over paired seeds)\n"
            + _text(differences_table(comparison, head=lambda name: f"d {_short(name)}"))
        )
    if comparison.left_out:
        rows = [[run.name, run.state, run.reason] for run in comparison.left_out]
        blocks.append("not compared\n" + _text((["run", "", "why"], rows)))
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
    headers = [_short(name).replace("train_seconds", "seconds") for name in columns]
    return _text((headers, rows))


def _text(table: Table) -> str:
    heads, rows = table
    return tabulate(rows, headers=heads, **_STYLE)


def groups_table(
    comparison: Comparison, plus_minus: str = "+-", head: Callable[[str], str] = str
) -> Table:
    """Returns mean, standard deviation and number of runs of each group: heads and rows."""
    metrics = _known(comparison)
    rows = [
        [
            group.label,
            str(len(group.rows)),
            *(spread_text(group.metrics[name], plus_minus) for name in metrics),
        ]
        for group in comparison.groups
    ]
    return ["group", "n", *map(head, metrics)], rows


def differences_table(
    comparison: Comparison, plus_minus: str = "+-", head: Callable[[str], str] = str
) -> Table:
    """Returns each group's difference to the reference: heads and rows."""
    metrics = _known(comparison)
    rows = [
        [group.label, *(difference_text(group.differences[m], plus_minus) for m in metrics)]
        for group in comparison.groups
        if group.differences
    ]
    return ["group", *map(head, metrics)], rows


def intervals_table(comparison: Comparison, head: Callable[[str], str] = str) -> Table:
    """Returns the intervals of the paired bootstrap: heads and rows, none without one."""
    rows = [
        [group.label, *(found.text((column,), 2) for column in range(len(TESTED)))]
        for group in comparison.groups
        if (found := comparison.bootstrap.get(group.label)) and found.difference is not None
    ]
    return ["group", *(head(f"test_{name}") for name in TESTED)], rows


def _short(metric: str) -> str:
    return metric.removeprefix("test_")


def _known(comparison: Comparison) -> list[str]:
    return [name for name in METRICS if comparison.table[name].notna().any()]


def table_csv(comparison: Comparison) -> str:
    """Returns the table of runs as CSV, with no formula in what users have named."""
    table = comparison.table
    text: str = table.map(plain_cell).rename(columns=plain_cell).to_csv(index=False)
    return text
