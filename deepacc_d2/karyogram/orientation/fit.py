"""Fits the polarity network to strips, and its probabilities to what came true."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from deepacc_d2.karyogram.orientation.augment import augment
from deepacc_d2.karyogram.orientation.homologs import weigh_together
from deepacc_d2.karyogram.orientation.network import (
    PLACES,
    UNKNOWN,
    PolarityNet,
    own_place,
    prepare,
    shown,
)
from deepacc_d2.karyogram.orientation.strips import Strips

Array = NDArray[np.float64]

# Share of strips that are shown without their class.
_WITHOUT_CLASS = 0.12
# Standard deviation of a centromere's target, in shares of the length.
_TARGET = 0.018
_HEAT_WEIGHT = 0.25
# Labels are never believed wholly: a few in a hundred are wrong.
_SMOOTHING = 0.01
# Answers this near (share of the length) count as right in a centromere's confidence.
NEAR = 0.05


@dataclass(frozen=True)
class Answers:
    """What the network says of N strips.

    Attributes:
        odds: (N,) log-odds that the p arm comes first, by the fitted temperature.
        centromere: (N,) its most probable place along the strip as it is, 0 to 1.
        sure: (N,) probability that it is within :data:`NEAR` of that.
    """

    odds: Array
    centromere: Array
    sure: Array


def fit(
    network: PolarityNet,
    strips: Strips,
    weight: Array,
    *,
    steps: int,
    batch: int,
    lr: float,
    seed: int,
    tell: Callable[[str], None] = print,
) -> None:
    """Trains the network; changes it.

    Args:
        network: to train.
        strips: N, with ``up`` (the probability to learn) and, where known, ``centromere``.
        weight: (N,) how often each strip is shown, relative to others.
        steps, batch, lr: of AdamW with a one-cycle schedule.
        seed: of what is shown and how it is changed.
        tell: is called with a line now and then.
    """
    generator = torch.Generator().manual_seed(seed)
    network.train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=lr, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=steps + 1)
    odds = torch.from_numpy(weight)
    running, shown = 0.0, 0
    for step in range(steps):
        rows = torch.multinomial(odds, batch, replacement=True, generator=generator).numpy()
        loss = _loss(network, strips[rows], generator)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 2.0)
        optimizer.step()
        schedule.step()
        running, shown = running + float(loss.detach()), shown + 1
        if (step + 1) % 100 == 0 or step + 1 == steps:
            tell(f"step {step + 1} of {steps}: loss {running / shown:.4f}")
            running, shown = 0.0, 0
    network.eval()


def _loss(network: PolarityNet, strips: Strips, generator: torch.Generator) -> Tensor:
    dark, body, centromere = augment(*_tensors(strips), generator=generator)
    count = len(strips)
    hidden = torch.rand(count, generator=generator) < _WITHOUT_CLASS
    classes = torch.from_numpy(strips.classes)
    classes = classes.where(~hidden & (classes >= 0), torch.tensor(UNKNOWN))
    slimness = torch.from_numpy(strips.slimness)
    slimness = slimness * torch.exp(0.3 * torch.randn(count, generator=generator))
    score, straight, turned = network(prepare(dark, body), slimness, classes, mirror=False)
    up = torch.from_numpy(strips.up)
    target = up.clamp(_SMOOTHING, 1 - _SMOOTHING)
    loss = functional.binary_cross_entropy_with_logits(score, target)
    known = ~centromere.isnan()
    if known.any():
        heat = straight.where(up[:, None] > 0.5, turned)[known]
        places = (torch.arange(PLACES) + 0.5) / PLACES
        wanted = torch.exp(-0.5 * ((places - centromere[known][:, None]) / _TARGET) ** 2)
        wanted = wanted / wanted.sum(1, keepdim=True).clamp(min=1e-6)
        loss = loss + _HEAT_WEIGHT * functional.cross_entropy(heat, wanted)
    return loss


def _tensors(strips: Strips) -> tuple[Tensor, Tensor, Tensor]:
    return (
        torch.from_numpy(strips.dark).float() / 255,
        torch.from_numpy(strips.body).float() / 255,
        torch.from_numpy(strips.centromere),
    )


@torch.inference_mode()
def read_scores(
    network: PolarityNet, strips: Strips, batch: int = 256
) -> tuple[Tensor, Tensor, Tensor]:
    """Returns the network's raw score (N,) and centromere logits (N, T) for either way up.

    Strips are shown in the network's ``extent``, and places are along what is shown.
    """
    parts = []
    for start in range(0, len(strips), batch):
        some = strips[start : start + batch]
        dark, body, _ = _tensors(some)
        classes = torch.from_numpy(some.classes)
        classes = classes.where(classes >= 0, torch.tensor(UNKNOWN))
        strip = shown(prepare(dark, body), network.extent)
        parts.append(network(strip, torch.from_numpy(some.slimness), classes))
    if not parts:
        return torch.zeros(0), torch.zeros(0, PLACES), torch.zeros(0, PLACES)
    score, straight, turned = (torch.cat(each) for each in zip(*parts, strict=True))
    return score, straight, turned


def answer(network: PolarityNet, strips: Strips, *, together: bool = False) -> Answers:
    """Reads strips; see :class:`Answers`.

    Args:
        network: in evaluation mode.
        strips: N.
        together: copies of a class in a cell are weighed together, see :mod:`.homologs`.
    """
    score, straight, turned = read_scores(network, strips)
    odds = (score / network.temperature).double().numpy()
    if together:
        odds = weigh_together(strips, odds)
    # The centromere's place given the way up that is more probable.
    first = torch.from_numpy(odds >= 0)[:, None]
    heat = straight.where(first, turned) / network.heat_temperature
    place, sure = locate(heat)
    place = own_place(place, network.extent)
    return Answers(odds, place.double().numpy(), sure.double().numpy())


def locate(heat: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the most probable place (N,), between grid points, and the mass near it (N,).

    Args:
        heat: (N, T) logits.
    """
    mass = heat.softmax(dim=1)
    places = (torch.arange(PLACES) + 0.5) / PLACES
    reach = math.ceil(NEAR * PLACES)
    window = functional.avg_pool1d(mass[:, None], 3, 1, 1)[:, 0]
    best = window.argmax(dim=1)
    close = (torch.arange(PLACES)[None] - best[:, None]).abs()
    local = mass * (close <= 2)
    place = (local * places).sum(1) / local.sum(1).clamp(min=1e-9)
    return place, (mass * (close <= reach)).sum(1).clamp(0, 1)


def fit_temperature(score: Array, up: Array) -> float:
    """Returns what scores must be divided by for the least log loss.

    Args:
        score: (N,) raw.
        up: (N,) probability that the p arm comes first.
    """
    tried = np.exp(np.linspace(np.log(0.2), np.log(8), 120))
    odds = score[None] / tried[:, None]
    losses = np.logaddexp(0, odds) - up[None] * odds
    return float(tried[losses.mean(axis=1).argmin()])


def fit_heat_temperature(heat: Tensor, centromere: Array) -> float:
    """Returns what centromere logits must be divided by for the least log loss.

    Args:
        heat: (N, T) raw logits the right way up.
        centromere: (N,) true places.
    """
    at = torch.from_numpy(np.clip((centromere * PLACES).astype(np.int64), 0, PLACES - 1))
    tried = np.exp(np.linspace(np.log(0.3), np.log(4), 60))
    losses = [float(functional.cross_entropy(heat / t, at)) for t in tried]
    return float(tried[int(np.argmin(losses))])
