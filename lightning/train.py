"""``make train``: composes the config, trains, tests the best checkpoint, lists what it wrote."""

from __future__ import annotations

import logging
import os
import time
import warnings
from pathlib import Path
from typing import Any

import hydra
import pytorch_lightning as pl
import torch
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.utilities.exceptions import MisconfigurationException, SIGTERMException
from torch import distributed, nn

from deepacc_d2.checkpoint import read_checkpoint
from deepacc_d2.data.dataset import DatasetInfo
from deepacc_d2.data.union import DataSets
from deepacc_d2.errors import ConfigError, DataError, Terminated
from deepacc_d2.files import write_text
from deepacc_d2.partial import resolved
from deepacc_d2.secret import redacted
from deepacc_lightning.core.cli import (
    alone,
    check_accelerator,
    check_data_root,
    ended_well,
    flags_refused,
    one_line,
    run_entry_point,
)
from deepacc_lightning.core.config import (
    config_dir,
    instantiate_all,
    recorded,
    register_resolvers,
    to_plain,
)
from deepacc_lightning.core.method_check import check_method
from deepacc_lightning.core.processes import RUN_TIME, is_main_process, rank, was_requeued
from deepacc_lightning.core.run_info import device_name, make_run_dir
from deepacc_lightning.training.callbacks import Throughput, format_duration
from deepacc_lightning.training.children import children_end_too
from deepacc_lightning.training.datamodule import ChromosomeDataModule
from deepacc_lightning.training.final_test import run_test
from deepacc_lightning.training.initial_weights import load_initial_weights, load_trunk
from deepacc_lightning.training.module import DetectionModule
from deepacc_lightning.training.resume import (
    check_same_data,
    continued,
    is_finished,
    recorded_overrides,
)
from deepacc_lightning.training.run_record import RunRecord
from deepacc_lightning.training.trainer import build_trainer
from deepacc_lightning.training.trainer_flags import check_flags
from deepacc_lightning.wandb.loggers import finished_runs, run_columns, wandb_run_id

register_resolvers()


def quiet() -> None:
    """Silences notes of libraries that a user can do nothing about; our own warnings stay."""
    os.environ.setdefault("WANDB_SILENT", "true")
    for name in ("pytorch_lightning", "lightning", "lightning_fabric", "wandb", "torch.fx"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module=r"(torch|detectron2|pytorch_lightning|wandb)\b.*")


def build_datamodule(cfg: DictConfig) -> ChromosomeDataModule:
    """Builds the data module of a training config, and the data set where it is a made one.

    Raises:
        UserError: no directory is named, or what is in it is no data set.
    """
    named = to_plain(cfg.data)
    datamodule = ChromosomeDataModule(
        root=DataSets.of(named["root"], named.get("weights"), named.get("cases", "shared")),
        train_augmentations=[instantiate(node) for node in cfg.scale.train_augmentations],
        test_augmentations=[instantiate(node) for node in cfg.scale.test_augmentations],
        batch_size=cfg.scale.batch_size,
        test_batch_size=cfg.scale.test_batch_size,
        num_workers=cfg.scale.num_workers,
        seed=cfg.seed,
        generate=instantiate(cfg.data.generate),
        max_train_images=cfg.data.get("max_train_images"),
        max_val_images=cfg.data.max_val_images,
        repeat=bool(cfg.trainer.get("overfit_batches")),
        # Runs from before there were pools have none.
        batch_pool=1 if cfg.trainer.get("overfit_batches") else cfg.scale.get("batch_pool", 1),
    )
    datamodule.prepare_data()
    return datamodule


def build_model(cfg: DictConfig) -> nn.Module:
    """Builds the detector, laid out channels-last, with its initial weights."""
    model: nn.Module = instantiate(cfg.model)
    if cfg.init_weights:
        not_loaded = load_initial_weights(model, cfg.init_weights)
        if is_main_process():
            print(
                f"weights from {redacted(cfg.init_weights)}; {len(not_loaded)} not loaded",
                flush=True,
            )
            for line in not_loaded:
                print(f"  {line}")
    if cfg.init_trunk:
        load_trunk(model, cfg.init_trunk)
    return model.to(memory_format=torch.channels_last)


def optimization(optim: DictConfig) -> dict[str, Any]:
    """Builds the options of :class:`DetectionModule` that an ``optim`` node describes."""
    return {
        "optimizer": instantiate(optim.optimizer),
        "course": instantiate(optim.course),
        "warmup_steps": optim.warmup_steps,
        "warmup_start": optim.warmup_start,
        "reference_batch_size": optim.reference_batch_size,
        "lr_scaling": optim.lr_scaling,
        "weight_decay_norm": optim.weight_decay_norm,
    }


def build_module(cfg: DictConfig, model: nn.Module, config: dict[str, Any]) -> DetectionModule:
    """Wraps a detector for training as ``cfg.optim`` says."""
    return DetectionModule(model, config=config, **optimization(cfg.optim))


