"""Outlines of chromosomes whose boxes are known: a detector's masks, as ``make predict`` cuts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from deepacc_d2.chromosomes import CLASSES
from deepacc_d2.detection.detector import Detections, load_detector
from deepacc_d2.errors import ConfigError
from deepacc_d2.images.gray import Gray
from deepacc_d2.images.rings import Ring
from deepacc_d2.images.view import make_view
from deepacc_d2.karyogram.cut import Box, Cut, cut_cell

Outlines = Callable[[Gray, Sequence[Box]], Mapping[int, Sequence[Ring]]]
"""Finds outlines by the index of the box, in an image and boxes (N, 4) of it; see ``cut_cell``."""


def outlines_by(ckpt: Path | None) -> Outlines:
    """Returns a function that asks a detector for masks in given boxes.

    Args:
        ckpt: of the detector; None is the included one.

    Raises:
        ConfigError: the detector has no masks.
        CheckpointError: see :func:`deepacc_d2.detection.detector.load_detector`.
    """
    detector = load_detector(ckpt)
    if detector.instance_masks is None:
        raise ConfigError(f"{ckpt} has no masks: add them with make masks, or cut by thresholds")

    def outlines(gray: Gray, boxes: Sequence[Box]) -> dict[int, Sequence[Ring]]:
        view = make_view(gray, detector.view)
        scores = np.zeros((len(boxes), len(CLASSES) + 1))
        found = Detections(np.reshape(boxes, (-1, 4)), scores, np.arange(len(boxes)), view)
        masks = detector.masks(gray, found)
        return {n: mask.rings for n, mask in enumerate(masks) if mask is not None}

    return outlines


def cut_out(gray: Gray, boxes: Sequence[Box], outlines: Outlines | None) -> list[Cut]:
    """Cuts the chromosomes of boxes out by their outlines, or by thresholds if there are none."""
    return cut_cell(gray, boxes, None if outlines is None else outlines(gray, boxes))
