"""``make evaluate``: a checkpoint on one split of a data set, with the full report.

Its detector is that of ``make predict``, from the view to the choice of boxes; the report has the
rates by the paper's rule and by that of ``make predict``, from the same proposals.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import hydra
import numpy as np
import pytorch_lightning as pl
from detectron2.data import transforms as T
from hydra.utils import instantiate
from omegaconf import DictConfig
from pytorch_lightning.loggers import Logger
from torch import nn

from deepacc_d2.checkpoint import AUGMENTATIONS, check_trusted
from deepacc_d2.data.mapper import MetaphaseMapper
from deepacc_d2.detection.detector import DEFAULT_CHECKPOINT, Detector, detector_of, open_model
from deepacc_d2.detection.network import TorchDetector
from deepacc_d2.detection.runners import is_exported
from deepacc_d2.errors import ConfigError
from deepacc_d2.files import write_json
from deepacc_d2.images.view import ViewSettings, make_view, plain_view
from deepacc_d2.sole_use import sole_use
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
from deepacc_lightning.core.processes import is_main_process
from deepacc_lightning.core.run_info import describe_run, device_name, make_run_dir
from deepacc_lightning.train import quiet
from deepacc_lightning.training.callbacks import ProgressBar
from deepacc_lightning.training.children import children_end_too, process_plugins
from deepacc_lightning.training.datamodule import ChromosomeDataModule
from deepacc_lightning.training.final_test import log_report, run_test
from deepacc_lightning.training.module import DetectionModule
from deepacc_lightning.training.stopping import EndOnSignal
from deepacc_lightning.wandb.loggers import WandbLogger, finished_runs, run_columns

register_resolvers()

VIEWS = {
    "predict": "images shown as make predict shows them",
    "test": "images shown as the test of a training shows them",
}


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


class ShownImages:
    """Reads images of a data set and makes their views; a mapper of dataset dicts.

    Args:
        view: of ``make predict``; None to show an image as training's tests do.
        augmentations: what these tests do with it.
    """

    def __init__(self, view: ViewSettings | None, augmentations: Sequence[T.Augmentation]) -> None:
        self.view = view
        self.read = MetaphaseMapper([], is_train=False)
        self.augmentations = T.AugmentationList(list(augmentations))

    def __call__(self, item: dict[str, Any]) -> dict[str, Any]:
        """Returns ``image_id``, ``gray`` uint8 (H, W) and ``view`` of a dataset dict."""
        gray = self.read(item)["image"][0].numpy()
        if self.view is not None:
            view = make_view(gray, self.view)
        else:
            inputs = T.AugInput(gray)
            self.augmentations(inputs)
            view = plain_view(gray, np.ascontiguousarray(inputs.image))
        return {"image_id": item["image_id"], "gray": gray, "view": view}


class DetectorModule(DetectionModule):
    """Tests a detector as ``make predict`` runs it, image by image.

    Args:
        detector: on any device.
    """

    def __init__(self, detector: Detector) -> None:
        super().__init__(nn.Identity())
        self.detector = detector

    def on_test_start(self) -> None:
        """Moves the detector to this process's device."""
        self.detector.to(self.device)

    def transfer_batch_to_device(self, batch: Any, device: Any, dataloader_idx: int) -> Any:
        """Leaves the batch alone: the detector moves what it needs."""
        return batch

    def _detect(self, batch: list[dict[str, Any]]) -> None:
        assert self.evaluator is not None
        self.evaluator.predictions += [
            self.detector.predict(item["gray"], item["image_id"], item["view"]) for item in batch
        ]


def load(cfg: DictConfig) -> tuple[Detector, dict[str, Any]]:
    """Returns the detector of a checkpoint as ``view`` says, and the checkpoint's config.

    Raises:
        UserError: see :func:`load_detector`; an unknown view, an exported file, or another preset
            or scale than is asked for.
    """
    if cfg.view not in VIEWS:
        raise ConfigError(f"view={cfg.view}: choose {' or '.join(VIEWS)}")
    if cfg.ckpt is not None and is_exported(cfg.ckpt):
        raise ConfigError(
            f"CKPT={cfg.ckpt} is exported: evaluate its checkpoint; make robustness takes both"
        )
    network, content = open_model(cfg.ckpt, device="cpu", precision=cfg.precision)
    config = content["deepacc_config"]
    check_expected(config, cfg)
    if isinstance(network, TorchDetector):
        network.as_in_training = cfg.view == "test"
    # As training's tests show an image it is looked at once.
    tta = cfg.tta if cfg.view == "predict" else 1
    return detector_of(network, content, normalize=cfg.view == "predict", tta=tta), config


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
    detector, config = load(cfg)
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
    datamodule.test_mapper = ShownImages(
        detector.view if cfg.view == "predict" else None, datamodule.augmentations["test"]
    )
    datamodule.prepare_data()
    info = datamodule.info()
    datamodule.coco("test")
    out = Path(cfg.out or default_out(cfg)).resolve()
    trainer = pl.Trainer(
        accelerator=cfg.accelerator,
        devices=cfg.devices,
        logger=False,
        callbacks=[ProgressBar(refresh_rate=5), EndOnSignal()],
        plugins=process_plugins(),
        use_distributed_sampler=False,
        enable_model_summary=False,
    )
    module = DetectorModule(detector)
    title = f"{detector.name} ({config['preset']}) on {cfg.split} of {info.name}, {VIEWS[cfg.view]}"
    # The checkpoint says what the command line may leave open.
    cfg.preset, cfg.scale_name = config["preset"], config["scale"]["name"]
    facts = describe_run(
        checkpoint=str(cfg.ckpt or DEFAULT_CHECKPOINT),
        preset=cfg.preset,
        scale=cfg.scale_name,
        split=cfg.split,
        view=cfg.view,
        precision=cfg.precision,
        data=datamodule.data.facts(),
        detector=detector.settings(),
    )
    loggers = instantiate_all(cfg.get("logger"))
    with (
        sole_use(out) if is_main_process() else nullcontext(),
        finished_runs(loggers),
        children_end_too(trainer),
    ):
        make_run_dir(out)
        described = {**facts, "device": device_name(trainer.strategy.root_device)}
        columns = run_columns(config, described)
        for logger in loggers:
            facts_logged = {"split": cfg.split, "checkpoint": facts["checkpoint"]}
            logger.log_hyperparams({**columns, **facts_logged})
        metrics = run_test(trainer, module, datamodule, out, title=title)
        if trainer.is_global_zero:
            write_json(out / "evaluation.json", facts)
            for logger in loggers:
                log_evaluation(logger, module, datamodule)
    return {k: float(v) for k, v in metrics.summary().items()}


def default_out(cfg: DictConfig) -> Path:
    """Returns where a report goes: into the checkpoint's run; the shipped one has none."""
    name = f"evaluation-{cfg.data.name}-{cfg.split}"
    return Path("runs") / name if cfg.ckpt is None else Path(cfg.ckpt).parent.parent / name


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
