"""Learning curves of runs, thinned so that a page of many runs stays small."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from deepacc_d2.evaluation.comparison.runs import Run

POINTS = 200
"""Points of a curve that are kept at most."""
SMOOTHED_OVER = 20
"""A curve is averaged over this part of its points (a twentieth), but over five at least."""


@dataclass(frozen=True, eq=False)
class Curve:
    """A quantity over a training.

    Attributes:
        x: epoch or optimizer step.
        raw: as logged.
        smooth: exponentially weighted mean of it, from its first point on.
    """

    x: np.ndarray
    raw: np.ndarray
    smooth: np.ndarray


def validation_curve(run: Run, name: str) -> Curve:
    """Returns a ``val/`` column against the number of epochs trained; empty if it was not logged.

    Lightning counts epochs from 0; an epoch trained is one more.
    """
    rows = run.validation()
    if name not in rows:
        return Curve(*(np.empty(0),) * 3)
    known = rows.dropna(subset=[name])
    values = known[name].to_numpy(dtype=float)
    return Curve(known["epoch"].to_numpy(dtype=float) + 1, values, values)


def training_curve(run: Run, name: str, points: int = POINTS) -> Curve:
    """Returns a column logged at training steps; empty if it was not logged.

    Of a step that was logged twice, by a training that was continued, the later row counts. All
    points are smoothed, then every n-th one is kept.
    """
    if name not in run.history:
        return Curve(*(np.empty(0),) * 3)
    known = run.history.dropna(subset=[name]).drop_duplicates("step", keep="last")
    known = known.sort_values("step")
    values = known[name].astype(float)
    smooth = smoothed(values)
    keep = np.unique(np.linspace(0, len(values) - 1, min(points, len(values))).round().astype(int))
    return Curve(
        known["step"].to_numpy(dtype=float)[keep],
        values.to_numpy()[keep],
        smooth.to_numpy()[keep],
    )


def smoothed(values: pd.Series) -> pd.Series:
    """Returns the exponentially weighted mean, its weights summing to 1 from the first point on."""
    return values.ewm(span=max(5, len(values) / SMOOTHED_OVER), adjust=True).mean()


def loss_names(runs: Sequence[Run]) -> list[str]:
    """Returns the columns of losses that any run logged, their sum first."""
    names = dict.fromkeys(
        name for run in runs for name in run.history.columns if name.startswith("train/loss")
    )
    return sorted(names, key=lambda name: (name != "train/loss", name))
