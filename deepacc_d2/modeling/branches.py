"""The branches of DeepACC's classification stream (Luo et al. 2020, Fig. 2).

Shapes: N proposals of B images, C = K + 1 classes of which the last is background, d features.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from deepacc_d2.losses.aam import NORM_EPS, AdditiveAngularMarginLoss, cosine_similarity
from deepacc_d2.method import Center, check_settings
from deepacc_d2.modeling.local_centers import (
    LocalCenters,
    local_centers,
    log_odds,
)


class AngularMarginBranch(nn.Module):
    """Classifies by the angle to learned class centers, trained with a margin (Eq. 1).

    >>> branch = AngularMarginBranch(16, 24, m=0.25, s=64.0)
    >>> branch(torch.ones(3, 16)).shape
    torch.Size([3, 25])

    Args:
        in_features: d.
        num_classes: K.
        m: margin in radians.
        s: scale of the cosines.
        margin_on_background: see :func:`~deepacc_d2.losses.additive_angular_margin_loss`.

    Raises:
        ConfigError: s is not positive, or m is outside [0, pi).
    """

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        *,
        m: float,
        s: float,
        margin_on_background: bool = True,
    ) -> None:
        super().__init__()
        self.criterion = AdditiveAngularMarginLoss(
            s=s, m=m, margin_on_background=margin_on_background
        )
        self.weight = nn.Parameter(torch.empty(num_classes + 1, in_features))
        # Only directions count; about unit length makes them turn at the rate that is set.
        nn.init.normal_(self.weight, std=in_features**-0.5)

    def forward(self, x: Tensor) -> Tensor:
        """Returns logits (N, C) = s cos(theta), without margin, of features (N, d)."""
        return self.criterion.s * cosine_similarity(x, self.weight)

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Returns the loss of these logits for class indices (N,)."""
        loss: Tensor = self.criterion(logits, targets)
        return loss


class LinearBranch(nn.Linear):
    """A plain linear classifier in the margin branch's place, trained by cross entropy.

    Row (d) of Table 1: what the siamese branch brings without any margin.
    """

    def __init__(self, in_features: int, num_classes: int) -> None:
        super().__init__(in_features, num_classes + 1)
        nn.init.normal_(self.weight, std=0.01)
        nn.init.zeros_(self.bias)

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Returns the cross entropy of logits (N, C) for class indices (N,); 0 without rows."""
        return F.cross_entropy(logits, targets) if len(targets) else logits.sum() * 0.0


class SiameseInferenceBranch(nn.Module):
    """Classifies every proposal against the most confident ones of its own image (Eq. 2).

    Logits are x W_I^T + b, with x as it comes: its length, which the margin branch ignores, is
    left to set how sure this branch is.

    Args:
        num_classes: K.
        delta: a proposal becomes a class's local center if its score is above it.
        detach_centers: whether what comes from the image in a center is a constant to this
            branch's loss. The global centers, where they stand in for missing ones, are mixed with
            local ones, or are background's, always learn from it: else nothing would bring them to
            the scale of the local ones that they compete with.
        center: ``single``, the paper's, or ``pair``; see :func:`.local_centers`.
        center_share: lambda, the weight of the local part of a center; 1 is the paper's.

    Raises:
        ConfigError: delta or center_share is outside [0, 1], or there is no such center.
    """

    def __init__(
        self,
        num_classes: int,
        *,
        delta: float = 0.5,
        detach_centers: bool = True,
        center: Center = "single",
        center_share: float = 1.0,
    ) -> None:
        super().__init__()
        check_settings(delta=delta, center=center, center_share=center_share)
        self.delta = float(delta)
        self.center: Center = center
        self.center_share = float(center_share)
        self.detach_centers = detach_centers
        self.bias = nn.Parameter(torch.zeros(num_classes + 1))

    def forward(
        self,
        x: Tensor,
        margin_logits: Tensor,
        global_weights: Tensor,
        counts: Sequence[int],
        boxes: Tensor | None = None,
    ) -> tuple[Tensor, LocalCenters]:
        """Scores proposals, in float32 with autocast off.

        Args:
            x: (N, d) float32 features.
            margin_logits: (N, C) of the margin branch, without margin.
            global_weights: (C, d) weights of the margin branch.
            counts: proposals of each image, summing to N.
            boxes: (N, 4) XYXY of the proposals; pair centers need them.

        Returns:
            Logits (N, C) and the centers that they were computed from.

        Raises:
            ConfigError: pair centers without boxes.
        """
        with torch.autocast(x.device.type, enabled=False):
            x, margin_logits = x.float(), margin_logits.float()
            units = F.normalize(x, dim=1, eps=NORM_EPS)
            centers = local_centers(
                margin_logits.softmax(dim=1),
                units.detach() if self.detach_centers else units,
                F.normalize(global_weights.float(), dim=1, eps=NORM_EPS),
                counts,
                self.delta,
                confidence=log_odds(margin_logits.detach()),
                boxes=boxes,
                center=self.center,
                share=self.center_share,
            )
            images = zip(x.split(list(counts)), centers.weights, strict=True)
            logits = [F.linear(features, w, self.bias) for features, w in images]
            empty = x.new_zeros(0, len(self.bias))
            return torch.cat([*logits, empty]), centers

    def extra_repr(self) -> str:
        """Shows the settings when the module is printed."""
        return (
            f"delta={self.delta}, detach_centers={self.detach_centers}, "
            f"center={self.center!r}, center_share={self.center_share}"
        )
