"""Writes the result of an evaluation to a folder: JSON, CSV and figures."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from deepacc_d2.chromosomes import CLASSES, GROUP_OF, denver_order
from deepacc_d2.errors import ConfigError
from deepacc_d2.evaluation.gallery import plot_best_worst
from deepacc_d2.evaluation.plots import plot_confusion, plot_precision_recall
from deepacc_d2.evaluation.tables import CLASS_COLUMNS, format_table
from deepacc_d2.evaluation.types import ImagePrediction, Metrics
from deepacc_d2.files import csv_text, whole_file

__all__ = ["format_table", "write_report"]


def write_report(
    out_dir: str | Path,
    coco: Mapping[str, Any],
    predictions: Sequence[ImagePrediction],
    metrics: Metrics,
    image_root: str | Path,
) -> list[Path]:
    """Writes all files of a report; each appears whole or not at all.

    Args:
        out_dir: folder, made if missing; files of an earlier report are replaced.
        coco: the ground truth.
        predictions: of the same split.
        metrics: computed from these two.
        image_root: folder that the images' ``file_name`` is relative to.

    Returns:
        The files: ``metrics.json``; ``predictions.json`` (final detections) and
        ``predictions_top1.json`` (top class of each proposal, before NMS), both in COCO's results
        format; ``per_class.csv``; ``confusion_matrix.png``, ``precision_recall.png`` and
        ``best_worst.png``.

    Raises:
        ConfigError: the folder cannot be written to.
    """

    def as_json(content: Any) -> Callable[[Path], object]:
        return lambda path: path.write_text(
            json.dumps(content, allow_nan=False, indent=2 if isinstance(content, dict) else None)
        )

    # Numbers first: a figure that fails must not cost them.
    writers: dict[str, Callable[[Path], object]] = {
        "metrics.json": as_json(metrics.to_dict()),
        "predictions.json": as_json(coco_results(predictions)),
        "predictions_top1.json": as_json(coco_results(predictions, top1=True)),
        "per_class.csv": lambda path: _write_per_class(path, metrics),
        "confusion_matrix.png": lambda path: plot_confusion(metrics).savefig(
            path, format="png", dpi=110
        ),
        "precision_recall.png": lambda path: plot_precision_recall(metrics).savefig(
            path, format="png", dpi=110
        ),
        "best_worst.png": lambda path: plot_best_worst(
            coco, predictions, metrics, image_root
        ).savefig(path, format="png", dpi=90),
    }
    folder = Path(out_dir)
    written = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, write in writers.items():
            with whole_file(folder / name) as temporary:
                write(temporary)
            written.append(folder / name)
    except OSError as error:
        raise ConfigError(
            f"cannot write the report to {folder}: {error.strerror}; choose another folder"
        ) from error
    return written


def coco_results(
    predictions: Sequence[ImagePrediction], *, top1: bool = False
) -> list[dict[str, Any]]:
    """Returns predictions in COCO's results format: image_id, category_id 1..24, bbox, score.

    Boxes are XYWH pixels, rounded to 1e-4 (about float32's own precision there).
    """
    prefix = "top1_" if top1 else ""
    results = []
    for prediction in predictions:
        boxes = getattr(prediction, f"{prefix}boxes").astype(np.float64)
        xywh = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1).round(4)
        scores = getattr(prediction, f"{prefix}scores").astype(np.float64).round(8)
        classes = getattr(prediction, f"{prefix}classes")
        results += [
            {
                "image_id": prediction.image_id,
                "category_id": category,
                "bbox": box,
                "score": score,
            }
            for category, box, score in zip(
                (classes + 1).tolist(), xywh.tolist(), scores.tolist(), strict=True
            )
        ]
    return results


def _write_per_class(path: Path, metrics: Metrics) -> None:
    """One row per class in Denver order; an undefined rate is an empty field."""
    rows = metrics.to_dict()["per_class"]
    table = [
        [GROUP_OF[name], name, *(rows[name][key] for key in CLASS_COLUMNS)]
        for name in (CLASSES[k] for k in denver_order())
    ]
    path.write_text(csv_text(["group", "class", *CLASS_COLUMNS], table), encoding="utf-8")
