"""What an evaluation shows in W&B: test images with boxes, confusion matrix, classes, groups."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import wandb

from deepacc_d2.chromosomes import CLASSES, GROUP_OF, NUM_CLASSES, denver_order
from deepacc_d2.errors import DataError
from deepacc_d2.evaluation.boxes import GroundTruth, flatten_predictions
from deepacc_d2.evaluation.gallery import image_acc, rank_images
from deepacc_d2.evaluation.matching import match
from deepacc_d2.evaluation.metrics import confident_top1
from deepacc_d2.evaluation.tables import CLASS_COLUMNS
from deepacc_d2.evaluation.types import ImageCounts, ImagePrediction, Metrics
from deepacc_d2.images.read import read_gray

IMAGE_COLUMNS = ("choice", "file_name", "image", "acc", "gt", "tp", "fp", "fn")
GROUP_SCALARS = ("map50", "aer")
CLASS_LABELS = dict(enumerate(CLASSES))


def evaluation_media(
    coco: Mapping[str, Any],
    predictions: Sequence[ImagePrediction],
    metrics: Metrics,
    image_root: Path,
    *,
    num_images: int,
    image_size: int,
) -> dict[str, Any]:
    """Builds what is logged of an evaluation besides its nine scalars.

    Args:
        coco: the ground truth.
        predictions: of the same split.
        metrics: computed from these two.
        image_root: folder that the images' ``file_name`` is relative to.
        num_images: images shown, at most.
        image_size: longer side in pixels that they are scaled down to.

    Returns:
        By key: ``images`` (table) and ``examples/<choice>`` (its images, for media
        panels); ``confusion_matrix`` (chart over a table of counts); ``per_class`` and
        ``per_group`` (tables); ``per_class_ap`` and ``per_group_aer`` (bar charts); and
        ``group/<A..G>/map50`` and ``aer``, in percent.
    """
    groups = list(metrics.per_group)
    per_class = table(
        ["class", "group", *CLASS_COLUMNS],
        [
            [name, GROUP_OF[name], *(metrics.per_class[name][key] for key in CLASS_COLUMNS)]
            for name in (CLASSES[k] for k in denver_order())
        ],
    )
    columns = list(metrics.per_group[groups[0]])
    per_group = table(
        ["group", *columns],
        [[group, *(metrics.per_group[group][key] for key in columns)] for group in groups],
    )
    media = {
        "confusion_matrix": confusion_chart(metrics),
        "per_class": per_class,
        "per_class_ap": wandb.plot.bar(per_class, "class", "ap50", title="AP at IoU 0.5 by class"),
        "per_group": per_group,
        "per_group_aer": wandb.plot.bar(per_group, "group", "aer", title="AER by Denver group"),
        **{
            f"group/{group}/{key}": float(metrics.per_group[group][key])
            for group in groups
            for key in GROUP_SCALARS
        },
    }
    rows = image_rows(
        coco,
        predictions,
        metrics,
        image_root,
        chosen=choose_images(metrics.images, num_images),
        image_size=image_size,
    )
    if rows:
        media["images"] = table(list(IMAGE_COLUMNS), rows)
    # A key each: W&B shows a list of images of different sizes wrongly.
    for choice, _, image, *_ in rows:
        media[f"examples/{choice}"] = image
    return media


def table(columns: list[str], rows: list[list[Any]]) -> wandb.Table:
    """Makes a table; an undefined number is an empty cell, all others of a column are floats."""

    def cell(value: Any) -> Any:
        if isinstance(value, float):
            return float(value) if np.isfinite(value) else None
        return value

    return wandb.Table(columns=list(columns), data=[[cell(value) for value in row] for row in rows])


def confusion_chart(metrics: Metrics) -> Any:
    """Draws the counts of ``metrics.confusion``, zeros included, classes in Denver order.

    The background is ``missed`` as a prediction and ``spurious`` as a truth, as in the report.
    """
    order = [*denver_order(), NUM_CLASSES]
    rows = [
        [
            CLASSES[i] if i < NUM_CLASSES else "spurious",
            CLASSES[j] if j < NUM_CLASSES else "missed",
            int(metrics.confusion[i, j]),
        ]
        for i in order
        for j in order
    ]
    fields = ("Actual", "Predicted", "nPredictions")
    return wandb.plot_table(
        "wandb/confusion_matrix/v1",
        wandb.Table(columns=list(fields), data=rows),
        {field: field for field in fields},
        {"title": "Confusion matrix"},
        split_table=True,
    )


def choose_images(images: Sequence[ImageCounts], num: int) -> list[tuple[str, ImageCounts]]:
    """Chooses the images to show: a third best, a third worst, and some between, evenly spaced.

    Args:
        images: outcome on each image.
        num: how many to choose, at most.

    Returns:
        Pairs of a name and an image, highest ``acc`` first: ``best_1``, ``best_2``, ...,
        ``between_1``, ..., ``worst_2``, ``worst_1``.
    """
    ranked = rank_images(images)
    num = min(num, len(ranked))
    best, worst = (num + 2) // 3, (num + 1) // 3
    inner = np.arange(best, len(ranked) - worst)
    count = num - best - worst
    # Middles of equal parts, so that neither end is favored.
    between = inner[((np.arange(count) + 0.5) * len(inner) / max(count, 1)).astype(int)]
    places = [(f"best_{i + 1}", i) for i in range(best)]
    places += [(f"between_{n}", int(i)) for n, i in enumerate(between, start=1)]
    places += [(f"worst_{i}", len(ranked) - i) for i in range(worst, 0, -1)]
    return [(name, ranked[i]) for name, i in places]


def image_rows(
    coco: Mapping[str, Any],
    predictions: Sequence[ImagePrediction],
    metrics: Metrics,
    image_root: Path,
    *,
    chosen: Sequence[tuple[str, ImageCounts]],
    image_size: int,
) -> list[list[Any]]:
    """Returns the rows of the table of images; an image that cannot be read is left out."""
    rows: list[list[Any]] = []
    for choice, counts in chosen:
        record = next(image for image in coco["images"] if image["id"] == counts.image_id)
        pixels = read_small(image_root / str(record.get("file_name", "")), image_size)
        if pixels is None:
            continue
        part = {
            "images": [record],
            "annotations": [a for a in coco["annotations"] if a["image_id"] == counts.image_id],
        }
        found = [p for p in predictions if p.image_id == counts.image_id]
        image = wandb.Image(
            pixels,
            mode="L",
            file_type="jpg",
            caption=f"{record['file_name']}: {choice}, acc {100 * image_acc(counts):.0f} %",
            boxes=box_groups(part, found, metrics),
        )
        rows.append(
            [
                choice,
                str(record["file_name"]),
                image,
                100.0 * image_acc(counts),
                counts.tp + counts.fn,
                counts.tp,
                counts.fp,
                counts.fn,
            ]
        )
    return rows


def read_small(path: Path, size: int) -> np.ndarray | None:
    """Reads an image in gray, its longer side at most ``size``: (H, W) uint8, or null."""
    try:
        pixels = read_gray(path)
    except DataError:
        return None
    scale = size / max(pixels.shape)
    if scale < 1:
        height, width = (max(round(side * scale), 1) for side in pixels.shape)
        return cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA)
    return pixels


def box_groups(
    part: Mapping[str, Any], found: Sequence[ImagePrediction], metrics: Metrics
) -> dict[str, dict[str, Any]]:
    """Returns W&B's box overlay of one image: its ground truth, and what Acc and AER count.

    Detections are matched regardless of class, so that a wrong class is one error. Positions are
    fractions of the image's sides.

    Args:
        part: COCO dictionary of this one image.
        found: its predictions; empty for none.
        metrics: of the data set; its thresholds hold.
    """
    record = part["images"][0]
    sides = np.array([record["width"], record["height"]] * 2, dtype=np.float64)
    settings = metrics.settings
    truth = GroundTruth.from_coco(part)
    detections = confident_top1(
        flatten_predictions(truth.image_ids, found)[1],
        score_threshold=settings["score_threshold"],
        agnostic_nms=settings["agnostic_nms"],
    )
    gt = truth.boxes
    matched = match(detections, gt, settings["iou_threshold"], same_class=False)
    missed = set(range(len(gt))) - set(matched.tolist())

    def box(corners: np.ndarray, index: int, caption: str) -> dict[str, Any]:
        x0, y0, x1, y1 = np.clip(corners / sides, 0.0, 1.0).tolist()
        return {
            "position": {"minX": x0, "maxX": x1, "minY": y0, "maxY": y1},
            "class_id": index,
            "box_caption": caption,
        }

    truths = [
        box(gt.boxes[j], k, CLASSES[k] + (" missed" if j in missed else ""))
        for j, k in enumerate(gt.classes.tolist())
    ]
    guesses = []
    for i, (k, j) in enumerate(zip(detections.classes.tolist(), matched.tolist(), strict=True)):
        if j < 0:
            caption = f"{CLASSES[k]} spurious"
        elif k == gt.classes[j]:
            caption = CLASSES[k]
        else:
            caption = f"{CLASSES[k]} is {CLASSES[gt.classes[j]]}"
        score = float(detections.scores[i])
        guesses.append({**box(detections.boxes[i], k, caption), "scores": {"score": score}})
    return {
        "ground_truth": {"box_data": truths, "class_labels": CLASS_LABELS},
        "predictions": {"box_data": guesses, "class_labels": CLASS_LABELS},
    }
