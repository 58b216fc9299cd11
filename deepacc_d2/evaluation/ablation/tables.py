"""The ablation as text: Markdown from templates, and a table for the terminal."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from tabulate import tabulate

from deepacc_d2.evaluation.ablation.result import AblationResult, row_of
from deepacc_d2.evaluation.bootstrap import METRICS, Estimate
from deepacc_d2.evaluation.tally import ERRORS, GROUPS
from deepacc_d2.pages import render

METRIC_NAMES: dict[str, str] = dict(
    zip(METRICS, ("mAP", "mAP_max", "AER", "Acc"), strict=True)  # the paper's names
)
ERROR_NAMES: dict[str, str] = {
    "within_group_confusions": "within group",
    "between_group_confusions": "between groups",
    "missed": "missed",
    "spurious": "spurious",
    "errors": "all errors",
}
Table = tuple[list[str], list[list[str]]]
"""Heads of the columns, and rows of as many texts."""


def format_metrics(result: AblationResult) -> str:
    """Returns the metrics as aligned plain text: first their values, then the differences."""
    metrics = list(METRIC_NAMES.values())
    blocks = [
        f"{result.title}\n{_data(result)}; in percent, mean +- sd over seeds",
        _plain([*metrics, "seeds"], _values(result, "+-")),
    ]
    if result.has_reference:
        differences = _plain([f"d {name}" for name in metrics], _differences(result))
        blocks.append(
            f"difference to {result.reference}, 95 % interval over {result.resamples} resamples "
            f"of the test cases\n{differences}"
        )
    else:
        blocks.append(
            f"No run of {result.reference} is among these, so there are no differences to it."
        )
    return "\n\n".join(blocks)


def metrics_markdown(
    result: AblationResult, *, heading: str = "#", figure: str | None = "metrics.png"
) -> str:
    """Returns the metrics as Markdown, with protocol, commands and figure.

    Args:
        result: the ablation.
        heading: the mark before the title, ``##`` for a section of a larger document.
        figure: link to the figure; ``None`` leaves it out.
    """
    metrics = list(METRIC_NAMES.values())
    values = {preset: [row_of(preset)[1], *cells] for preset, cells in _values(result, "±").items()}
    return render(
        __package__,
        "metrics.md.j2",
        result=result,
        data=_data(result),
        values=_named(["Model", *metrics, "Seeds"], values),
        differences=_named([f"Δ {name}" for name in metrics], _differences(result)),
        heading=heading,
        figure=figure,
    )


def confusions_markdown(
    result: AblationResult, *, heading: str = "#", figure: str | None = "confusions.png"
) -> str:
    """Returns the confusions as Markdown: all groups together, then each kind by group."""
    names = list(ERROR_NAMES.values())
    total = {
        preset: [_count(found.errors, (kind, 0), interval=True) for kind in range(len(ERRORS))]
        for preset, found in result.presets.items()
    }
    kinds = []
    for kind, name in enumerate(names):
        rows = {
            preset: [_count(found.errors, (kind, group)) for group in range(len(GROUPS))]
            for preset, found in result.presets.items()
        }
        kinds.append((name, *_named(GROUPS, rows)))
    return render(
        __package__,
        "confusions.md.j2",
        result=result,
        data=_data(result),
        total=_named(names, total),
        kinds=kinds,
        heading=heading,
        figure=figure,
    )


def _values(result: AblationResult, plus_minus: str) -> dict[str, list[str]]:
    cells = {}
    for preset, statistics in result.presets.items():
        found = statistics.metrics
        cells[preset] = [
            "-"
            if math.isnan(mean)
            else f"{mean:.2f}" + ("" if math.isnan(sd) else f" {plus_minus} {sd:.2f}")
            for mean, sd in zip(found.mean, found.sd, strict=True)
        ]
        cells[preset].append(str(len(found.values)))
    return cells


def _differences(result: AblationResult) -> dict[str, list[str]]:
    return {
        preset: [found.metrics.text((column,), 2) for column in range(len(METRICS))]
        for preset, found in result.presets.items()
        if preset != result.reference
    }


def _count(found: Estimate, cell: tuple[int, int], *, interval: bool = False) -> str:
    mean = f"{found.mean[cell]:.1f}"
    if found.difference is None:
        return mean
    return f"{mean} ({found.text(cell, 1) if interval else f'{found.difference[cell]:+.1f}'})"


def _named(heads: Sequence[str], cells: Mapping[str, Sequence[str]]) -> Table:
    """Puts row of Table 1 and preset before the cells of each preset."""
    rows = [[row_of(preset)[0], f"`{preset}`", *own] for preset, own in cells.items()]
    return ["", "Preset", *heads], rows


def _plain(heads: Sequence[str], cells: Mapping[str, Sequence[str]]) -> str:
    rows = [[*row_of(preset), *own] for preset, own in cells.items()]
    heads = ["", "model", *heads]
    return tabulate(rows, headers=heads, tablefmt="simple", disable_numparse=True)


def _data(result: AblationResult) -> str:
    cases = f" of {result.num_cases} cases" if result.num_cases < result.num_images else ""
    return f"{result.num_images} test images{cases}, {result.num_gt} chromosomes"
