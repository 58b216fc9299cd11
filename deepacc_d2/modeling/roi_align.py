"""RoIAlign for CPUs, as one weighted sum of feature vectors per pooled cell.

torchvision's CPU kernel visits a feature map channel by channel and, backward, scatters one number
at a time on one thread: on two cores that was a third of a training step. Here each pooled cell is
a bag of at most (2s)^2 grid points with bilinear weights, so that ``embedding_bag`` can add whole
channel vectors, which are contiguous in a channels-last map.

Shapes: B images, N regions, C channels, H x W cells, P x P pooled cells, s x s samples in each.
"""

from __future__ import annotations

from typing import Any

import torch
from detectron2.layers import ROIAlign
from detectron2.modeling.poolers import ROIPooler
from torch import Tensor, nn
from torch.nn import functional as F


def _taps(start: Tensor, length: Tensor, cells: int, samples: int, size: int) -> tuple:
    """Grid indices and weights along one axis.

    Args:
        start: (N,) first coordinate of each region, in cells of the map.
        length: (N,) extent of each region.
        cells: P.
        samples: s.
        size: H or W.

    Returns:
        Indices int64 and weights float32, both (N, P, 2s): two neighbors of each sample, which
        share the weight 1/s; zero weight where the sample is outside the map.
    """
    steps = (torch.arange(cells * samples, device=start.device) + 0.5) / (cells * samples)
    points = start[:, None] + length[:, None] * steps
    inside = (points >= -1.0) & (points <= size)
    points = points.clamp(0.0, size - 1.0)
    low = points.floor()
    upper = points - low
    low_index = low.long()
    indices = torch.stack([low_index, (low_index + 1).clamp(max=size - 1)], dim=-1)
    weights = torch.stack([1.0 - upper, upper], dim=-1) * (inside[..., None] / samples)
    shape = (len(start), cells, 2 * samples)
    return indices.view(shape), weights.view(shape)


class _WeightedSums(torch.autograd.Function):
    """Weighted sums of table rows, whose backward is a weighted sum as well.

    ``embedding_bag`` has a backward of its own, but one that is five times slower than sorting
    the taps by row and calling its forward once more on the transposed sums.
    """

    @staticmethod
    def forward(ctx: Any, table: Tensor, rows: Tensor, weights: Tensor) -> Tensor:
        """Sums ``table`` (T, C) over ``rows`` and ``weights``, both (M, k), to (M, C)."""
        ctx.save_for_backward(rows, weights)
        ctx.size = len(table)
        return F.embedding_bag(rows, table, per_sample_weights=weights, mode="sum")

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        """Returns the gradient (T, C) of the table."""
        rows, weights = ctx.saved_tensors
        gradient = gradients[0].contiguous()
        order = rows.view(-1).argsort()
        touched, counts = torch.unique_consecutive(rows.view(-1)[order], return_counts=True)
        sums = F.embedding_bag(
            torch.div(order, rows.shape[1], rounding_mode="floor"),
            gradient,
            offsets=counts.cumsum(0) - counts,
            per_sample_weights=weights.view(-1)[order],
            mode="sum",
        )
        result = gradient.new_zeros(ctx.size, gradient.shape[1])
        result[touched] = sums
        return result, None, None


def roi_align(
    features: Tensor, rois: Tensor, output_size: int, spatial_scale: float, sampling_ratio: int
) -> Tensor:
    """Pools regions of a feature map as ``torchvision.ops.roi_align(..., aligned=True)`` does.

    Args:
        features: (B, C, H, W); fastest when laid out channels-last.
        rois: (N, 5) rows of image index, then XYXY in pixels of the image.
        output_size: P.
        spatial_scale: cells per pixel.
        sampling_ratio: s, at least 1 (torchvision's adaptive 0 makes bags of unequal size).

    Returns:
        (N, C, P, P) in float32, with a gradient for ``features`` only.

    Source: He et al. 2017, "Mask R-CNN", section 3.
    """
    _, channels, height, width = features.shape
    boxes = rois[:, 1:].float() * spatial_scale - 0.5
    extent = boxes[:, 2:] - boxes[:, :2]
    size, s = output_size, sampling_ratio
    rows, row_weights = _taps(boxes[:, 1], extent[:, 1], size, s, height)
    columns, column_weights = _taps(boxes[:, 0], extent[:, 0], size, s, width)
    first = rois[:, 0].long()[:, None, None] * height + rows
    cells = first[:, :, None, :, None] * width + columns[:, None, :, None, :]
    weights = row_weights[:, :, None, :, None] * column_weights[:, None, :, None, :]
    table = features.permute(0, 2, 3, 1).reshape(-1, channels).float()
    bags = (len(rois) * size * size, 4 * s * s)
    pooled = _WeightedSums.apply(table, cells.reshape(bags), weights.reshape(bags))
    return pooled.view(len(rois), size, size, channels).permute(0, 3, 1, 2)


class CPUROIAlign(nn.Module):
    """Detectron2's ``ROIAlign``, by :func:`roi_align` where the features are on a CPU."""

    def __init__(self, align: ROIAlign) -> None:
        super().__init__()
        self.align = align

    def forward(self, features: Tensor, rois: Tensor) -> Tensor:
        """Pools ``features`` (B, C, H, W) in ``rois`` (N, 5) to (N, C, P, P), of the same type."""
        align = self.align
        if features.device.type != "cpu" or align.sampling_ratio < 1 or not len(rois):
            return align(features, rois)
        with torch.autocast("cpu", enabled=False):
            pooled = roi_align(
                features, rois, align.output_size[0], align.spatial_scale, align.sampling_ratio
            )
        # As torchvision's: Detectron2 gathers the levels in the type of the features.
        return pooled.to(features.dtype)


class FastROIPooler(ROIPooler):
    """Detectron2's ``ROIPooler`` with a RoIAlign that is quick on CPUs and the same on GPUs."""

    level_poolers: nn.ModuleList

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.level_poolers = nn.ModuleList(
            CPUROIAlign(p) if isinstance(p, ROIAlign) and p.aligned else p
            for p in self.level_poolers
        )
