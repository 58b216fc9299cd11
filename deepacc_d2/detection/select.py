"""Which proposals of an image are chromosomes, each once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from deepacc_d2.chromosomes import NUM_CLASSES
from deepacc_d2.errors import ConfigError
from deepacc_d2.modeling.suppression import check_crossing, suppress


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

    Raises:
        ConfigError: a share is outside 0 to 1, or the number is not positive.
    """

    min_foreground: float = 0.4
    iou: float = 0.5
    crossing_iou: float = 0.8
    crossing_score: float = 0.7
    max_chromosomes: int = 300

    def __post_init__(self) -> None:
        for name in ("min_foreground", "iou"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name}={getattr(self, name)} is no share: give 0 to 1")
        check_crossing(self.crossing_iou, self.crossing_score)
        if self.max_chromosomes < 1:
            raise ConfigError(f"max_chromosomes={self.max_chromosomes}: give at least 1")


def select(
    boxes: NDArray[np.float32], probabilities: NDArray[np.float32], settings: SelectionSettings
) -> NDArray[np.int64]:
    """Returns the rows of the kept proposals, the surest first.

    Args:
        boxes: (P, 4) XYXY.
        probabilities: (P, 25), the last of no chromosome.
        settings: what to keep.
    """
    foreground = 1.0 - probabilities[:, NUM_CLASSES].astype(np.float64)
    extent = boxes[:, 2:] - boxes[:, :2]
    keep = (foreground >= settings.min_foreground) & (extent > 0).all(axis=1)
    rows = np.flatnonzero(keep & np.isfinite(boxes).all(axis=1))
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