def fill_in_data(cfg: DictConfig, info: DatasetInfo) -> None:
    """Puts the training split's gray statistics into the config unless the user set them."""
    if cfg.pixel_mean is None:
        cfg.pixel_mean = info.pixel_mean
    if cfg.pixel_std is None:
        cfg.pixel_std = info.pixel_std


@alone(lambda cfg: cfg.out)
def run(cfg: DictConfig) -> dict[str, float]:
    """Trains and tests as the config says.

    Returns:
        The summary metrics of the test split, or of the last validation where ``test=false``.

    Raises:
        UserError: bad input, an absent GPU, a training that diverged.
        KeyboardInterrupt: after an interrupted training has been saved.
        Terminated: after one that got SIGTERM has.
    """
    quiet()
    check_method(cfg)  # a multirun's jobs were not composed by us
    check_data_root(cfg, several=True)
    check_accelerator(cfg.trainer.accelerator)
    check_flags(cfg)
    out = make_run_dir(cfg.out)
    pl.seed_everything(cfg.seed, workers=True, verbose=False)
    datamodule = build_datamodule(cfg)
    if cfg.ckpt_path:
        check_resumable(cfg)
    if cfg.resume:
        check_same_data(cfg.resume, datamodule.info().fingerprint)
    fill_in_data(cfg, datamodule.info())
    model = build_model(cfg)
    # Presets have heads of different sizes, which took different amounts of random numbers.
    pl.seed_everything(cfg.seed, workers=True, verbose=False)
    return execute(cfg, build_module(cfg, model, recorded(cfg)), datamodule, out)


def execute(
    cfg: DictConfig, module: DetectionModule, datamodule: ChromosomeDataModule, out: Path
) -> dict[str, float]:
    """Trains and tests what was built, and leaves a run directory.

    Args:
        cfg: trainer, callbacks, loggers and what is written down of the run.
        module: what to train.
        datamodule: on what.
        out: the run directory.

    Returns:
        As :func:`run`.
    """
    cfg.wandb_id = cfg.wandb_id or wandb_run_id(out, cfg.ckpt_path)
    loggers = instantiate_all(cfg.logger)
    trainer = build_trainer(cfg, loggers)
    record = RunRecord(
        out,
        preset=cfg.preset,
        scale=cfg.scale.name,
        seed=cfg.seed,
        data=datamodule.data.facts(),
        parameters=sum(p.numel() for p in module.model.parameters()),
        wandb_id=cfg.wandb_id,
        overrides=recorded_overrides(cfg, task_overrides()),
        **module.facts(),
    )
    if trainer.is_global_zero:
        write_text(out / "config.yaml", OmegaConf.to_yaml(OmegaConf.create(recorded(cfg))))
        device = device_name(trainer.strategy.root_device)
        for logger in loggers:
            logger.log_hyperparams(run_columns(module.config, {**record.facts, "device": device}))
        announce(cfg, trainer, datamodule, out)
    began = time.monotonic()
    # What it came to is written first: W&B may take its time.
    with (
        finished_runs(loggers),
        children_end_too(trainer, lambda: record.add(status="failed")),
        record.keep(trainer),
    ):
        fit(trainer, module, datamodule, cfg.ckpt_path)
        record.add(**training_facts(trainer, module, time.monotonic() - began))
        return finish(trainer, module, datamodule, out) if cfg.test else plain_metrics(trainer)


def announce(
    cfg: DictConfig, trainer: pl.Trainer, datamodule: ChromosomeDataModule, out: Path
) -> None:
    """Prints what is about to be trained, on what and where."""
    counts = {stage: len(datamodule.coco(stage)["images"]) for stage in ("train", "val", "test")}
    devices = f" on {trainer.world_size} processes" if trainer.world_size > 1 else ""
    print(
        f"{cfg.preset} at scale {cfg.scale.name} on {datamodule.info().name}: "
        f"{counts['train']} training, {counts['val']} validation, {counts['test']} test{devices} "
        f"-> {out}",
        flush=True,
    )
    every = trainer.check_val_every_n_epoch
    if trainer.max_epochs and every and trainer.max_epochs % every:
        print(
            "note: the last epoch will not be validated, so it cannot become the best: "
            f"trainer.check_val_every_n_epoch={trainer.check_val_every_n_epoch} does not divide "
            f"trainer.max_epochs={trainer.max_epochs}",
            flush=True,
        )


def check_resumable(cfg: DictConfig) -> None:
    """Checks that a checkpoint to continue from is of the same preset and scale.

    Raises:
        DataError: it is not, or it cannot be read.
    """
    config = read_checkpoint(cfg.ckpt_path)["deepacc_config"]
    found, wanted = (config["preset"], config["scale"]["name"]), (cfg.preset, cfg.scale.name)
    if found != wanted:
        raise DataError(
            f"checkpoint {cfg.ckpt_path} is of {'/'.join(found)}, this run of {'/'.join(wanted)}: "
            "pass the same EXP and SCALE, or only its weights by init_weights="
        )


