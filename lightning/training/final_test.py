"""The test of a detector and its report, as training ends with it and ``make evaluate`` runs it."""

from __future__ import annotations

from pathlib import Path

import pytorch_lightning as pl
from pytorch_lightning.utilities.exceptions import MisconfigurationException

from deepacc_d2.evaluation.report import format_table, write_report
from deepacc_d2.evaluation.types import Metrics
from deepacc_lightning.core.cli import flags_refused
from deepacc_lightning.training.csv_logger import CSVLogger
from deepacc_lightning.training.datamodule import ChromosomeDataModule
from deepacc_lightning.training.module import DetectionModule
from deepacc_lightning.wandb.loggers import WandbLogger


def run_test(
    trainer: pl.Trainer,
    module: DetectionModule,
    datamodule: ChromosomeDataModule,
    out: Path,
    *,
    title: str = "",
) -> Metrics:
    """Detects on the test split, writes the report to ``out`` and prints the metrics.

    Args:
        trainer: the trainer.
        module: the detector.
        datamodule: its ``test_split`` is what is tested on.
        out: directory of the report.
        title: a line printed above the table.

    Raises:
        KeyboardInterrupt: at Ctrl-C.
        ConfigError: flags of the trainer that do not fit the data.
    """
    if trainer.global_step:
        # One that was killed after this test, and not yet finished, has logged it before.
        for logger in trainer.loggers:
            if isinstance(logger, CSVLogger):
                logger.forget_from(trainer.global_step)
    try:
        trainer.test(module, datamodule=datamodule, verbose=False)
    except SystemExit as error:
        if trainer.interrupted:  # Lightning turns Ctrl-C into an exit of its own
            raise KeyboardInterrupt from error
        raise
    except MisconfigurationException as error:
        raise flags_refused(error) from error
    assert module.evaluator is not None
    assert module.metrics is not None
    if trainer.is_global_zero:
        # With trainer.limit_test_batches it is of the images that were looked at alone.
        seen, images = len(module.evaluator.coco["images"]), len(datamodule.coco("test")["images"])
        if seen < images:
            print(f"note: tested on {seen} of {images} images, as the trainer's flags say")
        paths = write_report(
            out,
            module.evaluator.coco,
            module.evaluator.predictions,
            module.metrics,
            datamodule.data.images,
        )
        if title:
            print(title)
        print(format_table(module.metrics))
        print("\n".join(f"report           {path}" for path in paths), flush=True)
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):
                log_report(logger, module, datamodule)
    return module.metrics


def log_report(
    logger: WandbLogger,
    module: DetectionModule,
    datamodule: ChromosomeDataModule,
    *,
    prefix: str = "test",
) -> None:
    """Shows in W&B what the report shows of the last test.

    Args:
        logger: of a run.
        module: the detector that was tested.
        datamodule: what it was tested on.
        prefix: of the keys.
    """
    assert module.evaluator is not None
    assert module.metrics is not None
    logger.log_evaluation(
        module.evaluator.coco,
        module.evaluator.predictions,
        module.metrics,
        datamodule.data.images,
        prefix=prefix,
    )
