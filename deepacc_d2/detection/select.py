"""From proposals to detections: the one place where boxes are chosen.

Shapes: P proposals of an image, N chromosomes that are kept of them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torchvision.ops import batched_nms

from deepacc_d2.chromosomes import NUM_CLASSES
from deepacc_d2.errors import ConfigError
from deepacc_d2.evaluation.types import ImagePrediction
from deepacc_d2.method import check_shares
from deepacc_d2.modeling.suppression import suppress

LEAST_SCORE = 0.05
"""Score of a class up to which its boxes are left out of average precision."""
CLASS_IOU = 0.5
"""For average precision, boxes of one class that overlap more than this are the same."""
TURNS: tuple[int, ...] = (0, 3, 5, 6, 1, 2, 4, 7)
"""Looks at an image in the order of use: as it is, turned by 180 degrees, by 90 each way, then
mirrored ones; see :mod:`deepacc_d2.detection.turns` for the bits."""
MOST_SCORED = 100
"""So many scored boxes of an image count for average precision, the surest."""


@dataclass(frozen=True)
class SelectionSettings:
    """What of the proposals is kept.

    Attributes:
        min_foreground: least probability of being any chromosome. The classes share it: a
            chromosome that may be 7 or X is still one.
        iou: boxes that overlap more than this with one more surely a chromosome are the same,
        crossing_iou: unless both are surely of different classes and overlap no more than this:
            crossing chromosomes. 0 for no exception.
        crossing_score: least probability of a class to be sure.
        max_chromosomes: at most this many are kept, the surest.
        tta: test-time augmentation: in how many ways, of the eight to turn and mirror a view, it
            is looked at; see :mod:`deepacc_d2.detection.turns`.

    Raises:
        ConfigError: a share is outside 0 to 1, or a number is out of its range.
    """

    min_foreground: float = 0.4
    iou: float = 0.5
    crossing_iou: float = 0.8
    crossing_score: float = 0.7
    max_chromosomes: int = 300
    tta: int = 1

    def __post_init__(self) -> None:
        check_shares(
            min_foreground=self.min_foreground,
            iou=self.iou,
            crossing_iou=self.crossing_iou,
            crossing_score=self.crossing_score,
        )
        if self.max_chromosomes < 1:
            raise ConfigError(f"max_chromosomes={self.max_chromosomes}: give at least 1")
        if not 1 <= self.tta <= len(TURNS):
            raise ConfigError(f"tta={self.tta}: give 1 (one look at an image) to {len(TURNS)}")


def select(
    boxes: NDArray[np.float32],
    probabilities: NDArray[np.float32],
    settings: SelectionSettings,
) -> NDArray[np.int64]:
    """Returns the rows of the kept proposals, the surest first.

    Args:
        boxes: (P, 4) XYXY.
        probabilities: (P, 25), the last of no chromosome.
        settings: what to keep.
    """
    foreground = 1.0 - probabilities[:, NUM_CLASSES].astype(np.float64)
    rows = np.flatnonzero((foreground >= settings.min_foreground) & _usable(boxes))
    # The surest of a class is the best placed: the box was regressed for that class.
    best, classes = torch.from_numpy(probabilities[rows, :NUM_CLASSES]).max(dim=1)
    kept = suppress(
        torch.from_numpy(boxes[rows]),
        best,
        classes,
        iou=settings.iou,
        crossing_iou=settings.crossing_iou,
        crossing_score=settings.crossing_score,
    ).numpy()
    return rows[kept[: settings.max_chromosomes]].astype(np.int64)


def decode(
    image_id: int,
    boxes: NDArray[np.float32],
    probabilities: NDArray[np.float32],
    settings: SelectionSettings,
    *,
    placed: NDArray[np.floating] | None = None,
    least_score: float = LEAST_SCORE,
) -> ImagePrediction:
    """Returns what the metrics take of an image, by all rules from the same proposals.

    Three forms of it: every class of a proposal whose score exceeds ``least_score``, after NMS
    within each class, for average precision; each proposal's best class, before NMS, of which the
    metrics make the paper's detections (score >= 0.5, NMS at 0.7); and what :func:`select` keeps,
    as ``make predict`` does.

    Args:
        image_id: of the ground truth.
        boxes: (P, 4) XYXY, in which overlaps are measured.
        probabilities: (P, 25), the last of no chromosome.
        settings: of :func:`select`.
        placed: (P, 4), the boxes in pixels of the original image; the same ones by default.
        least_score: see above.
    """
    placed = boxes if placed is None else placed
    classes = probabilities[:, :NUM_CLASSES]
    best, names = classes.max(axis=1, initial=0.0), classes.argmax(axis=1)
    good = _usable(boxes)
    rows, columns = np.nonzero((classes > least_score) & good[:, None])
    scores = classes[rows, columns]
    order = batched_nms(
        torch.from_numpy(boxes[rows]).double(),
        torch.from_numpy(scores).double(),
        torch.from_numpy(columns),
        CLASS_IOU,
    ).numpy()[:MOST_SCORED]
    top = np.flatnonzero((best > least_score) & good)
    kept = select(boxes, probabilities, settings)
    return ImagePrediction(
        image_id,
        *(placed[rows[order]], scores[order], columns[order]),
        *(placed[top], best[top], names[top]),
        *(placed[kept], best[kept], names[kept]),
    )


def _usable(boxes: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Returns which boxes (P, 4) are finite and have an area."""
    extent = boxes[:, 2:] - boxes[:, :2]
    usable: NDArray[np.bool_] = ((extent > 0) & np.isfinite(extent)).all(axis=1)
    return usable
