"""A figure of the best and the worst images, with what was right and wrong on each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from deepacc_d2 import palette
from deepacc_d2.chromosomes import CLASSES
from deepacc_d2.errors import DataError
from deepacc_d2.evaluation.boxes import GroundTruth, flatten_predictions
from deepacc_d2.evaluation.matching import match
from deepacc_d2.evaluation.metrics import confident_top1
from deepacc_d2.evaluation.types import ImageCounts, ImagePrediction, Metrics
from deepacc_d2.images.read import read_gray

_STYLES: dict[str, dict[str, Any]] = {
    "right": {"edgecolor": palette.RIGHT, "linewidth": 0.9},
    "wrong class (predicted / true)": {"edgecolor": palette.WRONG, "linewidth": 2.2},
    "missed": {"edgecolor": palette.MISSED, "linewidth": 2.0, "linestyle": (0, (4, 2))},
    "spurious": {"edgecolor": palette.SPURIOUS, "linewidth": 2.0},
}
_RIGHT, _WRONG, _MISSED, _SPURIOUS = _STYLES


def plot_best_worst(
    coco: Mapping[str, Any],
    predictions: Sequence[ImagePrediction],
    metrics: Metrics,
    image_root: str | Path,
    *,
    num: int = 3,
) -> Figure:
    """Draws the images with the highest and the lowest ``acc``, boxes and classes on them.

    Detections are those that Acc and AER count; they are matched regardless of class here, so
    that a wrong class shows as one error, with both names, and not as two.

    Args:
        coco: the ground truth.
        predictions: of the same split.
        metrics: computed from these two.
        image_root: folder that ``file_name`` is relative to. An image that cannot be read is
            drawn as an empty field, with a note.
        num: images a row.
    """
    ranked = rank_images(metrics.images)
    best = ranked[:num]
    worst = ranked[num:][-num:][::-1]
    rows = [(title, chosen) for title, chosen in (("best", best), ("worst", worst)) if chosen]
    figure = Figure(figsize=(8.2 * num, 7.6 * max(len(rows), 1) + 0.6), layout="constrained")
    grid = figure.subplots(max(len(rows), 1), num, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    records = {image["id"]: image for image in coco["images"]}
    for axes_row, (title, chosen) in zip(grid, rows, strict=False):
        for axes, counts in zip(axes_row, chosen, strict=False):
            record = records[counts.image_id]
            part = {
                "images": [record],
                "annotations": [a for a in coco["annotations"] if a["image_id"] == counts.image_id],
            }
            found = [p for p in predictions if p.image_id == counts.image_id]
            _draw_image(axes, record, Path(image_root))
            tally = _draw_boxes(axes, part, found, metrics)
            axes.set_title(
                f"{title}: {record.get('file_name', counts.image_id)}   "
                f"acc {100 * image_acc(counts):.0f} %\n"
                + ", ".join(f"{n} {kind.split(' (')[0]}" for kind, n in tally.items()),
                fontsize=14,
            )
    if not rows:
        grid[0, 0].set_title("no image has ground truth", fontsize=14)
    handles = [
        Rectangle((0, 0), 1, 1, facecolor="none", label=k, **style) for k, style in _STYLES.items()
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), fontsize=15)
    return figure


def image_acc(counts: ImageCounts) -> float:
    """Returns TP / (TP + FP + FN) of an image, 0..1."""
    return counts.tp / max(counts.tp + counts.fp + counts.fn, 1)


def rank_images(images: Sequence[ImageCounts]) -> list[ImageCounts]:
    """Returns the images with ground truth, highest ``acc`` first; of equals the one with more
    chromosomes.
    """
    with_truth = [counts for counts in images if counts.tp + counts.fn]
    return sorted(with_truth, key=lambda c: (-image_acc(c), -c.tp, c.image_id))


def _draw_image(axes: Axes, record: Mapping[str, Any], root: Path) -> None:
    try:
        pixels = read_gray(root / str(record.get("file_name", "")))
    except DataError:
        pixels = np.full((int(record["height"]), int(record["width"])), 255, dtype=np.uint8)
        axes.text(
            0.5,
            0.5,
            "image not readable",
            transform=axes.transAxes,
            ha="center",
            color=palette.LIGHT,
        )
    axes.imshow(pixels, cmap="gray", vmin=0, vmax=255)


def _draw_boxes(
    axes: Axes, coco: Mapping[str, Any], found: Sequence[ImagePrediction], metrics: Metrics
) -> dict[str, int]:
    """Draws all boxes of one image and returns how many are of each kind."""
    settings = metrics.settings
    truth = GroundTruth.from_coco(coco)
    gt = truth.boxes
    detections = confident_top1(
        flatten_predictions(truth.image_ids, found)[1],
        score_threshold=settings["score_threshold"],
        agnostic_nms=settings["agnostic_nms"],
    )
    matched = match(detections, gt, settings["iou_threshold"], same_class=False)
    drawn: list[tuple[str, np.ndarray, str]] = []
    for i, j in enumerate(matched):
        name = CLASSES[detections.classes[i]]
        if j < 0:
            drawn.append((_SPURIOUS, detections.boxes[i], name))
        elif detections.classes[i] == gt.classes[j]:
            drawn.append((_RIGHT, detections.boxes[i], name))
        else:
            drawn.append((_WRONG, detections.boxes[i], f"{name} / {CLASSES[gt.classes[j]]}"))
    drawn += [
        (_MISSED, gt.boxes[j], CLASSES[gt.classes[j]])
        for j in np.setdiff1d(np.arange(len(gt)), matched)
    ]
    for box in sorted(drawn, key=lambda item: list(_STYLES).index(item[0])):
        _draw_box(axes, *box)
    _zoom(axes, [box for _, box, _ in drawn])
    return {kind: sum(item[0] == kind for item in drawn) for kind in _STYLES}


def _draw_box(axes: Axes, kind: str, box: np.ndarray, label: str) -> None:
    x0, y0, x1, y1 = box
    style = _STYLES[kind]
    axes.add_patch(Rectangle((x0, y0), x1 - x0, y1 - y0, facecolor="none", **style))
    axes.annotate(
        label,
        (x0, y0),
        xytext=(0, 1.5),
        textcoords="offset points",
        va="bottom",
        fontsize=8 if kind == _RIGHT else 11,
        fontweight="normal" if kind == _RIGHT else "bold",
        color=style["edgecolor"],
        bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 0.4},
        zorder=3 if kind == _RIGHT else 4,
        annotation_clip=False,
    )


def _zoom(axes: Axes, boxes: Sequence[np.ndarray], margin: float = 18.0) -> None:
    """Shows the part of the image that has boxes, with a margin in pixels."""
    if not boxes:
        return
    corners = np.stack(boxes)
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    axes.set_xlim(max(left, corners[:, 0].min() - margin), min(right, corners[:, 2].max() + margin))
    axes.set_ylim(min(bottom, corners[:, 3].max() + margin), max(top, corners[:, 1].min() - margin))
