"""``make predict``: boxes, karyograms, karyotypes and tables of metaphase images."""

from __future__ import annotations

from deepacc_lightning.jobs.drawing import start_server

if __name__ == "__main__":
    # First of all: processes that draw import what they need while this one does the same.
    start_server()

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import hydra
import pytorch_lightning as pl
from omegaconf import DictConfig, ListConfig, OmegaConf

from deepacc_d2.detection.detector import DEFAULT_CHECKPOINT, model_hash
from deepacc_d2.disclaimer import DISCLAIMER
from deepacc_d2.errors import ConfigError
from deepacc_d2.karyogram.layout import ALIGNMENTS
from deepacc_d2.partial import resolved
from deepacc_d2.prediction.continued import continue_job
from deepacc_d2.prediction.folder import OutputFolder, open_folder
from deepacc_d2.prediction.inputs import Images, Input, list_images
from deepacc_d2.prediction.outputs import check_suffixes
from deepacc_d2.prediction.parts import part_of
from deepacc_d2.prediction.predictor import Predictor, load_predictor
from deepacc_d2.prediction.summary import finish_job
from deepacc_d2.text import is_utf8, printable
from deepacc_d2.worksheet.laboratory import Laboratory
from deepacc_lightning.core.cli import alone, check_accelerator, run_entry_point, run_guarded
from deepacc_lightning.core.config import config_dir, register_resolvers
from deepacc_lightning.core.processes import is_main_process
from deepacc_lightning.core.worker_loader import WorkerLoader
from deepacc_lightning.jobs.lanes import Lanes
from deepacc_lightning.jobs.predict_loop import (
    CellWriter,
    ImageFiles,
    ImageNames,
    PredictModule,
    one_image,
)
from deepacc_lightning.train import quiet
from deepacc_lightning.training.callbacks import ProgressBar
from deepacc_lightning.training.children import children_end_too, process_plugins
from deepacc_lightning.training.stopping import EndOnSignal

register_resolvers()

ENGINES = ("lightning", "ray")
DRAWN_BEFORE = {"align": "centromere", "crops": False}
BAD_NAME = "its name is not in UTF-8: rename it"


@alone(lambda cfg: cfg.out)
def run(cfg: DictConfig) -> dict[str, Any]:
    """Predicts as the config says.

    Returns:
        ``cells``: finished ones in the folder; ``predicted``: of them by this call; ``failed``:
        files that could not be used.

    Raises:
        UserError: bad options, no image, an output folder of something else, or nothing useful
            came out.
    """
    quiet()
    if cfg.engine not in ENGINES:
        raise ConfigError(f"engine={cfg.engine}: choose {' or '.join(ENGINES)}")
    drawings = drawings_of(cfg)
    check_accelerator(cfg.accelerator, "accelerator")
    checkpoint = Path(cfg.ckpt or DEFAULT_CHECKPOINT)
    # Before anything is listed or written: a wrong checkpoint is the commonest mistake.
    predictor = predictor_of(cfg)
    laboratory = Laboratory.read(cfg.worksheet, cfg.cells, cfg.name_pattern)
    out = resolved(cfg.out)
    skipped: dict[Path, str] = {}
    listed = part_of(
        list_images(_images(cfg.images), cfg.cases, out=out, skipped=skipped), cfg.part
    )
    job = {
        "kind": "deepacc_d2 prediction",
        "model": {"name": predictor.name, "sha256": model_hash(checkpoint)},
        "settings": predictor.settings(),
        "precision": cfg.precision,
        # Those that an earlier version did not know are left out where they change nothing.
        "drawings": {k: v for k, v in drawings.items() if DRAWN_BEFORE.get(k) != v},
    }
    folder = (
        open_folder(out, job, overwrite=bool(cfg.overwrite))
        if is_main_process()
        else OutputFolder(out)
    )
    if is_main_process() and (cfg.worksheet or cfg.cells or cfg.name_pattern):
        laboratory.save(out)
    inputs, done = listed, frozenset[str]()
    if not cfg.overwrite:  # else another process may be removing them at this moment
        there = continue_job(folder, listed, write=is_main_process())
        inputs, done = there.inputs, there.done
        if there.others and is_main_process():
            print(there.line(), flush=True)
    todo = [item for item in inputs if item.name not in done]
    if len(todo) < len(inputs):
        print(f"{len(inputs) - len(todo)} of {len(inputs)} images are done already", flush=True)
    # Other processes and machines could not even be told of these.
    errors = [(printable(i.path), BAD_NAME) for i in todo if not is_utf8(i.path)]
    readable = [item for item in todo if is_utf8(item.path)]
    if readable:
        predict = predict_by_ray if cfg.engine == "ray" else predict_by_lightning
        errors += predict(cfg, predictor, readable, folder, drawings)
    if not is_main_process():
        return {}
    cells = report(folder, errors, skipped, images=len(inputs), about=predictor.name)
    return {"cells": cells, "predicted": len(todo) - len(errors), "failed": len(errors)}


