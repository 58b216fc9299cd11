"""Sensitivities say what the runs can tell: means over like with like, or none."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import rankdata

from deepacc_d2.evaluation.comparison.runs import read_runs
from deepacc_d2.evaluation.comparison.sensitivity import (
    Interaction,
    Sensitivity,
    find_interactions,
    find_sensitivities,
    is_logarithmic,
    running_median,
)
from deepacc_d2.evaluation.comparison.settings import compare_settings
from deepacc_d2.evaluation.comparison.table import run_table

MakeRun = Callable[..., Path]
Found = tuple[dict[str, Sensitivity], list[Interaction], pd.DataFrame]


@pytest.fixture
def analyse(make_run: MakeRun) -> Callable[[Iterable[dict]], Found]:
    batches = itertools.count()

    def build(options: Iterable[dict], metric: str = "val_map50") -> Found:
        batch = next(batches)
        runs = read_runs([make_run(f"{batch}/r{n}", **own) for n, own in enumerate(options)])[0]
        settings = compare_settings(runs)
        table = run_table(runs, settings)
        found = find_sensitivities(table, settings, metric)
        interactions = find_interactions(table, settings, metric)
        return {one.label: one for one in found}, interactions, table

    return build


def grid(*, seeds: Iterable[int] = (0,)) -> list[dict]:
    rng = np.random.default_rng(1)
    return [
        {"alpha": a, "m": m, "seed": s, "level": float(rng.uniform(40, 70))}
        for a, m, s in itertools.product((0.02, 0.1, 0.5), (0.1, 0.25), seeds)
    ]


def test_the_mean_of_a_grid_is_that_of_pandas(analyse: Callable[..., Found]) -> None:
    found, _, table = analyse(grid(seeds=(0, 1)))
    assert list(found) == ["alpha", "m"]  # the seed is no setting to choose
    for label, one in found.items():
        expected = table.groupby(label)["val_map50"].agg(["mean", "min", "max", "count"])
        assert [level.value for level in one.levels] == expected.index.tolist()
        for level, (_, row) in zip(one.levels, expected.iterrows(), strict=True):
            assert level.n == row["count"]
            got = (level.mean, level.low, level.high)
            assert got == pytest.approx((row["mean"], row["min"], row["max"]))
    assert found["alpha"].log
    assert not found["m"].log
    assert found["alpha"].note == "mean and range over 4 runs at each value"


def test_a_missing_job_takes_its_counterparts_out_of_the_mean(
    analyse: Callable[..., Found],
) -> None:
    jobs = grid()
    lost = next(n for n, job in enumerate(jobs) if (job["alpha"], job["m"]) == (0.5, 0.25))
    del jobs[lost]
    found, interactions, table = analyse(jobs)
    alpha = found["alpha"]
    fair = table[table["m"] == 0.1].set_index("alpha")["val_map50"]
    assert {level.value: level.mean for level in alpha.levels} == fair.to_dict()
    assert (alpha.matched, len(alpha.scores)) == (3, 5)
    assert "2 runs without counterparts" in alpha.note
    m = found["m"]
    both = table[table["alpha"] != 0.5].groupby("m")["val_map50"].mean()
    assert [level.mean for level in m.levels] == pytest.approx(both.tolist())
    (pair,) = interactions  # five of six cells
    assert np.isnan(pair.mean).sum() == 1


def test_seeds_that_do_not_pair_are_averaged_over(analyse: Callable[..., Found]) -> None:
    jobs = [{"alpha": a, "seed": s, "level": 50.0 + s} for a, s in ((0.1, 0), (0.1, 1), (0.5, 2))]
    found, _, _ = analyse(jobs)
    assert [(level.n, level.mean) for level in found["alpha"].levels] == [(2, 51.5), (1, 53.0)]


def test_random_samples_get_a_rank_correlation_and_no_mean(analyse: Callable[..., Found]) -> None:
    rng = np.random.default_rng(2)
    jobs = [
        {"alpha": float(10 ** rng.uniform(-2, 0)), "m": float(rng.uniform(0, 0.6))}
        for _ in range(14)
    ]
    for job in jobs:
        job["level"] = 60 + 5 * math.log10(job["alpha"]) + float(rng.normal(0, 1))
    found, interactions, table = analyse(jobs)
    assert not interactions
    for label, one in found.items():
        x, y = rankdata(table[label].astype(float)), rankdata(table["val_map50"])
        assert one.spearman == pytest.approx(np.corrcoef(x, y)[0, 1])
        assert not one.levels
        assert one.running
    assert found["alpha"].spearman > 0.6
    assert found["alpha"].note.startswith("14 samples, Spearman's rank correlation +0.")


def test_few_samples_get_no_running_median(analyse: Callable[..., Found]) -> None:
    jobs = [{"alpha": 0.1 * k, "m": 0.05 * k * k, "level": 50.0 + k} for k in range(1, 6)]
    found, _, _ = analyse(jobs)
    assert not found["alpha"].running
    assert not found["alpha"].levels
    assert found["alpha"].spearman == pytest.approx(1)


def test_one_setting_sampled_often_is_no_grid(analyse: Callable[..., Found]) -> None:
    found, _, _ = analyse({"m": 0.01 * k, "level": 50.0 + k % 5} for k in range(1, 13))
    assert not found["m"].levels
    few, _, _ = analyse({"s": 2.0**k, "level": 50.0 + k} for k in range(1, 5))
    assert [level.n for level in few["s"].levels] == [1] * 4
    assert few["s"].log


def test_texts_have_levels_but_no_correlation(analyse: Callable[..., Found]) -> None:
    jobs = [
        {"trainer.precision": p, "seed": s, "level": 50.0 + s}
        for p in ("32-true", "bf16-mixed")
        for s in (0, 1)
    ]
    found, _, _ = analyse(jobs)
    precision = found["precision"]
    assert [(level.value, level.n) for level in precision.levels] == [
        ("32-true", 2),
        ("bf16-mixed", 2),
    ]
    assert math.isnan(precision.spearman)
    assert not precision.numeric


def test_interactions_are_means_over_the_rest(analyse: Callable[..., Found]) -> None:
    _, (pair,), table = analyse(grid(seeds=(0, 1, 2)))
    expected = table.pivot_table(
        index="m", columns="alpha", values="val_map50", aggfunc=["mean", "count"]
    )
    assert pair.labels == ("alpha", "m")
    np.testing.assert_allclose(pair.mean, expected["mean"].to_numpy(dtype=float))
    np.testing.assert_array_equal(pair.n, expected["count"].to_numpy(dtype=int))


def test_settings_that_vary_together_are_shown_once(analyse: Callable[..., Found]) -> None:
    jobs = [{"alpha": a, "m": 2 * a, "seed": s} for a in (0.1, 0.2) for s in (0, 1)]
    found, interactions, _ = analyse(jobs)
    assert list(found) == ["alpha"]
    assert not interactions


def test_runs_without_the_metric_do_not_count(analyse: Callable[..., Found]) -> None:
    untested = {"test": False, "facts": {"status": "finished"}}
    jobs = [{"alpha": 0.1}, {"alpha": 0.5}, {"alpha": 0.9, **untested}]
    found, _, _ = analyse(jobs, "test_map50")
    assert [level.value for level in found["alpha"].levels] == [0.1, 0.5]


@pytest.mark.parametrize(
    ("values", "log"),
    [
        ([0.05, 0.1, 0.2], True),
        ([16, 32, 64], True),
        ([1e-4, 1e-3, 1e-2], True),
        ([1, 2, 3, 4, 5], False),
        ([0.1, 0.25], False),
        ([0.0, 0.1, 1.0], False),
        ([-1.0, 1.0, 10.0], False),
    ],
)
def test_axes_are_logarithmic_where_values_are_spaced_so(values: list[float], log: bool) -> None:
    assert is_logarithmic(values) is log


def test_the_running_median_is_a_median_of_neighbors() -> None:
    x = np.array([5.0, 1.0, 2.0, 4.0, 3.0, 6.0])
    y = np.array([50.0, 10.0, 99.0, 40.0, 30.0, 60.0])
    assert running_median(x, y, log=False) == [(3.0, 40.0), (4.0, 50.0)]
    (first, *_) = running_median(10**x, y, log=True)
    assert first == pytest.approx((10**3.0, 40.0))
