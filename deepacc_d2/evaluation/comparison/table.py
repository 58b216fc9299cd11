"""Runs of a comparison as a table, and their groups: mean, spread, difference to one of them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from deepacc_d2.errors import ConfigError
from deepacc_d2.evaluation.ablation.result import ROWS
from deepacc_d2.evaluation.comparison.runs import Run
from deepacc_d2.evaluation.comparison.settings import MISSING, SEED, Settings, Value, show

TEST_METRICS = ("map50", "map50_max", "coco_ap", "acc", "aer", "wcr")
METRICS = ("val_map50", *(f"test_{name}" for name in TEST_METRICS))
"""Columns that groups are compared by, in percent. The first one chooses, the others report."""
LOWER_IS_BETTER = ("val_aer", "test_aer")
NUMBERS = (
    "val_map50",
    "val_aer",
    "best_epoch",
    *(f"test_{name}" for name in TEST_METRICS),
    "steps",
    "epochs",
    "train_seconds",
    "images_per_second",
    "parameters",
)
MOST_NAMED = 4
"""Settings that a group is named by at most."""
TEXTS = ("run", "data", "device")
COLUMNS = (*TEXTS, *NUMBERS)
"""Columns of the table of runs after the settings that vary."""


@dataclass(frozen=True)
class Spread:
    """A metric over the runs of a group, in percent.

    Attributes:
        values: of each run that has it.
        mean: NaN where no run has it.
        sd: sample standard deviation (ddof=1), NaN of fewer than two runs.
    """

    values: tuple[float, ...]
    mean: float
    sd: float

    @property
    def n(self) -> int:
        """Number of runs that have it."""
        return len(self.values)


@dataclass(frozen=True)
class Difference:
    """By how much a group's mean is above the reference's, in percentage points.

    Attributes:
        value: where seeds pair, the mean over the seeds that both have; else the difference of
            the means.
        sd: how much the difference of one run to one run varies: over the paired seeds their
            sample standard deviation, else the root of the sum of both variances. NaN where
            fewer than two pairs, or than two runs in either, tell of it.
        pairs: number of seeds that both have; 0 where none pairs.
    """

    value: float
    sd: float
    pairs: int


@dataclass(frozen=True)
class Group:
    """Runs that are alike in the keys that they are grouped by.

    Attributes:
        label: such as ``preset=aam alpha=0.1``.
        keys: by label of a key, its value.
        rows: numbers of its runs in the table.
        metrics: by column of :data:`METRICS`.
        differences: the same to the reference; empty for the reference itself, or without one.
        mixed: labels of keys other than the seed that differ within the group.
    """

    label: str
    keys: Mapping[str, Value]
    rows: tuple[int, ...]
    metrics: Mapping[str, Spread]
    differences: Mapping[str, Difference]
    mixed: tuple[str, ...]


def run_table(runs: Sequence[Run], settings: Settings) -> pd.DataFrame:
    """Returns a table of one row per run.

    Columns are ``run``, the labels of what varies, ``data`` and ``device`` where they differ, and
    :data:`NUMBERS`: metrics in percent, NaN where unknown; ``best_epoch`` counts from 1,
    ``train_seconds`` is without validation.
    """
    rows = [{"run": run.name, "data": run.data_name, **_numbers(run)} for run in runs]
    table = pd.DataFrame(rows)
    table[list(NUMBERS)] = table[list(NUMBERS)].astype(float)
    for position, (key, label) in enumerate(settings.labels.items(), start=1):
        table.insert(position, label, pd.Series(list(settings.varying[key]), dtype=object))
    if len({run.fingerprint for run in runs}) < 2:
        table = table.drop(columns="data")
    if table["device"].nunique(dropna=False) < 2:
        table = table.drop(columns="device")
    return table


def _numbers(run: Run) -> dict[str, Any]:
    best = run.best()
    test = run.test or {}
    seconds, images = _number(run.facts, "train_seconds"), _number(run.facts, "train_images")
    return {
        "device": run.facts.get("device"),
        "val_map50": best["map50"],
        "val_aer": best["aer"],
        "best_epoch": best["epoch"] + 1,
        **{f"test_{name}": _number(test, name) for name in TEST_METRICS},
        "steps": _number(run.facts, "steps"),
        "epochs": _number(run.facts, "epochs"),
        "train_seconds": seconds,
        "images_per_second": images / seconds if seconds > 0 else math.nan,
        "parameters": _number(run.facts, "parameters"),
    }


def _number(facts: Mapping[str, Any], key: str) -> float:
    value = facts.get(key)
    return float(value) if isinstance(value, (int, float)) else math.nan


def group_runs(
    table: pd.DataFrame,
    settings: Settings,
    by: Sequence[str] = (),
    reference: str | None = None,
) -> tuple[list[Group], str | None]:
    """Groups runs and compares the groups with one of them.

    Args:
        table: of :func:`run_table`.
        settings: of the same runs.
        by: keys or labels to group by; by default all that vary but the seed.
        reference: the group to compare with: its label, or one value of it, such as ``sep``. By
            default the one group of ``sep``, else the first.

    Returns:
        The groups, presets as in Table 1 and numbers rising, and the reference's label (``None``
        if it is the only group).

    Raises:
        ConfigError: an unknown key, or a reference that is no group or several.
    """
    keys = [settings.resolve(name) for name in by] or settings.parameters
    labels = [settings.labels.get(key, key.rpartition(".")[2]) for key in keys]
    columns = [settings.values(key) for key in keys]
    members: dict[tuple[Value, ...], list[int]] = {}
    for row in range(len(table)):
        members.setdefault(tuple(column[row] for column in columns), []).append(row)
    members = dict(sorted(members.items(), key=lambda item: _order(item[0])))
    named = _name_groups(labels, list(members))
    chosen = _reference(named, members, settings, reference) if len(members) > 1 else None
    seeds = settings.values(SEED)
    base = table.iloc[members[chosen]] if chosen is not None else None
    groups = []
    for cell, rows in members.items():
        own = table.iloc[rows]
        differences = {}
        if base is not None and chosen is not None and cell != chosen:
            differences = {
                metric: _difference(
                    _by_seed(own[metric], rows, seeds),
                    _by_seed(base[metric], members[chosen], seeds),
                    own[metric],
                    base[metric],
                )
                for metric in METRICS
            }
        groups.append(
            Group(
                label=named[cell],
                keys=dict(zip(labels, cell, strict=True)),
                rows=tuple(rows),
                metrics={metric: _spread(own[metric]) for metric in METRICS},
                differences=differences,
                mixed=_mixed(settings, keys, rows),
            )
        )
    return groups, named[chosen] if chosen is not None else None


def _order(cell: tuple[Value, ...]) -> list[tuple[int, float, str]]:
    presets = list(ROWS)
    return [
        (0, float(value), "")
        if isinstance(value, (int, float))
        else (1, presets.index(value) if value in presets else len(presets), str(value))
        for value in cell
    ]


def _name_groups(
    labels: Sequence[str], cells: Sequence[tuple[Value, ...]]
) -> dict[tuple[Value, ...], str]:
    named: dict[tuple[Value, ...], str] = {}
    for cell in cells:
        parts = [f"{label}={show(value)}" for label, value in zip(labels, cell, strict=True)]
        if len(parts) > MOST_NAMED:
            parts = [*parts[:MOST_NAMED], "…"]
        name = " ".join(parts) or "all runs"
        # They may differ in what is not shown.
        alike = sum(other == name or other.startswith(f"{name} #") for other in named.values())
        named[cell] = f"{name} #{alike + 1}" if alike else name
    return named


def _spread(column: pd.Series) -> Spread:
    known = column.dropna()
    return Spread(tuple(known), float(known.mean()), float(known.std(ddof=1)))


def _by_seed(column: pd.Series, rows: Sequence[int], seeds: Sequence[Value]) -> pd.Series:
    """Returns the mean of a metric by seed, without what is unknown."""
    own = [seeds[row] for row in rows]
    known = pd.Series(column.to_numpy(), index=pd.Index(own, dtype=object)).dropna()
    return known[known.index != MISSING].groupby(level=0).mean()


def _difference(
    own: pd.Series, base: pd.Series, own_runs: pd.Series, base_runs: pd.Series
) -> Difference:
    shared = own.index.intersection(base.index)
    if len(shared):
        by_seed = own.loc[shared] - base.loc[shared]
        return Difference(float(by_seed.mean()), float(by_seed.std(ddof=1)), len(shared))
    variance = own_runs.var(ddof=1) + base_runs.var(ddof=1)
    return Difference(float(own_runs.mean() - base_runs.mean()), float(math.sqrt(variance)), 0)


def _mixed(settings: Settings, keys: Sequence[str], rows: Sequence[int]) -> tuple[str, ...]:
    return tuple(
        label
        for key, label in settings.labels.items()
        if key != SEED
        and key not in keys
        and len({str(settings.varying[key][row]) for row in rows}) > 1
    )


def _reference(
    named: Mapping[tuple[Value, ...], str],
    members: Mapping[tuple[Value, ...], Sequence[int]],
    settings: Settings,
    wanted: str | None,
) -> tuple[Value, ...]:
    asked = wanted or "sep"
    wanted_parts = asked.replace(",", " ").split()
    exact = [cell for cell, label in named.items() if label.split() == wanted_parts]
    found = exact or [
        cell
        for cell, label in named.items()
        if all(
            part in label.split() or part in (show(value) for value in cell)
            for part in wanted_parts
        )
    ]
    if not found:
        # Grouped by other keys, a preset may still be one group of its own.
        presets = settings.values("preset")
        found = [
            cell for cell, rows in members.items() if {presets[row] for row in rows} == {asked}
        ]
    if len(found) == 1:
        return found[0]
    if wanted is None:
        return next(iter(named))
    labels = "; ".join(list(named.values())[:8]) + ("; ..." if len(named) > 8 else "")
    what = "is several groups" if found else "is no group"
    raise ConfigError(f"REF={wanted} {what}: there is {labels}")
