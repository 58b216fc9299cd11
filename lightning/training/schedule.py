"""Learning rates: the rule for the batch size and the course over training."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytorch_lightning as pl
import torch
from fvcore.common.param_scheduler import CosineParamScheduler, ParamScheduler
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from deepacc_d2.errors import ConfigError
from deepacc_lightning.core.cli import flags_refused

SCALINGS = {"linear": 1.0, "sqrt": 0.5, "none": 0.0}
"""Power of the batch's growth by which the learning rate grows."""


def scaled_lr(
    lr: float, batch_size: int, reference_batch_size: int | None, rule: str = "linear"
) -> float:
    """Scales a learning rate to the effective batch.

    ``linear`` is for SGD (Goyal et al. 2017, "Accurate, large minibatch SGD"), ``sqrt`` for Adam
    and its kin, whose steps do not grow with the gradient (Malladi et al. 2022, "On the SDEs and
    scaling rules for adaptive gradient algorithms").

    Args:
        lr: the rate meant for ``reference_batch_size`` images a step.
        batch_size: images a step over all devices and accumulated batches.
        reference_batch_size: null leaves the rate as it is.
        rule: ``linear``, ``sqrt`` or ``none``.

    Raises:
        ConfigError: there is no such rule.
    """
    if rule not in SCALINGS:
        raise ConfigError(f"optim.lr_scaling={rule}: choose {', '.join(SCALINGS)}")
    if reference_batch_size is None:
        return lr
    return lr * (batch_size / reference_batch_size) ** SCALINGS[rule]


def warmup_length(warmup_steps: int, total_steps: int) -> int:
    """Steps of warm-up, cut to a fifth of a training that is very short."""
    return min(warmup_steps, max(1, total_steps // 5))


def warmup_factor(step: int, *, warmup_steps: int, start: float) -> float:
    """Linear warm-up: ``start`` at step 0, one from ``warmup_steps`` on."""
    if step >= warmup_steps:
        return 1.0
    return start + (1.0 - start) * step / warmup_steps


def planned_steps(trainer: pl.Trainer) -> int:
    """Returns the optimizer steps of the whole training, of which its schedule is made.

    Raises:
        ConfigError: it has no end, or flags of the trainer do not fit the data.
    """
    try:
        steps = trainer.estimated_stepping_batches
    except ValueError as error:  # validation after more batches than there are, say
        raise flags_refused(error) from error
    if steps == math.inf:
        raise ConfigError(
            "a training without an end has no schedule: give trainer.max_epochs or "
            "trainer.max_steps, also where trainer.max_time ends it"
        )
    return int(steps)


def make_schedule(
    optimizer: Optimizer,
    course: ParamScheduler,
    *,
    total_steps: int,
    warmup_steps: int,
    warmup_start: float,
) -> LambdaLR:
    """Makes the per-step schedule: ``course`` over the whole training times a linear warm-up.

    Args:
        optimizer: its rates are the peaks.
        course: an fvcore scheduler, a function of the fraction of training done.
        total_steps: optimizer steps of the whole training.
        warmup_steps: steps of warm-up; cut to a fifth of a training that is very short.
        warmup_start: factor at the first step.

    Raises:
        ConfigError: no step to schedule.
    """
    if total_steps < 1:
        raise ConfigError(f"training has {total_steps} steps: raise trainer.max_epochs or add data")
    warmup = warmup_length(warmup_steps, total_steps)

    def factor(step: int) -> float:
        where = min(step / total_steps, 1.0 - 1e-9)
        return float(course(where)) * warmup_factor(step, warmup_steps=warmup, start=warmup_start)

    rate: Callable[[int], float] = factor
    return LambdaLR(optimizer, rate)


def adamw_with_cosine(
    network: nn.Module, *, lr: float, weight_decay: float, warmup_steps: int, total_steps: int
) -> dict[str, Any]:
    """Makes AdamW and its schedule, a step at a time, as Lightning takes them.

    Args:
        network: whose parameters are trained.
        lr: after the warm-up; it falls to zero by a cosine.
        weight_decay: on matrices and kernels alone.
        warmup_steps: over which the rate rises; a fifth of a very short training at most.
        total_steps: of the training.
    """
    matrices = [p for p in network.parameters() if p.ndim > 1]
    vectors = [p for p in network.parameters() if p.ndim <= 1]
    groups: list[dict[str, Any]] = [
        {"params": matrices},
        {"params": vectors, "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=lr, weight_decay=weight_decay)
    schedule = make_schedule(
        optimizer,
        CosineParamScheduler(1.0, 0.0),
        total_steps=total_steps,
        warmup_steps=warmup_steps,
        warmup_start=1 / (warmup_steps + 1),
    )
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