def fit(
    trainer: pl.Trainer,
    module: DetectionModule,
    datamodule: ChromosomeDataModule,
    ckpt_path: str | None,
) -> None:
    """Runs ``trainer.fit``; Lightning turns Ctrl-C into an exit of its own, which we turn back.

    Args:
        trainer: the trainer.
        module: what to train.
        datamodule: on what.
        ckpt_path: a checkpoint to continue from, with its optimizer and schedule, or null.

    Raises:
        KeyboardInterrupt: training was interrupted; its last checkpoint is on disk.
        Terminated: the same by SIGTERM.
        ConfigError: flags of the trainer that do not fit the data, or other nodes' processes are
            not there.
    """
    try:
        trainer.fit(module, datamodule=datamodule, ckpt_path=ckpt_path, weights_only=True)
    except SIGTERMException as error:
        raise Terminated from error
    except MisconfigurationException as error:  # a share of too few batches, say
        raise flags_refused(error) from error
    except distributed.DistStoreError as error:
        raise ConfigError(
            f"the processes of the other nodes did not come ({one_line(error)}): start the "
            "training on each of them, by torchrun or srun, or leave trainer.num_nodes at 1"
        ) from error
    except SystemExit as error:
        if trainer.interrupted:
            raise KeyboardInterrupt from error
        raise


def training_facts(trainer: pl.Trainer, module: DetectionModule, seconds: float) -> dict[str, Any]:
    """Returns what a finished training cost."""
    callbacks: list[pl.Callback] = trainer.callbacks  # type: ignore[attr-defined]
    throughput = next((c for c in callbacks if isinstance(c, Throughput)), None)
    return {
        # Lightning has moved the module back to the CPU by now.
        "device": device_name(trainer.strategy.root_device),
        "steps": trainer.global_step,
        "epochs": trainer.current_epoch,
        "fit_seconds": round(seconds, 1),
        "train_seconds": round(throughput.seconds, 1) if throughput else None,
        "train_images": throughput.images if throughput else None,
    }


def plain_metrics(trainer: pl.Trainer) -> dict[str, float]:
    """Returns the last logged metrics as floats."""
    return {name: float(value) for name, value in trainer.callback_metrics.items()}


def finish(
    trainer: pl.Trainer, module: DetectionModule, datamodule: ChromosomeDataModule, out: Path
) -> dict[str, float]:
    """Tests the best checkpoint, writes the report and prints where everything is."""
    best = Path(trainer.checkpoint_callback.best_model_path or "")  # type: ignore[union-attr]
    if best.is_file():
        module.load_weights(read_checkpoint(best)["model"])
    elif trainer.is_global_zero:
        print("warning: there is no best checkpoint, the last weights are tested", flush=True)
    metrics = run_test(trainer, module, datamodule, out / "test")
    if trainer.is_global_zero:
        print(f"best checkpoint  {best if best.is_file() else 'none'}\nrun directory    {out}")
    return {f"test/{k}": float(v) for k, v in metrics.summary().items()}


def check_new(out: Path) -> None:
    """Refuses to train into the directory of another run.

    Raises:
        ConfigError: there is one.
    """
    if is_main_process() and (out / "run.json").is_file():
        raise ConfigError(
            f"{out} holds a run already: continue it with RESUME={out}, or choose another OUT"
        )


def task_overrides() -> list[str] | None:
    """Returns what was said on the command line of this program; null within another one."""
    if not HydraConfig.initialized() or HydraConfig.get().job.config_name != "train":
        return None
    return list(HydraConfig.get().overrides.task)


@alone(lambda cfg: cfg.out)
def begin(cfg: DictConfig) -> bool:
    """Begins or continues a run, once it is known that no other process is at it.

    Returns:
        Whether there was anything to do.

    Raises:
        UserError: as of :func:`run`, or there is another run.
    """
    if cfg.resume:
        cfg = continued(cfg.resume, task_overrides() or [])
        if is_finished(cfg.resume):
            if is_main_process():
                print(f"{cfg.resume} is finished: there is nothing to continue", flush=True)
            return False
    else:
        check_new(Path(cfg.out))
    run(cfg)
    return True


@hydra.main(version_base="1.3", config_path=config_dir(), config_name="train")
def main(cfg: DictConfig) -> None:
    """Entry point; exits 2 on bad input, 130 on Ctrl-C, 143 on SIGTERM, with one line each."""
    began = time.monotonic()
    if HydraConfig.get().mode == RunMode.MULTIRUN and not rank():
        os.environ.pop(RUN_TIME, None)  # each job of Hydra's multirun is a run of its own
    with ended_well(lambda: Path(cfg.out)):
        resolved(cfg.out)
        if not cfg.resume and was_requeued() and (Path(cfg.out) / "run.json").is_file():
            cfg.resume = cfg.out
        if cfg.resume:
            cfg.out = str(Path(cfg.resume).resolve())
        if not begin(cfg):
            return
    if is_main_process():
        print(f"done in {format_duration(time.monotonic() - began)}", flush=True)


if __name__ == "__main__":
    run_entry_point("train", main)
