"""Whether two detectors find the same chromosomes.

Shapes: S and T chromosomes that one and the other select in an image.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torchvision.ops import box_iou

from deepacc_d2.chromosomes import NUM_CLASSES
from deepacc_d2.detection.detector import Detector
from deepacc_d2.detection.network import Raw
from deepacc_d2.detection.select import SelectionSettings, select
from deepacc_d2.evaluation.metrics import compute_metrics
from deepacc_d2.images.spread import Gray

MOST_PIXELS = 0.5
MOST_SCORE = 1e-3
SAME_IOU = 0.5
MOST_TIES = 1 / 500
"""Share of chromosomes that may differ by more. The RPN cuts at a rank and at an overlap: where two
proposals are level there to the sixth digit, rounding decides which of them is kept, and another
one is classified."""


@dataclass(frozen=True)
class Parity:
    """How far a detector is from the one that it stands for, over some images.

    Attributes:
        images: compared.
        chromosomes: that the other one selects.
        unmatched: chromosomes that only one of the two selects.
        classes: matched ones whose most probable class differs.
        pixels: largest difference of a coordinate of matched boxes, in pixels.
        score: largest difference of any of the 25 probabilities of a matched one.
        beyond: matched ones of the same class that differ by more than :data:`MOST_PIXELS` or
            :data:`MOST_SCORE`.
    """

    images: int = 0
    chromosomes: int = 0
    unmatched: int = 0
    classes: int = 0
    pixels: float = 0.0
    score: float = 0.0
    beyond: int = 0

    @property
    def same(self) -> bool:
        """Whether the two differ by rounding alone, and by what near ties make of it."""
        differ = self.unmatched + self.classes + self.beyond
        return differ <= MOST_TIES * self.chromosomes

    @property
    def agreement(self) -> float:
        """The share of chromosomes that both select and give the same class, 0 to 1."""
        differ = self.unmatched + self.classes
        return max(0.0, 1 - differ / max(self.chromosomes, 1))

    def __add__(self, other: Parity) -> Parity:
        return Parity(
            self.images + other.images,
            self.chromosomes + other.chromosomes,
            self.unmatched + other.unmatched,
            self.classes + other.classes,
            max(self.pixels, other.pixels),
            max(self.score, other.score),
            self.beyond + other.beyond,
        )

    def __str__(self) -> str:
        return (
            f"{self.chromosomes} chromosomes of {self.images} images: {self.unmatched} found by "
            f"one only, {self.classes} of another class, {self.beyond} otherwise beyond "
            f"{MOST_PIXELS} px or {MOST_SCORE}; boxes within {self.pixels:.2g} px, scores within "
            f"{self.score:.2g}"
        )


def compare(reference: Raw, other: Raw, settings: SelectionSettings | None = None) -> Parity:
    """Compares what two detectors say of an image, after the same selection.

    Chromosomes are matched by the greatest overlap, which must be mutual and at least 0.5. One that
    is left over counts if its score is not on the very threshold of the selection.

    Args:
        reference: boxes (P, 4) and probabilities (P, 25).
        other: the same of the other detector, in any order.
        settings: of the selection.
    """
    settings = settings or SelectionSettings()
    (a, p), (b, q) = (_selected(raw, settings) for raw in (reference, other))
    pairs = _mutual(a, b)
    rows, columns = pairs[:, 0], pairs[:, 1]
    alone = _surely(np.delete(p, rows, axis=0), settings)
    alone += _surely(np.delete(q, columns, axis=0), settings)
    classes = p[rows, :NUM_CLASSES].argmax(axis=1) != q[columns, :NUM_CLASSES].argmax(axis=1)
    far = np.abs(a[rows] - b[columns]).max(axis=1, initial=0) > MOST_PIXELS
    far |= np.abs(p[rows] - q[columns]).max(axis=1, initial=0) > MOST_SCORE
    return Parity(
        images=1,
        chromosomes=len(a),
        unmatched=alone,
        classes=int(classes.sum()),
        pixels=float(np.abs(a[rows] - b[columns]).max(initial=0)),
        score=float(np.abs(p[rows] - q[columns]).max(initial=0)),
        beyond=int((far & ~classes).sum()),
    )


def _selected(raw: Raw, settings: SelectionSettings) -> Raw:
    rows = select(*raw, settings)
    return raw[0][rows], raw[1][rows]


def _surely(probabilities: NDArray[np.float32], settings: SelectionSettings) -> int:
    """Returns how many (n, 25) are above the threshold by more than scores may differ."""
    foreground = 1.0 - probabilities[:, NUM_CLASSES].astype(np.float64)
    return int((foreground > settings.min_foreground + MOST_SCORE).sum())


def _mutual(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.int64]:
    """Returns the pairs (n, 2) of rows of boxes (S, 4) and (T, 4) that overlap each other most."""
    if not len(a) or not len(b):
        return np.zeros((0, 2), dtype=np.int64)
    iou = box_iou(torch.from_numpy(a), torch.from_numpy(b)).numpy()
    best = iou.argmax(axis=1)
    rows = np.arange(len(a))
    keep = (iou.argmax(axis=0)[best] == rows) & (iou[rows, best] >= SAME_IOU)
    return np.stack([rows[keep], best[keep]], axis=1)


def map50(detector: Detector, images: Iterable[Gray], coco: dict[str, Any]) -> float:
    """Returns a detector's mAP at IoU 0.5 of the best class of each proposal, in percent.

    It is the ``map50_max`` of ``make evaluate``.

    Args:
        detector: of gray images.
        images: uint8 (H, W), in the order of the COCO dictionary's.
        coco: the ground truth.
    """
    predictions = [
        detector.predict(gray, int(record["id"]))
        for gray, record in zip(images, coco["images"], strict=True)
    ]
    return float(compute_metrics(coco, predictions).map50_max)
