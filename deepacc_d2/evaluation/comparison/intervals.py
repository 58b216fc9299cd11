"""Intervals of differences between groups, from the predictions that their tests left on disk."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from deepacc_d2.data.union import DataSets
from deepacc_d2.errors import DataError, UserError
from deepacc_d2.evaluation.bootstrap import Estimate
from deepacc_d2.evaluation.comparison.result import Comparison
from deepacc_d2.evaluation.comparison.runs import Run
from deepacc_d2.evaluation.finished_runs import compare_finished
from deepacc_d2.files import read_json

MOST_RUNS = 100
"""Runs up to which the predictions are read: each one takes seconds."""


def with_intervals(comparison: Comparison, resamples: int, seed: int = 0) -> Comparison:
    """Adds the paired bootstrap over test cases where the test predictions can be paired.

    Args:
        comparison: with a reference.
        resamples: number of resamples; 0 to leave it out.
        seed: of the resamples.

    Returns:
        The comparison with ``bootstrap``, or with a note that says why there is none.
    """
    try:
        found = _intervals(comparison, resamples, seed)
    except (UserError, KeyError, TypeError, ValueError) as error:
        # Files that others may have changed since: the rest of the comparison stands without.
        return replace(comparison, bootstrap_note=f"No paired bootstrap: {error}.")
    note = (
        f"Paired bootstrap, {resamples} resamples of the test cases, each with all its images "
        f"(seed {seed}), the same for every run: 95 % intervals. They say how far a difference "
        "depends on what was tested; how far on the seed of the training, the standard deviation "
        "says. An image without a case counts as a case of its own."
    )
    return replace(comparison, bootstrap=found, bootstrap_note=note)


def _intervals(comparison: Comparison, resamples: int, seed: int) -> Mapping[str, Estimate]:
    if comparison.reference is None:
        raise DataError("there is one group only")
    if resamples < 1:
        raise DataError("it was not asked for")
    if len(comparison.runs) > MOST_RUNS:
        raise DataError(f"these are more than {MOST_RUNS} runs")
    untested = [run.name for run in comparison.runs if run.test is None]
    if untested:
        raise DataError(f"{untested[0]} was not tested")
    coco = _ground_truth(comparison.runs[0])
    if len({run.fingerprint for run in comparison.runs}) > 1:
        raise DataError("the runs are of different data sets")
    paths = {
        group.label: [comparison.runs[row].path for row in group.rows]
        for group in comparison.groups
    }
    statistics, _ = compare_finished(
        paths, coco, reference=comparison.reference, resamples=resamples, seed=seed
    )
    return {label: found.metrics for label, found in statistics.items()}


def _ground_truth(run: Run) -> dict[str, Any]:
    """Reads the test split of the data that a run was trained on.

    Raises:
        DataError: it is not there any more, or it is not the same.
    """
    data = run.facts.get("data") or {}
    if isinstance(data.get("root"), list) or data.get("weights"):
        # Whether cases are shared was checked when the run began.
        return _same(DataSets.of(data["root"], data.get("weights"), "own"), run)
    root = Path(str(data.get("root")))
    path = root / "annotations" / "test.json"
    if not path.is_file():
        raise DataError(f"the data set is no longer at {root}")
    info = root / "dataset.json"
    if info.is_file() and read_json(info).get("fingerprint") != run.fingerprint:
        raise DataError(f"the data set at {root} is not the one that the runs were trained on")
    content = read_json(path)
    if not isinstance(content, dict) or "images" not in content:
        raise DataError(f"{path} is no ground truth")
    return content


def _same(sets: DataSets, run: Run) -> dict[str, Any]:
    if sets.info().fingerprint != run.fingerprint:
        named = ", ".join(map(str, sets.roots))
        raise DataError(f"the data sets at {named} are not those that the runs were trained on")
    return sets.split("test")
