"""Builds Lightning's trainer from its node, with the plugins that every training has."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
import torch
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig, open_dict
from pytorch_lightning.plugins.environments import SLURMEnvironment
from pytorch_lightning.plugins.layer_sync import LayerSync, TorchSyncBatchNorm
from pytorch_lightning.utilities.exceptions import MisconfigurationException
from torch import nn

from deepacc_d2.distributed import GatheredBatchNorm2d, gather_batch_norm
from deepacc_d2.errors import ConfigError
from deepacc_lightning.checkpoint_io import SafeCheckpointIO
from deepacc_lightning.config import instantiate_all


class GatherBatchNorm(LayerSync):
    """Lightning's switch to synchronized batch norm: torch's on GPUs, ours where there are none."""

    on_gpu = TorchSyncBatchNorm()

    def apply(self, model: nn.Module) -> nn.Module:
        """Makes the batch norms within a model gather their statistics."""
        if torch.cuda.is_available():
            return self.on_gpu.apply(model)
        return gather_batch_norm(model)

    def revert(self, model: nn.Module) -> nn.Module:
        """Makes them plain again."""
        if torch.cuda.is_available():
            return self.on_gpu.revert(model)
        for part in model.modules():
            if isinstance(part, GatheredBatchNorm2d):
                part.__class__ = nn.BatchNorm2d
        return model


def trainer_plugins(trainer: Any) -> list[Any]:
    """Returns the plugins that every training has.

    Args:
        trainer: the ``trainer`` node.
    """
    plugins: list[Any] = [SafeCheckpointIO()]
    if trainer.get("sync_batchnorm"):
        plugins.append(GatherBatchNorm())
    if SLURMEnvironment.detect():
        # Lightning's own requeueing keeps checkpoints of another kind, in another place, saved in
        # the middle of a step. A signal here ends the step first (stopping.py), and Slurm requeues.
        plugins.append(SLURMEnvironment(auto_requeue=False))
    return plugins


def build_trainer(cfg: DictConfig, loggers: list[Any]) -> pl.Trainer:
    """Builds the trainer with its callbacks.

    Raises:
        ConfigError: it cannot be had here, such as more devices than there are.
    """
    node = cfg.trainer.copy()
    plugins = trainer_plugins(node)
    # Lightning's own switch takes no other batch norm than torch's, which wants a GPU.
    with open_dict(node):
        node.pop("sync_batchnorm", None)
    callbacks = instantiate_all(cfg.callbacks)
    try:
        trainer: pl.Trainer = instantiate(
            node, callbacks=callbacks, logger=loggers, plugins=plugins
        )
    except InstantiationException as error:
        if isinstance(error.__cause__, (MisconfigurationException, RuntimeError, ValueError)):
            reason = " ".join(str(error.__cause__).split())
            raise ConfigError(f"no such trainer here: {reason}") from error
        raise
    return trainer
