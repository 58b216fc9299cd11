"""Finished runs read back: the predictions and metrics that the report of a run left on disk."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from deepacc_d2.chromosomes import NUM_CLASSES
from deepacc_d2.errors import DataError
from deepacc_d2.evaluation.types import ImagePrediction
from deepacc_d2.files import read_json

FOLDER = "test"
"""Where the report is in the directory of a run."""

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
