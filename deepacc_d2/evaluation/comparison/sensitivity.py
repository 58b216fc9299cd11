"""How a metric depends on each setting that was varied, without pretending to know more.

With a grid, the mean at a value is taken over the same other settings at every value; else what
belongs to the other settings would be seen as the effect of this one. Where no such set exists,
as among random samples, there is no mean: points, a rank correlation and a running median.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import spearmanr

from deepacc_d2.evaluation.comparison.settings import (
    MISSING,
    SEED,
    Settings,
    Value,
    inseparable,
    show,
)

MANY = 8
"""Values of a setting, each tried once, from which on they count as samples and not as a grid."""
ENOUGH = 10
"""Samples that a running median needs."""
LARGEST = 12
"""Values of a setting that an interaction shows at most."""


@dataclass(frozen=True)
class Level:
    """A value of a setting, and the metric over the other settings that every value was tried with.

    Attributes:
        value: of the setting.
        n: number of runs.
        mean: over them.
        low: the least of them.
        high: the largest of them.
    """

    value: Value
    n: int
    mean: float
    low: float
    high: float


@dataclass(frozen=True, eq=False)
class Sensitivity:
    """A metric against one setting.

    Attributes:
        key: full key.
        label: its short name.
        metric: column of the table of runs.
        values: of the setting, of each run that has both, ``float`` if ``numeric``, else text.
        scores: of the metric, in percent.
        rows: numbers of these runs.
        numeric: whether all values are numbers.
        log: whether the values are spaced as on a logarithmic axis.
        levels: of a grid, by rising value; empty for samples.
        matched: number of runs behind the levels.
        spearman: rank correlation of value and metric, NaN where undefined or not of numbers.
        running: running median of samples, (x, y), by rising x; empty where there are too few.
    """

    key: str
    label: str
    metric: str
    values: tuple[Any, ...]
    scores: tuple[float, ...]
    rows: tuple[int, ...]
    numeric: bool
    log: bool
    levels: tuple[Level, ...]
    matched: int
    spearman: float
    running: tuple[tuple[float, float], ...]

    @property
    def note(self) -> str:
        """What stands behind the plot, in a line."""
        n = len(self.scores)
        if self.levels:
            low, high = (f(level.n for level in self.levels) for f in (min, max))
            each = f"{low}" if low == high else f"{low} to {high}"
            text = f"mean and range over {each} runs at each value"
            if high == 1:
                text = "one run at each value, all else alike"
            rest = n - self.matched
            if rest:
                what = "run without counterpart" if rest == 1 else "runs without counterparts"
                text += f"; {rest} {what} at every value shown but not averaged"
            return text
        if math.isnan(self.spearman):
            return f"{n} runs with other settings at each value: no mean can be given"
        text = f"{n} samples, Spearman's rank correlation {self.spearman:+.2f}"
        return text + ("; line: running median" if self.running else "")


@dataclass(frozen=True, eq=False)
class Interaction:
    """A metric over a grid of two settings.

    Attributes:
        labels: of the settings of columns and rows.
        columns: values of the first one.
        rows: values of the second one.
        mean: (rows, columns) mean over runs, NaN where there is none.
        n: (rows, columns) number of runs.
    """

    labels: tuple[str, str]
    columns: tuple[Value, ...]
    rows: tuple[Value, ...]
    mean: np.ndarray
    n: np.ndarray


def find_sensitivities(table: pd.DataFrame, settings: Settings, metric: str) -> list[Sensitivity]:
    """Returns the sensitivity of a metric to each varied setting but the seed and the preset.

    Of settings that always vary together only the first one has its own.
    """
    found = []
    repeated = {label for labels in inseparable(settings) for label in labels[1:]}
    for key in settings.parameters:
        if key == "preset" or settings.labels[key] in repeated:
            continue
        values = settings.varying[key]
        rows = [
            row
            for row, value in enumerate(values)
            if value != MISSING and not math.isnan(table[metric].iloc[row])
        ]
        if len({str(values[row]) for row in rows}) > 1:
            found.append(_sensitivity(table, settings, key, metric, rows))
    return found


def _sensitivity(
    table: pd.DataFrame, settings: Settings, key: str, metric: str, rows: Sequence[int]
) -> Sensitivity:
    raw = [settings.varying[key][row] for row in rows]
    numeric = all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in raw)
    values: list[Any] = [float(v) if numeric else show(v) for v in raw]  # type: ignore[arg-type]
    scores = table[metric].iloc[list(rows)].to_numpy(dtype=float)
    distinct = sorted(set(values))
    matched = _matched(settings, key, rows, values)
    once = len(distinct) == len(values)
    if numeric and once and len(distinct) >= MANY:
        matched = []
    levels = []
    for value in distinct if matched else ():
        own = scores[[i for i in matched if values[i] == value]]
        levels.append(Level(value, len(own), float(own.mean()), float(own.min()), float(own.max())))
    log = numeric and is_logarithmic(distinct)
    rho = math.nan
    if numeric and len(scores) >= 3 and len(set(scores)) > 1:
        rho = float(spearmanr(values, scores).statistic)
    running = []
    if numeric and not levels and len(scores) >= ENOUGH and len(distinct) >= MANY:
        running = running_median(values, scores, log=log)
    return Sensitivity(
        key=key,
        label=settings.labels[key],
        metric=metric,
        values=tuple(values),
        scores=tuple(float(score) for score in scores),
        rows=tuple(rows),
        numeric=numeric,
        log=log,
        levels=tuple(levels),
        matched=len(matched),
        spearman=rho,
        running=tuple(running),
    )


def _matched(settings: Settings, key: str, rows: Sequence[int], values: Sequence[Any]) -> list[int]:
    """Returns positions in ``rows`` of the runs whose other settings occur at every value.

    Seeds count as a setting where they pair, and are averaged over where they do not.
    """
    distinct = set(values)
    for with_seed in (True, False):
        others = [k for k in settings.varying if k != key and (with_seed or k != SEED)]
        rest = [tuple(str(settings.varying[k][row]) for k in others) for row in rows]
        tried: dict[tuple[str, ...], set[Any]] = {}
        for cell, value in zip(rest, values, strict=True):
            tried.setdefault(cell, set()).add(value)
        matched = [i for i, cell in enumerate(rest) if tried[cell] == distinct]
        if matched:
            return matched
    return []


def is_logarithmic(values: Sequence[float]) -> bool:
    """Whether distinct rising values are spaced more evenly by their logarithms.

    Asked of at least three positive values, the largest at least four times the smallest.
    """
    if len(values) < 3 or values[0] <= 0 or values[-1] < 4 * values[0]:
        return False
    plain, logs = np.diff(values), np.diff(np.log(values))
    return bool(logs.std() / logs.mean() < plain.std() / plain.mean())


def running_median(
    values: Sequence[float], scores: Sequence[float] | np.ndarray, *, log: bool
) -> list[tuple[float, float]]:
    """Returns medians over a quarter of the points, at least five, by rising value.

    Each is at the mean of its values (the geometric one where ``log``).
    """
    order = np.argsort(values, kind="stable")
    x = np.log(np.asarray(values)[order]) if log else np.asarray(values, dtype=float)[order]
    y = np.asarray(scores, dtype=float)[order]
    width = max(5, len(x) // 4)
    centers = np.lib.stride_tricks.sliding_window_view(x, width).mean(axis=1)
    medians = np.median(np.lib.stride_tricks.sliding_window_view(y, width), axis=1)
    at = np.exp(centers) if log else centers
    return list(zip(at.tolist(), medians.tolist(), strict=True))


def find_interactions(table: pd.DataFrame, settings: Settings, metric: str) -> list[Interaction]:
    """Returns the interaction of each pair of settings whose combinations were nearly all tried.

    That is, at least two and at most :data:`LARGEST` values of each, and a run with the metric in
    three of four cells.
    """
    found = []
    known = table[metric].notna().to_numpy()
    repeated = {label for labels in inseparable(settings) for label in labels[1:]}
    keys = [key for key in settings.parameters if settings.labels[key] not in repeated]
    for first, second in itertools.combinations(keys, 2):
        a, b = settings.varying[first], settings.varying[second]
        rows = [i for i in range(len(table)) if known[i] and MISSING not in (a[i], b[i])]
        columns, lines = _levels(a, rows), _levels(b, rows)
        if not all(2 <= len(levels) <= LARGEST for levels in (columns, lines)):
            continue
        total, n = np.zeros((len(lines), len(columns))), np.zeros((len(lines), len(columns)))
        for row in rows:
            cell = lines.index(b[row]), columns.index(a[row])
            total[cell] += table[metric].iloc[row]
            n[cell] += 1
        if (n > 0).mean() < 0.75:
            continue
        mean = np.where(n > 0, total / np.maximum(n, 1), np.nan)
        labels = settings.labels[first], settings.labels[second]
        found.append(Interaction(labels, tuple(columns), tuple(lines), mean, n.astype(int)))
    return found


def _levels(column: Sequence[Value], rows: Sequence[int]) -> list[Value]:
    distinct = list(dict.fromkeys(column[row] for row in rows))
    if all(isinstance(value, (int, float)) for value in distinct):
        return sorted(distinct, key=float)  # type: ignore[arg-type]
    return distinct
