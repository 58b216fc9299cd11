"""Flags of Lightning's Trainer: which there are, and which cannot be had here."""

from __future__ import annotations

import inspect
from typing import Any

import pytorch_lightning as pl
from omegaconf import DictConfig, open_dict

from deepacc_d2.errors import ConfigError

FILLED_IN = ("logger", "callbacks", "plugins")
"""Flags that the program fills in; the config has a group for each, or none."""
FLAGS = {
    name: flag.default
    for name, flag in inspect.signature(pl.Trainer.__init__).parameters.items()
    if name not in ("self", *FILLED_IN)
}
"""Flags of the ``trainer`` node with Lightning's own defaults."""
LIMITS = ("limit_train_batches", "limit_val_batches", "limit_test_batches", "overfit_batches")
COUNTS = ("accumulate_grad_batches", "log_every_n_steps")
REFUSED = {
    "barebones": "a training here needs its checkpoints and logs; use trainer.fast_dev_run to try "
    "something out",
    "use_distributed_sampler": "the loaders share images out over the processes already",
}


def check_flags(cfg: DictConfig) -> None:
    """Refuses flags of the ``trainer`` node that no training here can have.

    Raises:
        ConfigError: names the flag and what to use instead.
    """
    trainer = cfg.trainer
    for name in COUNTS:
        value = trainer.get(name)
        if value is not None and (not isinstance(value, int) or value < 1):
            raise ConfigError(f"trainer.{name}={value}: give a whole number of at least 1")
    for name in LIMITS:
        _check_limit(name, trainer.get(name))
    if trainer.get("limit_train_batches") == 0:
        raise ConfigError("trainer.limit_train_batches=0 trains nothing: give at least 1")
    if trainer.get("limit_test_batches") == 0 and cfg.get("test"):
        raise ConfigError("trainer.limit_test_batches=0 tests nothing: use test=false")
    for name, reason in REFUSED.items():
        if trainer.get(name):
            raise ConfigError(f"trainer.{name}={trainer[name]}: {reason}")


def _check_limit(name: str, value: Any) -> None:
    """Checks a number of batches (integer) or a share of them (decimal)."""
    if value is None:
        return
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or value < 0 or (isinstance(value, float) and value > 1):
        raise ConfigError(
            f"trainer.{name}={value}: give a number of batches such as 2, or a share such as 0.1"
        )


def with_overfitting(trainer: DictConfig) -> DictConfig:
    """Returns a copy of a ``trainer`` node with ``overfit_batches`` as the limits that it means.

    Lightning itself would put another sampler into the loaders, which could not be resumed; the
    data module repeats the batches instead.
    """
    node = trainer.copy()
    with open_dict(node):
        batches = node.pop("overfit_batches", 0)
        if batches:
            node.update(dict.fromkeys(LIMITS[:3], batches))
    return node
