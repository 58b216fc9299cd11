"""Test-time augmentation: a view is shown mirrored and turned as well, and the answers averaged.

A chromosome has no upright direction on a slide, so that each of the eight ways to turn or mirror a
view is as good as any other. Errors of the network differ between them more than what is right
does. Shapes: P proposals of a look, M of the merged looks, K = 24 classes, column K = no
chromosome.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from torchvision.ops import box_iou

from deepacc_d2.chromosomes import NUM_CLASSES
from deepacc_d2.detection.network import Raw
from deepacc_d2.detection.select import SelectionSettings, select
from deepacc_d2.images.spread import Gray

# Bits of a turn: first mirrored left to right, then top to bottom, then rows made columns.
ACROSS, DOWN, TRANSPOSED = 1, 2, 4

# Least probability of being any chromosome, of a box that has a say.
LEAST_FOREGROUND = 0.1
# Boxes of two looks that overlap less are not the same chromosome.
SAME_IOU = 0.5


def turned(image: Gray, turn: int) -> Gray:
    """Returns an image (H, W), mirrored and transposed as the bits of ``turn`` say."""
    if turn & ACROSS:
        image = image[:, ::-1]
    if turn & DOWN:
        image = image[::-1]
    if turn & TRANSPOSED:
        image = image.T
    return np.ascontiguousarray(image)


def turned_back(
    boxes: NDArray[np.float32], turn: int, size: tuple[int, ...]
) -> NDArray[np.float32]:
    """Returns boxes (P, 4) of :func:`turned` as boxes of the image, whose size is (H, W)."""
    height, width = size
    x0, y0, x1, y1 = boxes.T
    if turn & TRANSPOSED:
        x0, y0, x1, y1 = y0, x0, y1, x1
    if turn & DOWN:
        y0, y1 = height - y1, height - y0
    if turn & ACROSS:
        x0, x1 = width - x1, width - x0
    return np.stack([x0, y0, x1, y1], axis=1).astype(np.float32)


def merged(looks: Sequence[Raw], settings: SelectionSettings) -> Raw:
    """Makes one answer of several looks at one view.

    Each look has its own boxes chosen. Those of two looks that overlap most, one to one, are the
    same chromosome. A chromosome that a look has not found is none to that look, so that its
    probabilities are averages over all looks.

    Args:
        looks: boxes (P, 4) in pixels of the view and probabilities (P, K + 1), of each look.
        settings: by which boxes of one look are chosen, however unsure.

    Returns:
        Boxes (M, 4), averages weighted by how surely they are chromosomes, and probabilities
        (M, K + 1).
    """
    settings = replace(settings, min_foreground=min(LEAST_FOREGROUND, settings.min_foreground))
    boxes = np.zeros((0, 4))
    probabilities = np.zeros((0, NUM_CLASSES + 1))
    weights = np.zeros(0)
    for number, (own_boxes, own_probabilities) in enumerate(looks):
        rows = select(own_boxes, own_probabilities, settings)
        found, p = own_boxes[rows].astype(np.float64), own_probabilities[rows].astype(np.float64)
        weight = 1.0 - p[:, NUM_CLASSES]
        known_boxes = torch.from_numpy(boxes / np.maximum(weights, 1e-9)[:, None])
        iou = box_iou(known_boxes, torch.from_numpy(found)).numpy()
        known, same = linear_sum_assignment(-iou)
        good = iou[known, same] >= SAME_IOU
        known, same = known[good], same[good]
        new = np.setdiff1d(np.arange(len(rows)), same)
        missed = np.setdiff1d(np.arange(len(boxes)), known)
        boxes[known] += weight[same, None] * found[same]
        weights[known] += weight[same]
        probabilities[known] += p[same]
        probabilities[missed, NUM_CLASSES] += 1.0
        late = p[new]
        late[:, NUM_CLASSES] += number
        boxes = np.concatenate([boxes, weight[new, None] * found[new]])
        weights = np.concatenate([weights, weight[new]])
        probabilities = np.concatenate([probabilities, late])
    return (
        (boxes / np.maximum(weights, 1e-9)[:, None]).astype(np.float32),
        (probabilities / max(1, len(looks))).astype(np.float32),
    )
