"""Jobs that train heads alone, on one frozen trunk's cached output."""

from __future__ import annotations

from pathlib import Path

import pytorch_lightning as pl
from filelock import FileLock
from omegaconf import DictConfig

from deepacc_d2.errors import ConfigError
from deepacc_d2.modeling import ChromosomeRCNN
from deepacc_lightning import train
from deepacc_lightning.core.config import recorded
from deepacc_lightning.core.run_info import make_run_dir
from deepacc_lightning.training.heads_protocol import (
    HeadsDataModule,
    build_caches,
    build_heads_module,
    heads_of,
)
from deepacc_lightning.training.initial_weights import load_trunk


def run_heads(cfg: DictConfig) -> dict[str, float]:
    """Trains a preset's heads on a trunk's cached output.

    Args:
        cfg: the job's config; ``ablation`` names the trunk and the folder of the caches.

    Returns:
        The summary metrics of the test split.
    """
    train.quiet()
    out = make_run_dir(cfg.out)
    pl.seed_everything(cfg.seed, workers=True, verbose=False)
    model, datamodule = prepare_heads(cfg)
    if cfg.ckpt_path:
        train.check_resumable(cfg)
    # Presets have heads of different sizes, which took different amounts of random numbers.
    pl.seed_everything(cfg.seed, workers=True, verbose=False)
    module = build_heads_module(cfg, model, recorded(cfg))
    return train.execute(cfg, module, datamodule, out)


def prepare_heads(cfg: DictConfig) -> tuple[ChromosomeRCNN, HeadsDataModule]:
    """Builds a detector on a trunk, and the data module of the trunk's cached output.

    Args:
        cfg: a job's config; the gray statistics of the data are filled in. ``ablation.trunk`` is
            the checkpoint that backbone, FPN and RPN come from. What ``ablation.cache`` lacks is
            made, by one process at a time.

    Raises:
        ConfigError: batches are to be overfitted, of which there are none here.
    """
    if cfg.trainer.get("overfit_batches"):
        raise ConfigError("trainer.overfit_batches is of PROTOCOL=end_to_end: leave it out")
    images = train.build_datamodule(cfg)
    train.fill_in_data(cfg, images.info())
    model = train.build_model(cfg)
    heads_of(model)
    assert isinstance(model, ChromosomeRCNN)
    load_trunk(model, cfg.ablation.trunk)
    caches = Path(cfg.ablation.cache)
    caches.mkdir(parents=True, exist_ok=True)
    with FileLock(caches / ".lock"):
        built = build_caches(cfg, model, images, caches)
    datamodule = HeadsDataModule(
        built,
        root=images.data,
        test_augmentations=images.augmentations["test"],
        batch_size=cfg.heads.batch_size,
        test_batch_size=cfg.scale.test_batch_size,
        seed=cfg.seed,
        max_train_images=cfg.data.get("max_train_images"),
        max_val_images=cfg.data.max_val_images,
    )
    return model, datamodule
