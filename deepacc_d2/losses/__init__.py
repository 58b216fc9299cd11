"""The losses of DeepACC: a pure function each, and a thin module over it."""

from deepacc_d2.losses.aam import (
    AdditiveAngularMarginLoss,
    add_angular_margin,
    additive_angular_margin_loss,
    cosine_similarity,
)
from deepacc_d2.losses.gia import GroupInnerAdjacencyLoss, group_inner_adjacency_loss

__all__ = [
    "AdditiveAngularMarginLoss",
    "GroupInnerAdjacencyLoss",
    "add_angular_margin",
    "additive_angular_margin_loss",
    "cosine_similarity",
    "group_inner_adjacency_loss",
]
