"""Non-maximum suppression that keeps the boxes of both of two crossing chromosomes.

Where two chromosomes cross, their boxes may overlap as much as two boxes of one chromosome do.
Their classes separate them: two boxes of one chromosome are seldom both sure, of different
classes. So the usual suppression, over all classes at one IoU, spares such pairs.

Shapes: N boxes.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.ops import box_iou, nms


def suppress(
    boxes: Tensor,
    scores: Tensor,
    classes: Tensor,
    *,
    iou: float,
    crossing_iou: float = 0.0,
    crossing_score: float = 1.0,
) -> Tensor:
    """Returns the rows of the boxes that stay, those of the highest scores first.

    Boxes with a score of at least ``crossing_score`` come first: of one class, they may overlap by
    ``iou``, and of different ones by ``crossing_iou``. Of the other boxes, none may overlap one
    that stays by more than ``iou``. Made of operations that can be traced for any N.

    Args:
        boxes: (N, 4) XYXY.
        scores: (N,) in 0 to 1, each box's own class.
        classes: (N,) int64.
        iou: of two boxes of one chromosome.
        crossing_iou: of two of crossing ones; at most ``iou`` for plain suppression.
        crossing_score: see above.
    """
    if crossing_iou <= iou:
        return nms(boxes, scores, iou)
    sure = scores >= crossing_score
    rows = sure.nonzero()[:, 0]
    # Boxes of different classes are moved too far apart to overlap. torchvision's batched_nms does
    # so too, but an exported graph of it fails where no box is sure.
    reach = _reach(boxes)
    apart = boxes[rows] + (classes[rows].to(boxes.dtype) * reach)[:, None]
    rows = rows[nms(apart, scores[rows], iou)]
    rows = rows[nms(boxes[rows], scores[rows], crossing_iou)]
    rest = (~sure).nonzero()[:, 0]
    rest = rest[~(box_iou(boxes[rest], boxes[rows]) > iou).any(dim=1)]
    rest = rest[nms(boxes[rest], scores[rest], iou)]
    # Every sure score is above every other.
    return torch.cat([rows, rest])


def _reach(boxes: Tensor) -> Tensor:
    """Returns more than the largest extent of all boxes; of none, 1."""
    zero = boxes.new_zeros(1, 4)
    padded = torch.cat([boxes, zero])
    return padded.max() - padded.min() + 1
