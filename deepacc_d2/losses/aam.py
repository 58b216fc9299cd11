"""Additive angular margin (DeepACC, Luo et al. 2020, Eq. 1; ArcFace, Deng et al. 2019).

Shapes: N proposals, C = K + 1 classes of which the last is background, d features.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from deepacc_d2.method import check_settings

# Least sin^2 in float32. Below it the cosine is 1 to rounding, and the gradient of the square
# root, which grows without bound there, would carry nothing but rounding errors.
EPS = 1e-7
# Least norm of a feature or center vector that is divided by it.
NORM_EPS = 1e-6


def cosine_similarity(features: Tensor, centers: Tensor) -> Tensor:
    """Returns the cosines (N, C) between features (N, d) and class centers (C, d), in float32.

    bfloat16 would round cosines above 0.998 to 1, where the angle has no gradient; autocast is
    therefore off in here.
    """
    with torch.autocast(features.device.type, enabled=False):
        unit = F.normalize(features.float(), dim=1, eps=NORM_EPS)
        return unit @ F.normalize(centers.float(), dim=1, eps=NORM_EPS).t()


def add_angular_margin(cosines: Tensor, m: float) -> Tensor:
    """Returns cos(theta + m), and past theta = pi - m the line that goes on falling.

    cos(theta + m) rises again beyond that angle, which would reward the worst proposals; there
    cos(theta) - m sin(m) is taken instead, as ArcFace does. (Where it takes over it lies below -1
    for margins up to 2.33; larger ones, which nobody uses, make a step upwards there.)

    >>> [round(float(c), 3) for c in add_angular_margin(torch.tensor([1.0, 0.0, -1.0]), m=0.5)]
    [0.877, -0.479, -1.24]

    Args:
        cosines: any shape, in -1..1.
        m: margin in radians, in [0, pi).
    """
    sines = (1.0 - cosines.square()).clamp(min=EPS).sqrt()
    shifted = cosines * math.cos(m) - sines * math.sin(m)
    return torch.where(cosines > -math.cos(m), shifted, cosines - m * math.sin(m))


def additive_angular_margin_loss(
    logits: Tensor,
    targets: Tensor,
    *,
    s: float,
    m: float,
    margin_on_background: bool = True,
) -> Tensor:
    """Cross entropy in which each proposal's own class has to win by an angle m (Eq. 1).

    Args:
        logits: (N, C) float32, s times the cosines of the angles to the class centers.
        targets: (N,) int64 class indices; C - 1 is background.
        s: scale of the logits, positive.
        m: margin in radians.
        margin_on_background: whether background proposals have to keep it as well.

    Returns:
        The mean over the N proposals; zero, with a gradient of zero, if there is none.
    """
    if not len(targets):
        return logits.sum() * 0.0
    with torch.autocast(logits.device.type, enabled=False):
        logits = logits.float()
        own = targets[:, None]
        # s is divided out again: cosines and logits would otherwise both be kept for backward.
        cosines = (logits.gather(1, own) / s).clamp(-1.0, 1.0)
        shifted = s * add_angular_margin(cosines, m)
        if not margin_on_background:
            foreground = own < logits.shape[1] - 1
            shifted = torch.where(foreground, shifted, logits.gather(1, own))
        return F.cross_entropy(logits.scatter(1, own, shifted), targets)


class AdditiveAngularMarginLoss(nn.Module):
    """Thin module over :func:`additive_angular_margin_loss`.

    Raises:
        ConfigError: s is not positive, or m is outside [0, pi).
    """

    def __init__(self, *, s: float, m: float, margin_on_background: bool = True) -> None:
        super().__init__()
        check_settings(s=s, m=m)
        self.s = float(s)
        self.m = float(m)
        self.margin_on_background = margin_on_background

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Returns the loss of ``logits`` (N, C) for ``targets`` (N,), a scalar."""
        return additive_angular_margin_loss(
            logits,
            targets,
            s=self.s,
            m=self.m,
            margin_on_background=self.margin_on_background,
        )

    def extra_repr(self) -> str:
        """Shows the settings when the module is printed."""
        return f"s={self.s}, m={self.m}, margin_on_background={self.margin_on_background}"
