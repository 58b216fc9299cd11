"""The tables of a comparison's page, as HTML; every text of a run is escaped."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence

from deepacc_d2.evaluation.comparison.colors import Coloring
from deepacc_d2.evaluation.comparison.result import Comparison
from deepacc_d2.evaluation.comparison.settings import show
from deepacc_d2.evaluation.comparison.table import (
    LOWER_IS_BETTER,
    METRICS,
    NUMBERS,
)
from deepacc_d2.evaluation.comparison.text import difference_text, number, spread_text

HEADS = {
    "val_map50": "val map50",
    "val_aer": "val AER",
    "best_epoch": "best epoch",
    "test_aer": "test AER",
    "train_seconds": "train s",
    "images_per_second": "images/s",
}


def esc(text: object) -> str:
    """Escapes a text for HTML, in attributes too."""
    return html.escape(str(text), quote=True)


def runs_table(comparison: Comparison, coloring: Coloring) -> str:
    """Returns the sortable table of runs; the best by validation is marked."""
    table = comparison.table
    columns = [c for c in table.columns if not (c in NUMBERS and table[c].isna().all())]
    best = table["val_map50"].idxmax() if table["val_map50"].notna().any() else None
    heads = []
    for column in columns:
        first = "ascending"
        if column in METRICS and column not in LOWER_IS_BETTER:
            first = "descending"
        kind = "" if column in NUMBERS else ' class="text"'
        heads.append(
            f'<th{kind} scope="col" data-first="{first}"><button type="button">'
            f"{esc(head(column))}</button></th>"
        )
    lines = []
    for row, color in enumerate(coloring.colors):
        record = table.iloc[row]
        cells = []
        for column in columns:
            value = record[column]
            if column in NUMBERS:
                raw = "" if math.isnan(value) else repr(float(value))
                cells.append(f'<td data-value="{raw}">{number(column, value)}</td>')
                continue
            text = esc(show(value))
            if column == "run":
                dot = f'<i class="swatch" style="background:{color}"></i>'
                mark = " ★" if row == best else ""
                cells.append(
                    f'<td class="text" data-value="{text}" title="{text}">{dot}{text}{mark}</td>'
                )
            else:
                cells.append(f'<td class="text" data-value="{text}">{text}</td>')
        search = esc(" ".join(show(record[c]) for c in columns if c not in NUMBERS).lower())
        kind = ' class="best"' if row == best else ""
        lines.append(f'<tr{kind} data-search="{search}">{"".join(cells)}</tr>')
    return (
        '<div class="scroll"><table id="runs" class="sortable"><thead><tr>'
        f"{''.join(heads)}</tr></thead><tbody>{''.join(lines)}</tbody></table></div>"
    )


def groups_table(comparison: Comparison) -> str:
    """Returns mean, standard deviation and number of runs of each group."""
    metrics = [name for name in METRICS if comparison.table[name].notna().any()]
    rows = [
        [
            group.label,
            str(len(group.rows)),
            *(spread_text(group.metrics[name], "±") for name in metrics),
        ]
        for group in comparison.groups
    ]
    return plain_table(["group", "n", *(head(name) for name in metrics)], rows)


def differences_table(comparison: Comparison) -> str:
    """Returns each group's difference to the reference: over seeds, and over test images."""
    metrics = [name for name in METRICS if comparison.table[name].notna().any()]
    others = [group for group in comparison.groups if group.differences]
    rows = [
        [
            group.label,
            *(difference_text(group.differences[name], "±") for name in metrics),
        ]
        for group in others
    ]
    return plain_table(["group", *(f"Δ {head(name)}" for name in metrics)], rows)


def intervals_table(comparison: Comparison) -> str:
    """Returns the intervals of the paired bootstrap; empty without one."""
    from deepacc_d2.evaluation.bootstrap import METRICS as TESTED

    rows = []
    for group in comparison.groups:
        found = comparison.bootstrap.get(group.label)
        if found is None or found.difference is None or found.low is None or found.high is None:
            continue
        cells = [
            "-"
            if math.isnan(float(value))
            else f"{float(value):+.2f} [{float(low):+.2f}, {float(high):+.2f}]"
            for value, low, high in zip(found.difference, found.low, found.high, strict=True)
        ]
        rows.append([group.label, *cells])
    if not rows:
        return ""
    return plain_table(["group", *(f"Δ {head('test_' + name)}" for name in TESTED)], rows)


def plain_table(heads: Sequence[str], rows: Sequence[Sequence[str]], last: str = "") -> str:
    """Returns a table of texts.

    Args:
        heads: of the columns.
        rows: of texts, not escaped yet.
        last: class of the cells of the last column.
    """
    line = "".join(f'<th scope="col">{esc(text)}</th>' for text in heads)
    kind = f' class="{last}"' if last else ""
    body = "".join(
        "<tr>"
        + "".join(f"<td>{esc(text)}</td>" for text in row[:-1])
        + f"<td{kind}>{esc(row[-1])}</td></tr>"
        for row in rows
    )
    return (
        f'<div class="scroll"><table><thead><tr>{line}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def head(column: str) -> str:
    """Returns the heading of a column."""
    return HEADS.get(column, column.replace("test_", "test ").replace("val_", "val "))
