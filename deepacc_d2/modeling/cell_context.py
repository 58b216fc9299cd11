"""Cell context: every box of a cell is read again in the light of all others.

The siamese branch compares a proposal with one center of each class. A cytologist compares it with
every chromosome of the cell: with its homolog, with what is longer and shorter, with what is still
missing. Here a set transformer does, over the boxes that are kept of a cell, and corrects their
class probabilities. It knows neither positions nor the order of boxes, and of sizes only their
ratio to the cell's median, so that it cannot depend on the magnification. It is not in the paper.

Shapes: N proposals of B images, C = K + 1 classes of which the last is background, d features,
L boxes of the largest cell, T token entries.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.onnx.operators import shape_as_tensor

from deepacc_d2.errors import ConfigError
from deepacc_d2.losses.aam import NORM_EPS
from deepacc_d2.method import check_shares
from deepacc_d2.modeling.suppression import suppress

SHAPE_ENTRIES = 3
"""Logs of a box's size, long side and short side, over the cell's medians."""
_FIRM = 30.0  # logit that leaves a dropped box no probability of being a chromosome
_LEAST_LOG = -20.0  # of a probability: beyond, differences are rounding


def box_shapes(boxes: Tensor) -> Tensor:
    """Returns the logs (N, 3) of size (square root of the area), long and short side of boxes.

    >>> shapes = box_shapes(torch.tensor([[0.0, 0.0, 4.0, 9.0]]))
    >>> [round(float(side)) for side in shapes[0].exp()]
    [6, 9, 4]

    Args:
        boxes: (N, 4) XYXY in any unit; sides under a thousandth count as that.
    """
    sides = (boxes[:, 2:] - boxes[:, :2]).clamp(min=1e-3).log()
    long, short = sides.amax(dim=1), sides.amin(dim=1)
    return torch.stack([(long + short) / 2, long, short], dim=1)


def evidence(features: Tensor, margin_logits: Tensor, logits: Tensor) -> Tensor:
    """Returns what is known of each box by itself, (N, d + 1 + 2 C).

    The direction and the log length of its features, and its log-probabilities by the margin
    branch and by the result.

    Args:
        features: (N, d).
        margin_logits: (N, C) of the margin branch, without margin; the result's where it is off.
        logits: (N, C) of the result.
    """
    length = torch.linalg.vector_norm(features, dim=1, keepdim=True).clamp(min=NORM_EPS)
    return torch.cat(
        [
            features / length,
            length.log(),
            margin_logits.log_softmax(dim=1).clamp(min=_LEAST_LOG),
            logits.log_softmax(dim=1).clamp(min=_LEAST_LOG),
        ],
        dim=1,
    )


class _Layer(nn.Module):
    """A pre-norm transformer layer; attention written out, so that any runtime can express it."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.fc1, self.fc2 = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, hidden: Tensor | None) -> Tensor:
        """Returns (B, L, width); ``hidden`` (B, L) marks rows that no other may look at."""
        batch, _, width = x.shape
        parts = self.qkv(self.norm1(x)).view(batch, -1, 3, self.heads, width // self.heads)
        q, k, v = parts.permute(2, 0, 3, 1, 4).unbind(0)
        scores = q @ k.transpose(-2, -1) * (width // self.heads) ** -0.5
        if hidden is not None:
            scores = scores.masked_fill(hidden[:, None, None, :], -1e9)
        mixed = (scores.softmax(dim=-1) @ v).permute(0, 2, 1, 3).reshape(batch, -1, width)
        x = x + self.dropout(self.out(mixed))
        return x + self.dropout(self.fc2(F.gelu(self.fc1(self.norm2(x)))))


class CellContext(nn.Module):
    """Corrects the class probabilities of a cell's boxes by all boxes of the cell.

    Of untrained weights the correction is zero: the last layer starts at zero.

    Args:
        in_features: d.
        num_classes: K.
        width: of the transformer.
        layers: of it; 0 leaves each box by itself, for comparison.
        heads: of its attention.
        dropout: in training.
        min_foreground: least probability of being any chromosome, of a box that is read.
        iou: boxes that overlap more with a surer one are the same chromosome.
        crossing_iou: unless both are surely of different classes and overlap no more than this,
            see :func:`~deepacc_d2.modeling.suppression.suppress`; 0 for no exception.
        crossing_score: least probability of a class to be sure.

    Raises:
        ConfigError: a number is out of its range.
    """

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        *,
        width: int = 256,
        layers: int = 3,
        heads: int = 8,
        dropout: float = 0.1,
        min_foreground: float = 0.1,
        iou: float = 0.5,
        crossing_iou: float = 0.0,
        crossing_score: float = 0.7,
    ) -> None:
        super().__init__()
        if min(in_features, num_classes, width, heads) < 1 or layers < 0 or width % heads:
            raise ConfigError(
                f"context: width={width} must be a multiple of heads={heads}, and layers={layers} "
                "not below 0"
            )
        check_shares("context: ", dropout=dropout, min_foreground=min_foreground, iou=iou)
        check_shares(crossing_iou=crossing_iou, crossing_score=crossing_score)
        self.crossing_iou, self.crossing_score = float(crossing_iou), float(crossing_score)
        self.num_classes = num_classes
        self.min_foreground, self.iou = float(min_foreground), float(iou)
        entries = in_features + 1 + 2 * (num_classes + 1) + SHAPE_ENTRIES
        self.embed = nn.Linear(entries, width)
        self.layers = nn.ModuleList(_Layer(width, heads, dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, num_classes + 1)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def correct(self, known: Tensor, shapes: Tensor, hidden: Tensor | None = None) -> Tensor:
        """Returns corrected log-probabilities (B, L, C), not normalized.

        Args:
            known: (B, L, d + 1 + 2 C) of :func:`evidence`; the last C are what is corrected.
            shapes: (B, L, 3) of :func:`box_shapes`, less the cell's median of each.
            hidden: (B, L), rows that only fill up; null for none.
        """
        x = self.embed(torch.cat([known, shapes], dim=-1))
        for layer in self.layers:
            x = layer(x, hidden)
        corrected: Tensor = known[..., -(self.num_classes + 1) :] + self.head(self.norm(x))
        return corrected

    def keep(self, boxes: Tensor, logits: Tensor) -> Tensor:
        """Returns the rows of one image that are chromosomes, each once, the surest first.

        Args:
            boxes: (N, 4) XYXY, regressed for the most probable class.
            logits: (N, C) of the result.
        """
        probabilities = logits.softmax(dim=1)
        foreground = 1 - probabilities[:, -1]
        rows = (foreground >= self.min_foreground).nonzero()[:, 0]
        best, classes = probabilities[rows, :-1].max(dim=1)
        kept = suppress(
            boxes[rows],
            best,
            classes,
            iou=self.iou,
            crossing_iou=self.crossing_iou,
            crossing_score=self.crossing_score,
        )
        return rows[kept]

    def forward(
        self,
        features: Tensor,
        margin_logits: Tensor,
        logits: Tensor,
        boxes: Tensor,
        counts: Sequence[int],
    ) -> Tensor:
        """Corrects the logits of the boxes that are kept; of all others nothing is left.

        Args:
            features: (N, d) float32.
            margin_logits: (N, C); see :func:`evidence`.
            logits: (N, C) of the result.
            boxes: (N, 4) XYXY in pixels, each regressed for its most probable class.
            counts: proposals of each image, summing to N.

        Returns:
            Logits (N, C); a box that is not kept is surely background.
        """
        split = list(counts)
        images = (t.split(split) for t in (features, margin_logits, logits, boxes))
        corrected = [self.of_image(*parts) for parts in zip(*images, strict=True)]
        return torch.cat([*corrected, logits[:0]])

    def of_image(
        self, features: Tensor, margin_logits: Tensor, logits: Tensor, boxes: Tensor
    ) -> Tensor:
        """Does :meth:`forward` for one image, in operations that can be traced for any N."""
        rows = self.keep(boxes, logits)
        shapes = box_shapes(boxes[rows])
        known = evidence(features[rows], margin_logits[rows], logits[rows])
        # A row that no other looks at: not every runtime has a softmax over nothing.
        known, shapes = (F.pad(t, (0, 0, 0, 1)) for t in (known, shapes - median_shape(shapes)))
        hidden = torch.zeros_like(known[:, 0])
        hidden[-1] = 1
        new = self.correct(known[None], shapes[None], hidden[None] > 0)[0, :-1]
        away = torch.zeros_like(logits)
        away[:, -1] = _FIRM
        return away.scatter(0, rows[:, None].expand(-1, logits.shape[1]), new.to(away.dtype))


def median_shape(shapes: Tensor) -> Tensor:
    """Returns the lower median (3,) of each column of (N, 3); of no rows, zeros."""
    ordered = F.pad(shapes.sort(dim=0).values, (0, 0, 0, 1))
    count = shape_as_tensor(shapes)[0]  # a number that tracing does not freeze
    return ordered[(count - 1).clamp(min=0) // 2]
