"""Learning curves: right at every kept point, whatever the logging left."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from deepacc_d2.evaluation.comparison.curves import (
    loss_names,
    smoothed,
    training_curve,
    validation_curve,
)
from deepacc_d2.evaluation.comparison.runs import Run, read_runs

MakeRun = Callable[..., Path]


def run_with(history: dict[str, list[float]]) -> Run:
    return Run(Path("x"), "x", {}, {}, pd.DataFrame(history))


def test_smoothing_is_a_weighted_mean_of_what_came_before() -> None:
    values = np.array([3.0, 1.0, 4.0, 1.0, 5.0, 9.0])
    decay = 1 - 2 / (5 + 1)  # a span of five
    for n, got in enumerate(smoothed(pd.Series(values))):
        weights = decay ** np.arange(n, -1, -1)
        assert got == pytest.approx((weights * values[: n + 1]).sum() / weights.sum())


def test_a_long_curve_is_thinned_after_smoothing_and_keeps_its_ends() -> None:
    steps = np.arange(5000)
    loss = np.sin(steps / 300) + 2
    run = run_with({"step": steps.tolist(), "train/loss": loss.tolist()})
    curve = training_curve(run, "train/loss", points=100)
    assert len(curve.x) == 100
    assert (curve.x[0], curve.x[-1]) == (0, 4999)
    at = curve.x.astype(int)
    np.testing.assert_allclose(curve.raw, loss[at])
    np.testing.assert_allclose(curve.smooth, smoothed(pd.Series(loss)).to_numpy()[at])


def test_a_step_logged_twice_counts_once_and_gaps_are_skipped() -> None:
    nan = float("nan")
    run = run_with({"step": [0, 1, 1, 2, 2], "train/loss": [5.0, 4.0, 3.0, nan, 2.0]})
    curve = training_curve(run, "train/loss")
    assert curve.x.tolist() == [0, 1, 2]
    assert curve.raw.tolist() == [5.0, 3.0, 2.0]
    assert len(training_curve(run, "train/none").x) == 0


def test_validation_counts_epochs_from_one(make_run: MakeRun) -> None:
    (run,), _ = read_runs([make_run("a", level=50)])
    curve = validation_curve(run, "val/aer")
    assert curve.x.tolist() == [1, 2, 3, 4]
    assert curve.raw.tolist() == [76.0, 68.0, 60.0, 68.0]
    assert len(validation_curve(run, "val/none").x) == 0


def test_the_sum_of_losses_comes_first() -> None:
    run = run_with({"step": [0], "train/loss_a": [1], "train/loss": [2], "train/fg_accuracy": [3]})
    assert loss_names([run]) == ["train/loss", "train/loss_a"]
