"""Group Inner-Adjacency loss (DeepACC, Luo et al. 2020, Eq. 3).

Shapes: N proposals of B images, K foreground classes, background = index K.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from deepacc_d2.chromosomes import DENVER_GROUPS, adjacency_matrix
from deepacc_d2.distributed import count_per_process
from deepacc_d2.method import Anchor, check_settings


def group_inner_adjacency_loss(
    logits: Tensor,
    targets: Tensor,
    counts: Sequence[int],
    adjacency: Tensor,
    *,
    anchor: Anchor = "labelled",
    normalizer: Tensor | None = None,
) -> Tensor:
    """Overlap of each chromosome's class probabilities with those of its group's other classes.

    For a positive proposal i with label y, the sum over the other classes j of y's group of the
    inner product of M(x_i) and M_j. M is the softmax over the K foreground classes; M_j is that of
    the most confident proposal of class j (highest M at j) in the same image. A class that no
    proposal of the image has is left out.

    Args:
        logits: (N, K+1), the margin branch's.
        targets: (N,) int64 class indices; K is background.
        counts: proposals of each of the B images, summing to N, in the order of the rows.
        adjacency: bool (K, K), whether two classes share a group; false diagonal.
        anchor: which proposals may stand for class j. ``labelled``: those whose label is j.
            ``predicted``: those, of any label, whose highest of the K+1 logits is j; that may be
            i itself, which is then pushed away from its own prediction.
        normalizer: scalar that the sum over positives is divided by; null for their number.

    Returns:
        The mean over the positive proposals of all images; zero, with a gradient of zero, if there
        is none.
    """
    with torch.autocast(logits.device.type, enabled=False):
        num_classes = logits.shape[1] - 1
        logits = logits.float()
        probabilities = logits[:, :-1].softmax(dim=1)
        named = targets if anchor == "labelled" else logits.argmax(dim=1)
        stands_for = named[:, None] == torch.arange(num_classes, device=logits.device)
        confidence = probabilities.detach().masked_fill(~stands_for, -1.0)
        positive = targets < num_classes
        total = logits.sum() * 0.0
        start = 0
        for count in counts:
            rows = slice(start, start + count)
            start += count
            if not count:
                continue
            best, chosen = confidence[rows].max(dim=0)
            anchors = probabilities[rows][chosen]
            own = positive[rows]
            group = adjacency[targets[rows].clamp(max=num_classes - 1)]
            wanted = group & (best >= 0)[None, :] & own[:, None]
            total = total + (probabilities[rows] @ anchors.t() * wanted).sum()
        return total / (positive.sum().clamp(min=1) if normalizer is None else normalizer)


class GroupInnerAdjacencyLoss(nn.Module):
    """Thin module over :func:`group_inner_adjacency_loss`.

    >>> loss = GroupInnerAdjacencyLoss()
    >>> logits = torch.full((2, 25), -9.0)
    >>> logits[0, 0] = logits[1, 1] = 9.0  # a 1 and a 2, sure of it
    >>> round(float(loss(logits, torch.tensor([0, 1]), [2])), 3)
    0.0
    >>> logits[0, 1] = 9.0  # the 1 could as well be a 2
    >>> round(float(loss(logits, torch.tensor([0, 1]), [2])), 3)
    0.5

    Args:
        groups: class names by group; null for the seven Denver groups.
        anchor: see there.

    Raises:
        ConfigError: the groups do not name every class once, or the anchor is unknown.
    """

    adjacency: Tensor

    def __init__(
        self,
        *,
        groups: Mapping[str, Sequence[str]] | None = None,
        anchor: Anchor = "labelled",
    ) -> None:
        super().__init__()
        check_settings(anchor=anchor)
        self.anchor: Anchor = anchor
        groups = DENVER_GROUPS if groups is None else groups
        # YAML reads an unquoted 21 as a number, and X as a string.
        named = {group: [str(name) for name in names] for group, names in groups.items()}
        matrix = torch.from_numpy(adjacency_matrix(named))
        self.register_buffer("adjacency", matrix, persistent=False)

    def forward(self, logits: Tensor, targets: Tensor, counts: Sequence[int]) -> Tensor:
        """Returns the loss of ``logits`` (N, K+1) for ``targets`` (N,), a scalar.

        Where several processes share a step, its mean over them is the mean over all positives.
        """
        positives = count_per_process((targets < logits.shape[1] - 1).sum())
        return group_inner_adjacency_loss(
            logits, targets, counts, self.adjacency, anchor=self.anchor, normalizer=positives
        )

    def extra_repr(self) -> str:
        """Shows the settings when the module is printed."""
        return f"anchor={self.anchor!r}"
