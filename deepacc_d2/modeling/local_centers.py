"""Local class centers (DeepACC, Luo et al. 2020, Eq. 2), of one proposal or of a pair.

The paper takes one proposal of each class as that class's center in its image. One chromosome is a
noisy center, and chromosomes come in pairs: a pair center is made of the best proposal and of the
best one that lies elsewhere. Shrinkage mixes either with the learned, global center.

Shapes: N proposals of B images, C = K + 1 classes of which the last is background, d features.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from deepacc_d2.errors import ConfigError
from deepacc_d2.losses.aam import NORM_EPS
from deepacc_d2.method import Center

PARTNER_SCORE = 0.1
"""Least score, exclusive, of a pair's second proposal. The first vouches for the class."""
PARTNER_IOU = 0.5
"""A second proposal that overlaps the first by this much shows the same chromosome."""


class LocalCenters(NamedTuple):
    """The class centers of each image.

    Attributes:
        weights: (B, C, d) float32 unit vectors.
        source: (B, C) int64, the proposal (row within its image) that each center is made of, or
            the first of its pair; -1 where the global center stands in. Background's is always -1.
        partner: (B, C) int64, the second proposal of a pair; -1 where there is none.
    """

    weights: Tensor
    source: Tensor
    partner: Tensor


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


def lie_apart(boxes: Tensor, others: Tensor) -> Tensor:
    """Returns (N, M) bool, whether boxes XYXY (N, 4) and (M, 4) have an IoU below the limit.

    The limit is :data:`PARTNER_IOU`. Nothing is divided, so that a box without area is not apart
    from one in its own place, nor from any other box without area.

    >>> boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 9], [20, 0, 30, 10]])
    >>> lie_apart(boxes[:1], boxes).tolist()
    [[False, False, True]]
    """
    low = torch.maximum(boxes[:, None, :2], others[None, :, :2])
    high = torch.minimum(boxes[:, None, 2:], others[None, :, 2:])
    width, height = (high - low).clamp(min=0).unbind(dim=2)
    shared = width * height
    own, other = ((b[:, 2] - b[:, 0]) * (b[:, 3] - b[:, 1]) for b in (boxes, others))
    return shared < PARTNER_IOU * (own[:, None] + other[None, :] - shared)


def local_centers(
    scores: Tensor,
    features: Tensor,
    global_centers: Tensor,
    counts: Sequence[int],
    delta: float,
    *,
    confidence: Tensor | None = None,
    boxes: Tensor | None = None,
    center: Center = "single",
    share: float = 1.0,
) -> LocalCenters:
    """Makes each image's class centers of its most confident proposals.

    A class whose best score is not above delta keeps its global center, and so does background,
    whose proposals have no common look. Images never see each other's proposals. With ``single``
    and a share of 1 this is Eq. 2 to the letter.

    Args:
        scores: (N, C) probabilities of the margin branch.
        features: (N, d) unit vectors.
        global_centers: (C, d) unit vectors.
        counts: proposals of each of the B images, summing to N, in the order of the rows.
        delta: least score of a class's best proposal, exclusive.
        confidence: (N, C), what to choose by, in the order of the scores: their
            :func:`log_odds`, so that the order of the rows does not decide between scores that
            are rounded to 1. Default: the scores.
        boxes: (N, 4) XYXY of the proposals, in any unit; ``pair`` needs them.
        center: ``single``: the best proposal of the class. ``pair``: the normalized sum of it and
            of the best one that overlaps it by less than :data:`PARTNER_IOU` and has a score above
            :data:`PARTNER_SCORE`; where there is none, the best one alone.
        share: lambda of normalize(lambda * local + (1 - lambda) * global).

    Raises:
        ConfigError: ``pair`` without boxes.
    """
    if center == "pair" and boxes is None:
        raise ConfigError("center='pair' needs the boxes of the proposals")
    ranks = scores if confidence is None else confidence
    places = features.new_zeros(len(features), 4) if boxes is None else boxes.detach()
    images = (
        t.split(list(counts)) for t in (scores.detach(), ranks.detach(), features, places.float())
    )
    found = [
        _centers_of_image(
            s, rank, x, where, global_centers, delta=delta, center=center, share=share
        )
        for s, rank, x, where in zip(*images, strict=True)
    ]
    if not found:
        shape = (0, *global_centers.shape)
        none = features.new_zeros(shape[:2]).long()
        return LocalCenters(features.new_zeros(shape), none, none.clone())
    return LocalCenters(*(torch.stack(parts) for parts in zip(*found, strict=True)))


def _centers_of_image(
    scores: Tensor,
    ranks: Tensor,
    features: Tensor,
    boxes: Tensor,
    global_centers: Tensor,
    *,
    delta: float,
    center: Center,
    share: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Returns weights (C, d), source (C,) and partner (C,) of one image's N proposals."""
    if not len(scores):
        none = torch.full((len(global_centers),), -1, device=features.device)
        return global_centers, none, none
    rows = ranks.argmax(dim=0)
    local = scores.gather(0, rows[None])[0] > delta
    local[-1] = False
    own = features[rows]
    partner = torch.full_like(rows, -1)
    if center == "pair":
        elsewhere = lie_apart(boxes, boxes[rows])
        seconds = ranks.masked_fill(~elsewhere, -torch.inf).argmax(dim=0)
        there = local & elsewhere.gather(0, seconds[None])[0]
        there &= scores.gather(0, seconds[None])[0] > PARTNER_SCORE
        pair = F.normalize(own + features[seconds], dim=1, eps=NORM_EPS)
        own = torch.where(there[:, None], pair, own)
        partner = torch.where(there, seconds, partner)
    if share < 1:
        own = F.normalize(share * own + (1 - share) * global_centers, dim=1, eps=NORM_EPS)
    weights = torch.where(local[:, None], own, global_centers)
    return weights, torch.where(local, rows, -1), partner
