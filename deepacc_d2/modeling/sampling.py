"""Sampling of anchors and proposals for the losses, by a seed of each image.

Detectron2 draws the samples of all images of a batch from one global stream of random numbers, so
what is drawn for an image depends on which images came before it. Here an image that carries a
``seed`` gets a stream of its own: the sample is the same however the images of a step are shared
out over processes, and a training that resumes from a checkpoint draws what it would have drawn.
Images without a seed are sampled as Detectron2 does.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from detectron2.layers import nonzero_tuple
from torch import Tensor

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
        # Neighboring seeds are no trouble: torch scrambles them.
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