def drawings_of(cfg: DictConfig) -> dict[str, Any]:
    """Returns what is drawn of each cell, as ``write_cell`` takes it.

    Raises:
        ConfigError: a format or an alignment is none that there is.
    """
    if cfg.align not in ALIGNMENTS:
        raise ConfigError(f"align={cfg.align}: choose {' or '.join(ALIGNMENTS)}")
    return {
        "overlay": bool(cfg.overlay),
        "karyogram": list(check_suffixes(list(cfg.karyogram))),
        "align": str(cfg.align),
        "crops": bool(cfg.crops),
    }


def predictor_of(cfg: DictConfig) -> Predictor:
    """Loads the model that a config names, on the CPU.

    Raises:
        UserError: see :func:`load_predictor`.
    """
    return load_predictor(
        cfg.ckpt,
        device="cpu",
        precision=cfg.precision,
        normalize=bool(cfg.normalize),
        min_foreground=cfg.min_foreground,
        tta=cfg.tta,
        prior_strength=cfg.prior_strength,
    )


def _images(images: Any) -> Images:
    # Absolute: a result says where its image is, wherever it is read, and Ray runs elsewhere.
    if isinstance(images, ListConfig):
        return [str(Path(str(item)).expanduser().absolute()) for item in images]
    return str(Path(str(images)).expanduser().absolute())


def predict_by_lightning(
    cfg: DictConfig,
    predictor: Predictor,
    todo: list[Input],
    folder: OutputFolder,
    drawings: dict[str, Any],
) -> list[tuple[str, str]]:
    """Predicts on this machine's devices; every process takes its share of the images.

    Returns:
        Path and message of each file that could not be used.
    """
    lanes = Lanes(cfg.lanes)
    drawing = lanes.count if cfg.draw_workers is None else cfg.draw_workers
    reading = cfg.num_workers
    loader = WorkerLoader(
        ImageFiles(todo, predictor.detector.view) if reading else ImageNames(todo),
        batch_size=1,
        num_workers=reading,
        collate_fn=one_image,
        prefetch_factor=2 if reading else None,
    )
    writer = CellWriter(folder, drawings, workers=min(drawing, len(todo)), ahead=lanes.count)
    with writer, lanes:
        trainer = pl.Trainer(
            accelerator=cfg.accelerator,
            devices=cfg.devices,
            logger=False,
            callbacks=[ProgressBar(refresh_rate=1), EndOnSignal(), writer],
            plugins=process_plugins(),
            enable_model_summary=False,
            enable_checkpointing=False,
        )
        try:
            with children_end_too(trainer):
                trainer.predict(PredictModule(predictor, lanes), loader, return_predictions=False)
        except SystemExit as error:
            if trainer.interrupted:  # Lightning turns Ctrl-C into an exit of its own
                raise KeyboardInterrupt from error
            raise
    return writer.all_errors(trainer)


def predict_by_ray(
    cfg: DictConfig,
    predictor: Predictor,
    todo: list[Input],
    folder: OutputFolder,
    drawings: dict[str, Any],
) -> list[tuple[str, str]]:
    """Predicts on a Ray cluster; see :mod:`deepacc_lightning.jobs.predict_ray`."""
    from deepacc_lightning.jobs.predict_ray import predict_cells

    return predict_cells(cfg, todo, folder, drawings)


def report(
    folder: OutputFolder,
    errors: list[tuple[str, str]],
    skipped: Mapping[Path, str],
    *,
    images: int,
    about: str,
) -> int:
    """Writes tables and case reports and prints what came out.

    Args:
        folder: the job's.
        errors: path and message of each image that could not be used.
        skipped: why a picture was not looked at.
        images: how many were to be.
        about: the model.

    Returns:
        The number of finished cells.

    Raises:
        ConfigError: no image of the job could be used, or the disk is full.
    """
    for path, message in errors:
        print(f"error: {path}: {message}" if path not in message else f"error: {message}")
    if skipped:
        first, line = next(iter(skipped.items()))
        count = f"{len(skipped)} pictures" if len(skipped) > 1 else "1 picture"
        print(f"skipped          {count}, see errors.csv, such as {printable(first)}: {line}")
    left_out = [*errors, *((str(one), line) for one, line in skipped.items())]
    try:
        summary = finish_job(folder, left_out, about=about)
    except OSError as error:
        raise ConfigError(
            f"tables of {folder.root} cannot be written ({error.strerror or error}): free some "
            "space and run the same command again"
        ) from error
    print(summary.text)
    print(DISCLAIMER, flush=True)
    if len(errors) == images:
        raise ConfigError(
            f"none of {images} images could be used: see {folder.root / 'errors.csv'}"
        )
    if errors:
        print(f"{len(errors)} of {images} images were left out: see errors.csv", file=sys.stderr)
    return summary.cells


def resolved_run(cfg: DictConfig) -> object:
    """Runs a job whose config refers to its own keys; see :func:`run`."""
    OmegaConf.resolve(cfg)
    return run(cfg)


@hydra.main(version_base="1.3", config_path=config_dir(), config_name="predict")
def main(cfg: DictConfig) -> None:
    """Entry point; exits 2 on bad input and 130 on Ctrl-C, with one line each."""
    run_guarded(resolved_run, cfg)


if __name__ == "__main__":
    run_entry_point("predict", main)
