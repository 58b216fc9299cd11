"""Finished runs read back and compared, from what the report of a run left on disk."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from deepacc_d2.chromosomes import NUM_CLASSES
from deepacc_d2.errors import DataError
from deepacc_d2.evaluation.bootstrap import METRICS, PresetStatistics, compare_presets
from deepacc_d2.evaluation.tally import RunTally, tally_run
from deepacc_d2.evaluation.types import ImagePrediction
from deepacc_d2.files import read_json

FOLDER = "test"
"""Where the report is in the directory of a run."""

_TOLERANCE = 0.1  # percentage points; rounded boxes may tip one match of a small test set
_EVALUATE = "run `make evaluate` for it again"


@dataclass(frozen=True, eq=False)
class FinishedRun:
    """What a run left in its report.

    Attributes:
        path: directory of the run.
        predictions: of every image of the ground truth, in its order; boxes and scores as in
            the report, where boxes are rounded to 1e-4 px.
        metrics: content of ``metrics.json``.
    """

    path: Path
    predictions: list[ImagePrediction]
    metrics: dict[str, Any]

    @property
    def settings(self) -> dict[str, float | int]:
        """The options of ``compute_metrics`` that the run was evaluated with."""
        return self.metrics["settings"]


def read_run(run_dir: str | Path, coco: Mapping[str, Any]) -> FinishedRun:
    """Reads ``test/{metrics,predictions,predictions_top1}.json`` of a run.

    Args:
        run_dir: directory of the run.
        coco: ground truth of the split that the run was tested on.

    Raises:
        DataError: a file is missing, broken, or of other images than the ground truth.
    """
    folder = Path(run_dir) / FOLDER
    metrics = _read(folder / "metrics.json")
    path = folder / "metrics.json"
    if not isinstance(metrics, dict) or not isinstance(metrics.get("settings"), dict):
        raise DataError(f"{path} holds no metrics and settings: {_EVALUATE}")
    for key, expected in (
        ("num_images", len(coco["images"])),
        ("num_gt", len(coco["annotations"])),
    ):
        if metrics.get(key) != expected:
            raise DataError(
                f"{path} has {key} {metrics.get(key)}, but the ground truth {expected}: "
                "give runs that were tested on this split"
            )
    image_ids = [int(image["id"]) for image in coco["images"]]
    final = _by_image(folder / "predictions.json", image_ids)
    top1 = _by_image(folder / "predictions_top1.json", image_ids)
    predictions = [
        ImagePrediction(image_id, *final[image_id], *top1[image_id]) for image_id in image_ids
    ]
    return FinishedRun(Path(run_dir), predictions, metrics)


def compare_finished(
    runs: Mapping[str, Sequence[str | Path]],
    coco: Mapping[str, Any],
    *,
    reference: str,
    resamples: int,
    seed: int,
) -> tuple[dict[str, PresetStatistics], dict[str, float | int]]:
    """Compares finished runs with a reference by the paired bootstrap over test cases.

    Args:
        runs: directories of the runs of each group, such as a preset.
        coco: ground truth of the split that all were tested on.
        reference: the group to compare with.
        resamples: number of resamples.
        seed: of the resamples.

    Returns:
        The statistics of each group, and the settings that all runs were evaluated with.

    Raises:
        DataError: a file of a run is missing, broken, of other images than the ground truth, or
            contradicts the others.
    """
    read: list[FinishedRun] = []
    tallies: dict[str, list[RunTally]] = {}
    for group, own in runs.items():
        tallies[group] = []
        for run_dir in own:
            run = read_run(run_dir, coco)
            if read and run.settings != read[0].settings:
                raise DataError(
                    f"{run.path} was evaluated with {run.settings}, but {read[0].path} with "
                    f"{read[0].settings}: evaluate all runs alike"
                )
            tallies[group].append(_tally(run, coco))
            # Only the metrics are needed from here on; predictions are large.
            read.append(replace(run, predictions=[]))
    statistics = compare_presets(tallies, reference=reference, resamples=resamples, seed=seed)
    _check_against_metrics(read, statistics)
    return statistics, read[0].settings


def _tally(run: FinishedRun, coco: Mapping[str, Any]) -> RunTally:
    try:
        return tally_run(coco, run.predictions, **run.settings)  # type: ignore[arg-type]
    except TypeError as error:
        raise DataError(
            f"the settings of {run.path} are not those of this version ({error}): {_EVALUATE}"
        ) from None


def _check_against_metrics(
    runs: Sequence[FinishedRun], statistics: Mapping[str, PresetStatistics]
) -> None:
    """Refuses predictions that do not give the metrics written next to them."""
    rows = [row for found in statistics.values() for row in found.metrics.values.tolist()]
    for run, row in zip(runs, rows, strict=True):
        for key, value in zip(METRICS, row, strict=True):
            written = run.metrics.get(key)
            same = (
                math.isnan(value)
                if written is None
                else isinstance(written, (int, float)) and abs(written - value) <= _TOLERANCE
            )
            if not same:
                raise DataError(
                    f"{run.path}: its predictions give {key} {value:.2f} on this ground truth, "
                    f"but its metrics.json says {written}: give runs that were tested on this "
                    f"split, or {_EVALUATE}"
                )


def _by_image(
    path: Path, image_ids: list[int]
) -> dict[int, tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Returns boxes XYXY (N, 4), scores (N,) and class indices (N,) of every image."""
    results = _read(path)
    try:
        images = np.array([result["image_id"] for result in results], dtype=np.int64)
        classes = np.array([result["category_id"] for result in results], dtype=np.int64) - 1
        scores = np.array([result["score"] for result in results], dtype=np.float64)
        boxes = np.array([result["bbox"] for result in results], dtype=np.float64).reshape(-1, 4)
        if len(boxes) != len(images):
            raise ValueError("a box has not 4 numbers")
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise DataError(
            f"{path} is no list of COCO results ({type(error).__name__}: {error}): {_EVALUATE}"
        ) from None
    if not (np.isfinite(boxes).all() and np.isfinite(scores).all()):
        raise DataError(f"{path} has a box or score that is not finite: {_EVALUATE}")
    if not ((classes >= 0) & (classes < NUM_CLASSES)).all():
        raise DataError(f"{path} has a category id outside 1..{NUM_CLASSES}: {_EVALUATE}")
    unknown = np.setdiff1d(images, image_ids)
    if len(unknown):
        raise DataError(
            f"{path} has detections on image {unknown[0]}, which is not in the ground truth: "
            "give runs that were tested on this split"
        )
    boxes[:, 2:] += boxes[:, :2]
    order = np.argsort(images, kind="stable")
    images, boxes, scores, classes = images[order], boxes[order], scores[order], classes[order]
    starts = np.searchsorted(images, image_ids, side="left")
    stops = np.searchsorted(images, image_ids, side="right")
    return {
        image_id: (boxes[start:stop], scores[start:stop], classes[start:stop])
        for image_id, start, stop in zip(image_ids, starts, stops, strict=True)
    }


def _read(path: Path) -> Any:
    if not path.is_file():
        raise DataError(
            f"{path} is missing: train this run to its end, or leave {path.parent.parent} out"
        )
    return read_json(path)
