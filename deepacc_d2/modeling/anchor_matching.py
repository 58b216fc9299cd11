"""Anchors to ground truth without the matrix of all pairs.

Detectron2 compares every ground-truth box with every anchor: 46 chromosomes with 100,000 anchors
make five million pairs an image, nearly all of which do not overlap, and took 30 percent of a
training step on a CPU. Here only the pairs near each other are looked at; the result is the same to
the last bit. Shapes: G ground-truth boxes, N anchors, P pairs that overlap.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from detectron2.modeling.matcher import Matcher
from torch import Tensor
from torch.nn import functional as F


class Overlaps(NamedTuple):
    """Pairs of boxes with an IoU above 0.

    Attributes:
        truth: (P,) int64, row of the ground-truth box; ascending.
        anchor: (P,) int64, row of the anchor.
        iou: (P,).
    """

    truth: Tensor
    anchor: Tensor
    iou: Tensor


def overlaps(truth: Tensor, anchors: Tensor, group: int = 1) -> Overlaps:
    """Finds the pairs of boxes that overlap, with their IoU as Detectron2 computes it.

    Args:
        truth: (G, 4) XYXY.
        anchors: (N, 4) XYXY.
        group: so many consecutive anchors are close together, as those of one cell do; their
            common hull is looked at first. Any number gives the same result.
    """
    count = len(anchors)
    # Of the last, shorter group the first anchor is repeated.
    padded = F.pad(anchors, (0, 0, 0, -count % group)).view(-1, group, 4)
    if count % group:
        padded[-1, count % group - group :] = anchors[-1]
    low, high = padded[..., :2].amin(dim=1), padded[..., 2:].amax(dim=1)
    near = torch.ones(len(truth), len(padded), dtype=torch.bool, device=anchors.device)
    for axis in (0, 1):
        # Contiguous rows: with the axis as last dimension, nothing would be vectorized.
        near &= truth[:, None, axis] < high[:, axis].contiguous()
        near &= truth[:, None, 2 + axis] > low[:, axis].contiguous()
    rows, groups = near.nonzero(as_tuple=True)
    columns = (groups[:, None] * group + torch.arange(group, device=anchors.device)).flatten()
    rows = rows.repeat_interleave(group)
    real = columns < count
    rows, columns = rows[real], columns[real]
    a, b = truth[rows], anchors[columns]
    sides = torch.minimum(a[:, 2:], b[:, 2:]) - torch.maximum(a[:, :2], b[:, :2])
    shared = sides.clamp_(min=0).prod(dim=1)
    touching = shared > 0
    rows, columns, shared = rows[touching], columns[touching], shared[touching]
    area, other = ((t[:, 2] - t[:, 0]) * (t[:, 3] - t[:, 1]) for t in (truth, anchors))
    return Overlaps(rows, columns, shared / (area[rows] + other[columns] - shared))


def match(
    matcher: Matcher, truth: Tensor, anchors: Tensor, group: int = 1
) -> tuple[Tensor, Tensor]:
    """Returns what a matcher says of the matrix of all pairs, without that matrix.

    Args:
        matcher: Detectron2's.
        truth: (G, 4) XYXY.
        anchors: (N, 4) XYXY.
        group: see :func:`overlaps`.

    Returns:
        The matched ground truth (N,) int64 of each anchor, 0 where it overlaps none, and its label
        (N,) int8.
    """
    count = len(anchors)
    matches = torch.zeros(count, dtype=torch.int64, device=anchors.device)
    if not len(truth):
        return matches, torch.full_like(matches, matcher.labels[0], dtype=torch.int8)
    found = overlaps(truth, anchors, group)
    best = anchors.new_zeros(count).scatter_reduce_(0, found.anchor, found.iou, "amax")
    # Of equals the first ground truth counts, as in a maximum over the matrix's rows.
    of_best = found.iou == best[found.anchor]
    matches.fill_(len(truth))
    matches.scatter_reduce_(0, found.anchor[of_best], found.truth[of_best], "amin")
    matches[matches == len(truth)] = 0
    labels = torch.ones(count, dtype=torch.int8, device=anchors.device)
    for label, low, high in zip(
        matcher.labels, matcher.thresholds[:-1], matcher.thresholds[1:], strict=True
    ):
        labels[(best >= low) & (best < high)] = label
    if matcher.allow_low_quality_matches:
        most = anchors.new_zeros(len(truth)).scatter_reduce_(0, found.truth, found.iou, "amax")
        labels[found.anchor[found.iou == most[found.truth]]] = 1
        if not (most > 0).all():
            # A ground truth that no anchor overlaps has its maximum, 0, with all that miss it.
            labels.fill_(1)
    return matches, labels
