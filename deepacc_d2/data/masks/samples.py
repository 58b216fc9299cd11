"""Composed spreads as windows around boxes, with the mask that is to be learned in each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deepacc_d2.data.masks.compose import Placed
from deepacc_d2.modeling.instance_masks import Windows, cut_windows, windows

# Half of the boxes are tight, as those of an outline are: off by up to so many pixels.
TIGHT, SLACK = 0.5, 1.0
# The others are an annotator's or a detector's: off by a standard deviation of this, in pixels.
OFF = 2.0
# Where outlines are drawn differs between people: a tight box's mask is wider or narrower by a
# standard deviation of this, in pixels, up to twice of it.
EDGE_OFF = 1.0


@dataclass(eq=False)
class MaskSample:
    """A spread and what is to be learned of it. Not frozen: Lightning moves it to a device.

    Attributes:
        image: uint8 (1, H, W).
        boxes: float32 (n, 4).
        windows: around them.
        masks: float32 (m, S, S) for each group of windows.
        covered: float32 (n,), share of each that others cover.
    """

    image: Tensor
    boxes: Tensor
    windows: list[Windows]
    masks: list[Tensor]
    covered: Tensor


def make_sample(
    image: NDArray[np.uint8],
    placed: Sequence[Placed],
    rng: np.random.Generator | None,
    most: int = 1000,
) -> MaskSample:
    """Makes a sample of a spread.

    Args:
        image: uint8 (H, W).
        placed: its chromosomes with known masks.
        rng: disturbs boxes and edges; None leaves the boxes as they are.
        most: chromosomes of it, those first that others cover.
    """
    chosen = list(placed)
    if rng is not None:
        order = [int(n) for n in rng.permutation(len(chosen))]
        order.sort(key=lambda n: chosen[n].covered == 0)
        chosen = [chosen[n] for n in order[:most]]
    shapes = [_disturbed(each, rng) for each in chosen]
    boxes = torch.from_numpy(np.reshape([box for box, _ in shapes], (-1, 4)).astype(np.float32))
    groups = windows(boxes)
    masks = [
        torch.stack(
            [_window(shapes[n][1], chosen[n], group, k) for k, n in enumerate(group.rows.tolist())]
        )
        for group in groups
    ]
    covered = torch.tensor([each.covered for each in chosen], dtype=torch.float32)
    return MaskSample(torch.from_numpy(image)[None], boxes, groups, masks, covered)


def _disturbed(
    each: Placed, rng: np.random.Generator | None
) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
    """Returns a box and the mask (h + 6, w + 6) that goes with it."""
    mask = np.pad(each.mask, 3)
    if rng is None:
        return each.box, mask.astype(np.float32)
    if rng.random() >= TIGHT:
        return each.box + rng.normal(0, OFF, 4), mask.astype(np.float32)
    off = float(np.clip(rng.normal(0, EDGE_OFF), -2 * EDGE_OFF, 2 * EDGE_OFF))
    inside = cv2.distanceTransform(mask.astype(np.uint8), cv2.DIST_L2, 5)
    outside = cv2.distanceTransform(1 - mask.astype(np.uint8), cv2.DIST_L2, 5)
    away = np.where(mask, inside - 0.5, 0.5 - outside)  # from the edge, positive inside
    soft = np.clip(away + off + 0.5, 0, 1).astype(np.float32)
    if (soft > 0.5).sum() < 4:
        soft, off = mask.astype(np.float32), 0.0
    rows, columns = np.nonzero(mask)
    x, y = each.corner
    bounds = np.array(
        [columns.min() - 3, rows.min() - 3, columns.max() - 2, rows.max() - 2], np.float64
    )
    bounds += np.array([x, y, x, y]) + off * np.array([-1, -1, 1, 1])
    return bounds + rng.uniform(-SLACK, SLACK, 4), soft


def _window(soft: NDArray[np.float32], each: Placed, group: Windows, place: int) -> Tensor:
    """Returns what a window shows of a padded mask."""
    x, y = each.corner
    area = group.areas[place] - torch.tensor([x - 3, y - 3, x - 3, y - 3], dtype=torch.float32)
    shown = cut_windows(torch.from_numpy(soft)[None, None], area[None], group.side)
    return shown[0, 0]
