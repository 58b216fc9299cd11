"""Sampling of anchors and proposals for the losses, by a seed of each image.

Detectron2 draws the samples of all images of a batch from one global stream of random numbers, so
what is drawn for an image depends on which images came before it. Here an image that carries a
``seed`` gets a stream of its own: the sample is the same however the images of a step are shared
out over processes, and a training that goes on from a checkpoint draws what it would have drawn.
Images without a seed are sampled as Detectron2 does.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from detectron2.layers import nonzero_tuple
from detectron2.modeling.proposal_generator import PROPOSAL_GENERATOR_REGISTRY, RPN
from detectron2.structures import Boxes, Instances
from torch import Tensor

from deepacc_d2.modeling.anchor_matching import match

Seeds = Sequence[int | None]
_SEEDS: ContextVar[Seeds] = ContextVar("seeds", default=())

ANCHORS, PROPOSALS = 0, 1
"""The streams of an image: anchors of the RPN, proposals of the ROI heads."""


@contextmanager
def image_seeds(batched_inputs: Sequence[Mapping[str, Any]]) -> Iterator[None]:
    """Makes the seeds of a batch (each input's ``seed``, or none) known to what samples within."""
    token = _SEEDS.set([item.get("seed") for item in batched_inputs])
    try:
        yield
    finally:
        _SEEDS.reset(token)


def generators(count: int, stream: int, device: torch.device) -> Iterator[torch.Generator | None]:
    """Yields a generator for each image of the batch, or null for those without a seed.

    Args:
        count: images of the batch.
        stream: ``ANCHORS`` or ``PROPOSALS``.
        device: where the numbers are drawn.
    """
    seeds = _SEEDS.get()
    if len(seeds) != count:
        seeds = [None] * count
    for seed in seeds:
        # Neighbouring seeds are no trouble: torch scrambles them.
        yield None if seed is None else torch.Generator(device).manual_seed(2 * seed + stream)


def subsample_labels(
    labels: Tensor,
    num_samples: int,
    positive_fraction: float,
    bg_label: int,
    *,
    generator: torch.Generator | None = None,
) -> tuple[Tensor, Tensor]:
    """Draws positives and negatives; Detectron2's function of this name, with a generator.

    Args:
        labels: (N,), -1 to ignore, ``bg_label`` for negatives, anything else for positives.
        num_samples: at most so many in all.
        positive_fraction: at most this share of them positive; negatives fill up the rest.
        bg_label: label of negatives.
        generator: null for torch's global stream.

    Returns:
        Indices of the positives and of the negatives drawn.
    """
    positive = nonzero_tuple((labels != -1) & (labels != bg_label))[0]
    negative = nonzero_tuple(labels == bg_label)[0]
    num_pos = min(positive.numel(), int(num_samples * positive_fraction))
    num_neg = min(negative.numel(), num_samples - num_pos)

    def draw(pool: Tensor, count: int) -> Tensor:
        order = torch.randperm(pool.numel(), device=pool.device, generator=generator)
        return pool[order[:count]]

    return draw(positive, num_pos), draw(negative, num_neg)


@PROPOSAL_GENERATOR_REGISTRY.register()
class ChromosomeRPN(RPN):
    """Detectron2's RPN, which draws the anchors of its losses by the seed of each image."""

    _generators: Iterator[torch.Generator | None]

    def label_and_sample_anchors(
        self, anchors: list[Boxes], gt_instances: list[Instances]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Labels anchors; see Detectron2's ``RPN.label_and_sample_anchors``.

        The same labels, found without comparing every anchor with every chromosome
        (:mod:`deepacc_d2.modeling.anchor_matching`).
        """
        every = Boxes.cat(anchors)
        group = int(getattr(self.anchor_generator, "num_anchors", [1])[0])
        self._generators = generators(len(gt_instances), ANCHORS, every.device)
        labels, matched = [], []
        try:
            for instances in gt_instances:
                truth = instances.gt_boxes.tensor
                rows, label = match(self.anchor_matcher, truth, every.tensor, group)
                if self.anchor_boundary_thresh >= 0:
                    inside = every.inside_box(instances.image_size, self.anchor_boundary_thresh)
                    label[~inside] = -1
                labels.append(self._subsample_labels(label))
                matched.append(truth[rows] if len(truth) else torch.zeros_like(every.tensor))
        finally:
            del self._generators  # a generator cannot be copied with the model
        return labels, matched

    def _subsample_labels(self, label: Tensor) -> Tensor:
        # Called once for each image, in the order of the batch.
        positive, negative = subsample_labels(
            label,
            self.batch_size_per_image,
            self.positive_fraction,
            0,
            generator=next(self._generators),
        )
        label.fill_(-1)
        label.scatter_(0, positive, 1)
        label.scatter_(0, negative, 0)
        return label
