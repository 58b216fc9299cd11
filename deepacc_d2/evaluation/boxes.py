"""Boxes of a whole data set as flat arrays, and the selections made on them before matching.

Shapes: N boxes of all images together, I images.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torchvision.ops import batched_nms, nms

from deepacc_d2.chromosomes import NUM_CLASSES
from deepacc_d2.errors import DataError
from deepacc_d2.evaluation.types import ImagePrediction


@dataclass(frozen=True, eq=False)
class FlatBoxes:
    """Boxes of all images, ordered by image and then by descending score.

    Ties are ordered by class and coordinates, so that the order, and all that is computed from
    it, does not depend on the order in which predictions arrive.

    Attributes:
        image: (N,) int64, index of the image, 0..I-1, ascending.
        boxes: (N, 4) float64 XYXY in pixels of the original image.
        scores: (N,) float64; ones for ground truth.
        classes: (N,) int64, 0..23.
        starts: (I + 1,) int64: the boxes of image i are ``starts[i]:starts[i + 1]``.
    """

    image: np.ndarray
    boxes: np.ndarray
    scores: np.ndarray
    classes: np.ndarray
    starts: np.ndarray

    def __len__(self) -> int:
        return len(self.image)

    def select(self, keep: np.ndarray) -> FlatBoxes:
        """Returns the boxes of a boolean mask (N,), their order unchanged."""
        image = self.image[keep]
        return FlatBoxes(
            image,
            self.boxes[keep],
            self.scores[keep],
            self.classes[keep],
            np.searchsorted(image, np.arange(len(self.starts))),
        )


@dataclass(frozen=True, eq=False)
class GroundTruth:
    """Ground-truth boxes and the images they are of, ordered by image id."""

    image_ids: tuple[int, ...]
    boxes: FlatBoxes

    @classmethod
    def from_coco(cls, coco: Mapping[str, Any]) -> GroundTruth:
        """Reads a COCO dictionary with category ids 1..24; it is not changed.

        Raises:
            DataError: a repeated image id, or an annotation that is of an unknown image, has a
                category id outside 1..24, a box that is not finite, or is a crowd region.
        """
        image_ids = tuple(sorted(int(image["id"]) for image in coco["images"]))
        if len(set(image_ids)) != len(image_ids):
            raise DataError("the ground truth lists an image id twice: give every image its own id")
        index = {image_id: i for i, image_id in enumerate(image_ids)}
        annotations = coco["annotations"]
        for annotation in annotations:
            if annotation["image_id"] not in index:
                problem = f"is of image {annotation['image_id']}, which is not listed in images"
            elif not 1 <= annotation["category_id"] <= NUM_CLASSES:
                problem = f"has category id {annotation['category_id']}, expected 1..{NUM_CLASSES}"
            elif annotation.get("iscrowd"):
                problem = "is a crowd region; chromosomes are annotated one by one"
            else:
                continue
            raise DataError(f"ground-truth annotation {annotation.get('id')} {problem}")
        xywh = _array([a["bbox"] for a in annotations], (-1, 4))
        if not np.isfinite(xywh).all():
            bad = annotations[int(np.flatnonzero(~np.isfinite(xywh).all(axis=1))[0])]
            raise DataError(f"ground-truth annotation {bad.get('id')} has a box that is not finite")
        return cls(
            image_ids,
            _flatten(
                image=_array([index[a["image_id"]] for a in annotations], (-1,)).astype(np.int64),
                boxes=np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], axis=1),
                scores=np.ones(len(annotations)),
                classes=_array([a["category_id"] for a in annotations], (-1,)).astype(np.int64) - 1,
                num_images=len(image_ids),
            ),
        )


def flatten_predictions(
    image_ids: Sequence[int], predictions: Sequence[ImagePrediction]
) -> tuple[FlatBoxes, FlatBoxes]:
    """Returns the final detections and the top-1 boxes of all images; both may be empty.

    Args:
        image_ids: ids of the I images of the ground truth, in index order.
        predictions: in any order; an image may be left out.

    Raises:
        DataError: an image id that is unknown or comes twice, a box or score that is not finite,
            or a class outside 0..23.
    """
    seen: set[int] = set()
    known = set(image_ids)
    for prediction in predictions:
        if prediction.image_id not in known:
            raise DataError(
                f"predictions of image {prediction.image_id}: no such image in the ground truth; "
                "evaluate on the split that was predicted"
            )
        if prediction.image_id in seen:
            raise DataError(f"predictions of image {prediction.image_id} are given twice")
        seen.add(prediction.image_id)
    return _flatten_form("", image_ids, predictions), _flatten_form("top1_", image_ids, predictions)


def flatten_kept(
    image_ids: Sequence[int], predictions: Sequence[ImagePrediction]
) -> FlatBoxes | None:
    """Returns what ``make predict`` keeps of all images, None where a prediction does not say.

    See :func:`flatten_predictions`.
    """
    if not predictions or any(p.kept_boxes is None for p in predictions):
        return None
    return _flatten_form("kept_", image_ids, predictions)


def _flatten_form(
    prefix: str, image_ids: Sequence[int], predictions: Sequence[ImagePrediction]
) -> FlatBoxes:
    """Returns one form of the predictions, by the prefix of its attributes."""
    index = {image_id: i for i, image_id in enumerate(image_ids)}
    images = np.array([index[p.image_id] for p in predictions], dtype=np.int64)
    parts = [
        [getattr(p, prefix + name) for p in predictions] for name in ("boxes", "scores", "classes")
    ]
    counts = [len(scores) for scores in parts[1]]
    flat = {
        "image": np.repeat(images, counts),
        "boxes": np.concatenate([np.zeros((0, 4)), *parts[0]]).astype(np.float64),
        "scores": np.concatenate([np.zeros(0), *parts[1]]).astype(np.float64),
        "classes": np.concatenate([np.zeros(0, dtype=np.int64), *parts[2]]),
    }
    finite = np.isfinite(flat["boxes"]).all(axis=1) & np.isfinite(flat["scores"])
    known = (flat["classes"] >= 0) & (flat["classes"] < NUM_CLASSES)
    for good, problem in (
        (finite, "a box or score that is not finite"),
        (known, f"a class outside 0..{NUM_CLASSES - 1}"),
    ):
        if not good.all():
            image_id = image_ids[flat["image"][np.flatnonzero(~good)[0]]]
            raise DataError(f"predictions of image {image_id}: {problem} in {prefix}boxes")
    return _flatten(**flat, num_images=len(image_ids))


def keep_best(found: FlatBoxes, limit: int) -> FlatBoxes:
    """Keeps the ``limit`` highest-scoring boxes of every image."""
    rank = np.arange(len(found)) - found.starts[found.image]
    return found.select(rank < limit)


def suppress(found: FlatBoxes, iou_threshold: float, *, per_class: bool) -> FlatBoxes:
    """Non-maximum suppression within every image, over each class apart or over all together.

    In float64: torchvision separates classes by shifting boxes, which costs float32 its last
    digits.
    """
    keep = np.zeros(len(found), dtype=bool)
    boxes, scores = torch.from_numpy(found.boxes), torch.from_numpy(found.scores)
    classes = torch.from_numpy(found.classes)
    for start, stop in zip(found.starts[:-1], found.starts[1:], strict=True):
        if stop - start < 2:
            keep[start:stop] = True
            continue
        part = slice(start, stop)
        if per_class:
            kept = batched_nms(boxes[part], scores[part], classes[part], iou_threshold)
        else:
            kept = nms(boxes[part], scores[part], iou_threshold)
        keep[start + kept.numpy()] = True
    return found.select(keep)


def _array(values: list[Any], shape: tuple[int, ...]) -> np.ndarray:
    return np.array(values, dtype=np.float64).reshape(shape)


def _flatten(
    *,
    image: np.ndarray,
    boxes: np.ndarray,
    scores: np.ndarray,
    classes: np.ndarray,
    num_images: int,
) -> FlatBoxes:
    """Orders by image, descending score, class and coordinates; negative sizes become zero."""
    boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2])
    order = np.lexsort((*boxes.T, classes, -scores, image))
    image = image[order]
    return FlatBoxes(
        image,
        boxes[order],
        scores[order],
        classes[order],
        np.searchsorted(image, np.arange(num_images + 1)),
    )
