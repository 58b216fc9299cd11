"""Draws ablations with one reference next to each other: does a part help on every trunk?

``python tests/benchmarks/trunks.py --figure F.png "NAME=runs/ablation/a/report/metrics.json" ...``
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from deepacc_d2 import palette
from deepacc_d2.errors import DataError, run_cli

METRICS = {
    "aer": "AER: errors in a hundred chromosomes, lower is better",
    "map50": "mAP at IoU 0.5, higher is better",
}
COLORS = (palette.BLUE, palette.ORANGE, *(palette.GROUP_COLORS[g] for g in "CD"), palette.MUTED)
WORDS = {
    "pair centers": "pair centers, shrinkage",
    "siamese": "siamese branch",
    "AAM": "margin",
    "center=pair": "pair centers",
    "center_share=0.5": "shrinkage",
}
"""Of a row, and what a reader of the paper knows."""
# Of the next ablation's mark below a row's middle, in rows.
APART = 0.16


def read(text: str) -> tuple[str, dict[str, Any]]:
    """Returns the name and the report of an argument ``NAME=FILE``.

    Raises:
        DataError: it has no name, or the file is no report of an ablation with a reference.
    """
    name, _, path = text.partition("=")
    try:
        report: dict[str, Any] = json.loads(Path(path).read_text(encoding="utf-8"))
        report["presets"][report["reference"]]["metrics"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{text}: give NAME=<ablation>/report/metrics.json ({error})") from error
    return name, report


def rows_of(reports: dict[str, dict[str, Any]]) -> dict[str, str]:
    """Returns the rows of all reports, in the order of the first: its preset and what it says."""
    rows: dict[str, str] = {}
    for report in reports.values():
        for preset, facts in report["presets"].items():
            mark = f"({facts['row']}) " if facts["row"] else f"{preset}: "
            text = facts["model"].replace("sep + ", "")
            for word, plain in WORDS.items():
                text = text.replace(word, plain)
            rows.setdefault(preset, mark + text)
    return rows


def draw(reports: dict[str, dict[str, Any]]) -> Figure:
    """Draws the difference to the reference of every row, with its interval, by ablation."""
    rows = rows_of(reports)
    reference = next(iter(reports.values()))["reference"]
    figure = Figure(figsize=(13, 1.6 + 0.5 * len(rows)), layout="constrained")
    panels = figure.subplots(1, len(METRICS), sharey=True)
    for axes, (metric, title) in zip(panels, METRICS.items(), strict=True):
        for number, (name, report) in enumerate(reports.items()):
            found = {preset: each["metrics"][metric] for preset, each in report["presets"].items()}
            base = found[report["reference"]]["mean"]
            shift = APART * (number - (len(reports) - 1) / 2)
            drawn = [y for y, p in enumerate(rows) if p in found and found[p]["difference"]]
            differences = [found[list(rows)[y]]["difference"] for y in drawn]
            places = [y + shift for y in drawn]
            values = [d["value"] for d in differences]
            below = [d["value"] - d["low"] for d in differences]
            above = [d["high"] - d["value"] for d in differences]
            label = f"{name} ({report['reference']}: {base:.1f} %)"
            bars = {"color": COLORS[number % len(COLORS)], "elinewidth": 2.5, "markersize": 6}
            axes.errorbar(values, places, xerr=[below, above], fmt="o", label=label, **bars)
        axes.axvline(0, color=palette.DARK, lw=1.2)
        axes.grid(axis="x", color=palette.GRID)
        axes.set_axisbelow(True)
        axes.set_title(title, fontsize=11)
        axes.set_xlabel(f"difference to {reference}, percentage points")
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.13), frameon=False, fontsize=9)
    panels[0].set_yticks(range(len(rows)), list(rows.values()))
    panels[0].set_ylim(len(rows) - 0.5, -0.5)
    return figure


def main() -> int:
    """Command line: see the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("reports", nargs="+", help="NAME=<ablation>/report/metrics.json")
    parser.add_argument("--figure", type=Path, required=True, help="the PNG to write")
    options = parser.parse_args()
    draw(dict(read(text) for text in options.reports)).savefig(options.figure, dpi=110)
    return 0


if __name__ == "__main__":
    run_cli(main)
