"""``make evaluate``: a checkpoint on one split of a data set, with the full report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import hydra
import pytorch_lightning as pl
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig
from pytorch_lightning.loggers import Logger

from deepacc_d2.checkpoint import build_from_checkpoint, check_trusted, read_checkpoint
from deepacc_d2.errors import ConfigError
from deepacc_d2.files import write_json
from deepacc_lightning.core.cli import (
    check_accelerator,
    check_data_root,
    run_entry_point,
    run_guarded,
)
from deepacc_lightning.core.config import (
    config_dir,
    instantiate_all,
    register_resolvers,
)
from deepacc_lightning.core.run_info import describe_run, device_name, make_run_dir
from deepacc_lightning.train import quiet
from deepacc_lightning.training.callbacks import ProgressBar
from deepacc_lightning.training.datamodule import ChromosomeDataModule
from deepacc_lightning.training.final_test import log_report, run_test
from deepacc_lightning.training.module import DetectionModule
from deepacc_lightning.wandb.loggers import WandbLogger, finished_runs, run_columns

register_resolvers()

AUGMENTATIONS = ("deepacc_d2.images.transforms.", "detectron2.data.transforms.")


def check_expected(config: dict[str, Any], cfg: DictConfig) -> None:
    """Refuses a checkpoint of another preset or scale than the user names.

    Raises:
        ConfigError: says which one it is.
    """
    for key, found in (("preset", config["preset"]), ("scale_name", config["scale"]["name"])):
        if cfg[key] is not None and cfg[key] != found:
            what = key.removesuffix("_name")
            raise ConfigError(
                f"checkpoint {cfg.ckpt} is of {what} {found!r}, not {cfg[key]!r}: leave it out or "
                "pass another CKPT"
            )


def run(cfg: DictConfig) -> dict[str, float]:
    """Evaluates as the config says and writes the report.

    Returns:
        The summary metrics, in percent.

    Raises:
        UserError: a bad checkpoint, data set or output directory.
    """
    quiet()
    check_data_root(cfg)
    check_accelerator(cfg.accelerator, "accelerator")
    content = read_checkpoint(cfg.ckpt)
    config = content["deepacc_config"]
    check_expected(config, cfg)
    model = build_from_checkpoint(content, cfg.ckpt).to(memory_format=torch.channels_last)
    nodes = config["scale"]["test_augmentations"]
    check_trusted(nodes, extra=AUGMENTATIONS)
    datamodule = ChromosomeDataModule(
        root=cfg.data.root,
        test_augmentations=[instantiate(node) for node in nodes],
        test_batch_size=cfg.batch_size,
        num_workers=cfg.num_workers,
        test_split=cfg.split,
        generate=instantiate(cfg.data.generate),
    )
    datamodule.prepare_data()
    info = datamodule.info()
    datamodule.coco("test")
    out = make_run_dir(Path(cfg.out).resolve())
    trainer = pl.Trainer(
        accelerator=cfg.accelerator,
        devices=cfg.devices,
        precision=cfg.precision or config["trainer"]["precision"],
        logger=False,
        callbacks=[ProgressBar(refresh_rate=5)],
        use_distributed_sampler=False,
        enable_model_summary=False,
    )
    module = DetectionModule(model)
    title = f"{config['preset']} checkpoint {cfg.ckpt} on {cfg.split} of {info.name}"
    # The checkpoint says what the command line may leave open.
    cfg.preset, cfg.scale_name = config["preset"], config["scale"]["name"]
    facts = describe_run(
        checkpoint=str(cfg.ckpt),
        preset=cfg.preset,
        scale=cfg.scale_name,
        split=cfg.split,
        data=datamodule.data.facts(),
    )
    loggers = instantiate_all(cfg.get("logger"))
    with finished_runs(loggers):
        told = {**facts, "device": device_name(trainer.strategy.root_device)}
        columns = run_columns(config, told)
        for logger in loggers:
            logger.log_hyperparams({**columns, "split": cfg.split, "checkpoint": str(cfg.ckpt)})
        metrics = run_test(trainer, module, datamodule, out, title=title)
        if trainer.is_global_zero:
            write_json(out / "evaluation.json", facts)
            for logger in loggers:
                log_evaluation(logger, module, datamodule)
    return {k: float(v) for k, v in metrics.summary().items()}


def log_evaluation(
    logger: Logger, module: DetectionModule, datamodule: ChromosomeDataModule
) -> None:
    """Logs a finished evaluation under ``evaluate/``, apart from the tests that trainings end with.

    Args:
        logger: of any kind.
        module: the detector that was tested.
        datamodule: what it was tested on.
    """
    assert module.metrics is not None
    logger.log_metrics({f"evaluate/{k}": v for k, v in module.metrics.summary().items()})
    if isinstance(logger, WandbLogger):
        log_report(logger, module, datamodule, prefix="evaluate")


@hydra.main(version_base="1.3", config_path=config_dir(), config_name="evaluate")
def main(cfg: DictConfig) -> None:
    """Entry point; exits 2 on bad input and 130 on Ctrl-C, with one line each."""
    run_guarded(run, cfg)


if __name__ == "__main__":
    run_entry_point("evaluate", main)
