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


def local_centers(
    scores: Tensor, features: Tensor, global_centers: Tensor, counts: Sequence[int], delta: float
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
    """
    weights, sources = [], []
    for s, x in zip(scores.split(list(counts)), features.split(list(counts)), strict=True):
        if len(s):
            best, rows = s.detach().max(dim=0)
            local = best > delta
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
