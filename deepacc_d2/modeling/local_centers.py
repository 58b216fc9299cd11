"""Local class centers (DeepACC, Luo et al. 2020, Eq. 2).

Shapes: N proposals of B images, C = K + 1 classes of which the last is background, d features.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from deepacc_d2.errors import ConfigError


class LocalCenters(NamedTuple):
    """The class centers of each image.

    Attributes:
        weights: (B, C, d) float32 unit vectors.
        source: (B, C) int64, the proposal (row within its image) that each center is the feature
            of; -1 where the global center stands in. Background's is always -1.
    """

    weights: Tensor
    source: Tensor


def check_delta(delta: float) -> None:
    """Checks a confidence threshold.

    Raises:
        ConfigError: it is outside [0, 1].
    """
    if not 0 <= delta <= 1:
        raise ConfigError(f"delta={delta}: the least score of a local center must be in [0, 1]")


def log_odds(logits: Tensor) -> Tensor:
    """Returns log(p / (1 - p)) of the softmax probabilities p of logits (N, C).

    It orders proposals as p does, and still does where float32 rounds p to 1: with cosines scaled
    by 64 those are all proposals that a trained branch is sure of.
    """
    top, winner = logits.max(dim=1, keepdim=True)
    others = logits.scatter(1, winner, -torch.inf).logsumexp(dim=1, keepdim=True)
    log_p = logits.log_softmax(dim=1)
    # Only the winner's p can be above 1/2, and 1 - p lose its digits.
    return (log_p - torch.log1p(-log_p.exp())).scatter(1, winner, top - others)


def local_centers(
    scores: Tensor,
    features: Tensor,
    global_centers: Tensor,
    counts: Sequence[int],
    delta: float,
    *,
    confidence: Tensor | None = None,
) -> LocalCenters:
    """Takes the most confident proposal of each class in an image as that image's class center.

    A class whose best score is not above delta keeps its global center, and so does background,
    whose proposals have no common look. Images never see each other's proposals.

    Args:
        scores: (N, C) probabilities of the margin branch.
        features: (N, d) unit vectors.
        global_centers: (C, d) unit vectors.
        counts: proposals of each of the B images, summing to N, in the order of the rows.
        delta: least score, exclusive.
        confidence: (N, C), what to choose by, in the order of the scores: their
            :func:`log_odds`, so that the order of the rows does not decide between scores that
            are rounded to 1. Default: the scores.
    """
    ranks = scores if confidence is None else confidence
    images = (t.split(list(counts)) for t in (scores.detach(), ranks.detach(), features))
    weights, sources = [], []
    for s, rank, x in zip(*images, strict=True):
        if len(s):
            rows = rank.argmax(dim=0)
            local = s.gather(0, rows[None])[0] > delta
            local[-1] = False
            weights.append(torch.where(local[:, None], x[rows], global_centers))
            sources.append(torch.where(local, rows, -1))
        else:
            weights.append(global_centers)
            sources.append(torch.full((len(global_centers),), -1, device=features.device))
    if not weights:
        shape = (0, *global_centers.shape)
        return LocalCenters(features.new_zeros(shape), features.new_zeros(shape[:2]).long())
    return LocalCenters(torch.stack(weights), torch.stack(sources))
