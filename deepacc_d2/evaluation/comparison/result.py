"""A comparison of runs as a whole, and its files for machines: JSON content and CSV."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from deepacc_d2.evaluation.bootstrap import METRICS, Estimate, plain
from deepacc_d2.evaluation.comparison.runs import LeftOut, Run
from deepacc_d2.evaluation.comparison.settings import Settings, compare_settings, inseparable
from deepacc_d2.evaluation.comparison.table import COLUMNS, Group, group_runs, run_table

RESERVED = (*COLUMNS, "n", "mean", "sd")


@dataclass(frozen=True, eq=False)
class Comparison:
    """Runs, compared.

    Attributes:
        title: one line.
        runs: those that are compared.
        left_out: those that are not, with the reason.
        settings: what differs between the runs, and what does not.
        table: one row per run, see :func:`~deepacc_d2.evaluation.comparison.table.run_table`.
        groups: runs that differ at most in seed, or as asked.
        reference: label of the group that the others are compared with; ``None`` for one group.
        notes: what the reader must know before believing the numbers, one line each.
        bootstrap: by group's label, metrics (4,) with the interval of the difference over test
            cases; empty where the test predictions of the runs cannot be paired.
        bootstrap_note: how it was done, or why not.
    """

    title: str
    runs: Sequence[Run]
    left_out: Sequence[LeftOut]
    settings: Settings
    table: pd.DataFrame
    groups: Sequence[Group]
    reference: str | None
    notes: Sequence[str]
    bootstrap: Mapping[str, Estimate] = field(default_factory=dict)
    bootstrap_note: str = ""


def build_comparison(
    runs: Sequence[Run],
    left_out: Sequence[LeftOut] = (),
    *,
    title: str = "",
    by: Sequence[str] = (),
    reference: str | None = None,
) -> Comparison:
    """Compares runs by what they left on disk.

    Args:
        runs: at least one.
        left_out: what else was found.
        title: of the page; by default the number of runs.
        by: keys to group by, see :func:`group_runs`.
        reference: group to compare with, see :func:`group_runs`.

    Raises:
        ConfigError: an unknown key or reference.
    """
    settings = compare_settings(runs, RESERVED)
    table = run_table(runs, settings)
    groups, label = group_runs(table, settings, by, reference)
    plural = "" if len(runs) == 1 else "s"
    return Comparison(
        title=title or f"Comparison of {len(runs)} run{plural}",
        runs=tuple(runs),
        left_out=tuple(left_out),
        settings=settings,
        table=table,
        groups=groups,
        reference=label,
        notes=_notes(runs, settings, groups),
    )


def _notes(runs: Sequence[Run], settings: Settings, groups: Sequence[Group]) -> list[str]:
    notes = []
    if len(runs) == 1:
        notes.append("Only one run: there is nothing to compare it with.")
    for what, values in (
        ("data sets (by fingerprint)", [(run.fingerprint or "unknown")[:12] for run in runs]),
        ("test splits", [_test_split(run) for run in runs if run.test]),
        ("scales", [str(run.facts.get("scale")) for run in runs]),
        ("settings of the evaluation", [str(run.test.get("settings")) for run in runs if run.test]),
        (
            "parts of the validation split (data.max_val_images)",
            [str(value) for value in settings.values("data.max_val_images")],
        ),
    ):
        kinds = list(dict.fromkeys(values))
        if len(kinds) > 1:
            notes.append(
                f"The runs are of different {what}: {', '.join(kinds)}. Their metrics cannot be "
                "compared with each other."
            )
    revisions = {run.revision for run in runs}
    if len(revisions) > 1:
        notes.append(f"The runs are of {len(revisions)} revisions of the code.")
    if any(group.mixed for group in groups):
        mixed = dict.fromkeys(label for group in groups for label in group.mixed)
        notes.append(
            f"Groups mix runs that differ in {', '.join(mixed)}: their spread is not that of seeds."
        )
    notes += [
        f"{_listed(labels)} always vary together: their effects cannot be separated."
        for labels in inseparable(settings)
    ]
    if len(runs) > 1 and all(len(group.rows) == 1 for group in groups):
        notes.append(
            "Every group is a single run: how much a seed alone changes is not known from these."
        )
    return notes


def _listed(labels: Sequence[str]) -> str:
    shown = list(labels) if len(labels) <= 4 else [*labels[:3], f"{len(labels) - 3} more settings"]
    return f"{', '.join(shown[:-1])} and {shown[-1]}"


def _test_split(run: Run) -> str:
    test = run.test or {}
    return f"{test.get('num_images')} images with {test.get('num_gt')} chromosomes"


def to_dict(comparison: Comparison) -> dict[str, Any]:
    """Returns the content of ``compare.json``: plain values, ``None`` where undefined."""
    table = comparison.table
    return {
        "title": comparison.title,
        "notes": list(comparison.notes),
        "reference": comparison.reference,
        "varying": {label: key for key, label in comparison.settings.labels.items()},
        "common": {key: plain(value) for key, value in comparison.settings.common.items()},
        "runs": [
            {
                "path": str(run.path),
                **{column: plain(table[column].iloc[row]) for column in table.columns},
                "git": run.revision,
                "data_fingerprint": run.fingerprint,
            }
            for row, run in enumerate(comparison.runs)
        ],
        "groups": [
            {
                "label": group.label,
                "keys": {label: plain(value) for label, value in group.keys.items()},
                "runs": [comparison.runs[row].name for row in group.rows],
                "mixed": list(group.mixed),
                "metrics": {
                    name: {
                        "n": spread.n,
                        "mean": plain(spread.mean),
                        "sd": plain(spread.sd),
                        "values": [plain(value) for value in spread.values],
                    }
                    for name, spread in group.metrics.items()
                },
                "differences": {
                    name: {
                        "value": plain(found.value),
                        "sd": plain(found.sd),
                        "paired_seeds": found.pairs,
                    }
                    for name, found in group.differences.items()
                },
                "bootstrap": _bootstrap(comparison.bootstrap.get(group.label)),
            }
            for group in comparison.groups
        ],
        "bootstrap_note": comparison.bootstrap_note,
        "left_out": [
            {"path": str(run.path), "name": run.name, "state": run.state, "reason": run.reason}
            for run in comparison.left_out
        ],
    }


def _bootstrap(found: Estimate | None) -> dict[str, Any] | None:
    if found is None or found.difference is None:
        return None
    return {f"test_{name}": found.interval((column,)) for column, name in enumerate(METRICS)}
