"""Trains one job of a sweep or an ablation: what Hydra's launchers run, here or elsewhere."""

from __future__ import annotations

import gc
import json
import math
import os
import signal
import socket
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from filelock import FileLock, Timeout
from omegaconf import DictConfig, OmegaConf, open_dict

from deepacc_d2.errors import DataError, Terminated, UserError
from deepacc_d2.evaluation.types import SUMMARY_KEYS
from deepacc_d2.files import write_json
from deepacc_d2.secret import redacted
from deepacc_lightning import train
from deepacc_lightning.core.cli import message
from deepacc_lightning.core.run_info import make_run_dir
from deepacc_lightning.jobs.heads import run_heads
from deepacc_lightning.jobs.job import Job, stamp
from deepacc_lightning.training.resume import go_on_from_last

OBJECTIVE = "val/map50"
"""What a sweep maximizes, in percent. Never anything of the test split."""
OWN_NODES = ("sweep", "space")
"""Parts of a job's config that are not of ``train``'s."""


class NotValidatedError(DataError):
    """A job was trained without a single validation."""


def train_one(cfg: DictConfig) -> None:
    """Trains one job, continues it, or leaves it alone if it is done.

    A failure is written down and not raised: it must not end the jobs that come after it.

    Args:
        cfg: the ``sweep`` or ``ablation`` config of the job, with its ``out``.

    Raises:
        KeyboardInterrupt: in the command's own process, after what was trained has been saved.
        Terminated: the same by SIGTERM.
    """
    kind = "ablation" if "ablation" in cfg else "sweep"
    job = Job(cfg.preset, cfg.seed, Path(cfg.out), (), config_name=kind)
    stop = Path(cfg.sweep.stop)
    elsewhere = cfg.sweep.launcher != "basic"
    if elsewhere and threading.current_thread() is threading.main_thread():
        # A terminal sends Ctrl-C to all processes; the sweep's own asks this one to stop and waits.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    with job.claim() as mine:
        if not mine or job.failed_since(cfg.sweep.began) or stop.exists():
            return
        began = time.time()
        make_run_dir(job.out)
        job.failure.unlink(missing_ok=True)
        # Opened for appending: what the job printed before it was stopped is kept.
        with (
            (job.out / "log.txt").open("a", encoding="utf-8", buffering=1) as log,
            redirect_stdout(log),
            redirect_stderr(log),
        ):
            stamp(job.out / "log.txt")
            try:
                with a_device(cfg, Path(cfg.sweep.dir)) as device:
                    run(training_config(cfg, job.out.name, stop, device))
                summary = summarize(job.out, time.time() - began) if kind == "sweep" else None
            except (KeyboardInterrupt, SystemExit, Terminated) as error:
                if elsewhere:
                    return
                # Lightning makes an exit of a Ctrl-C during the test.
                raise KeyboardInterrupt if isinstance(error, SystemExit) else error from None
            except Exception as error:
                traceback.print_exc()
                job.note_failure(reason_of(error))
                return
            finally:
                release_memory()
        if summary is not None:
            write_json(job.out / "job.json", summary)


def run(cfg: DictConfig) -> dict[str, float]:
    """Trains a whole network, or heads on a frozen trunk where an ablation wants that.

    Args:
        cfg: the job's config.

    Returns:
        As :func:`~deepacc_lightning.train.run`.
    """
    go_on_from_last(cfg)
    heads = OmegaConf.select(cfg, "ablation.protocol") == "heads"
    return run_heads(cfg) if heads else train.run(cfg)


def reason_of(error: BaseException) -> str:
    """Describes an error on one line; one that is no message to a user begins with its type."""
    text = redacted(" ".join(message(error).split()))[:500]
    return text if isinstance(error, UserError) else f"{type(error).__name__}: {text}".rstrip(": ")


def training_config(cfg: DictConfig, name: str, stop: Path, device: int | None) -> DictConfig:
    """Makes the config of ``make train`` out of a job's.

    Args:
        cfg: the job's ``sweep`` or ``ablation`` config.
        name: of the job.
        stop: the file that stops the training.
        device: number of the GPU to train on; null for what the config says.
    """
    with open_dict(cfg):
        cfg.group = str(cfg.group)  # it refers to a node that goes now
        for node in OWN_NODES:
            cfg.pop(node)
        cfg.trainer.enable_progress_bar = False
        cfg.callbacks.progress = None
        if cfg.callbacks.get("stop_on_signal"):
            cfg.callbacks.stop_on_signal.asked = str(stop)
        if OmegaConf.select(cfg, "logger.wandb.name"):
            cfg.logger.wandb.name = f"{cfg.preset}-{name}"
        if device is not None:
            cfg.trainer.devices = [device]
    return cfg


@contextmanager
def a_device(cfg: DictConfig, folder: Path) -> Iterator[int | None]:
    """Takes a GPU of this machine that no other job of the sweep has.

    Slurm and Ray show a job its own GPU only. Processes of joblib all see all of them, and would
    all train on the first one.

    Args:
        cfg: the job's config.
        folder: the sweep's, for the locks.

    Yields:
        Its number; null where there is nothing to choose. With more jobs than GPUs, those that
        find none free share.
    """
    count = torch.cuda.device_count() if cfg.trainer.accelerator in ("auto", "gpu", "cuda") else 0
    if count < 2 or cfg.trainer.devices != 1:
        yield None
        return
    for device in range(count):
        lock = FileLock(folder / f".gpu-{socket.gethostname()}-{device}.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            continue
        try:
            yield device
        finally:
            lock.release()
        return
    yield os.getpid() % count


def release_memory() -> None:
    """Frees what a job leaves behind, so that the next one in this process finds it."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def summarize(out: Path, seconds: float) -> dict[str, Any]:
    """Reads what a finished training left in its run directory.

    Args:
        out: the run directory.
        seconds: how long this part of it took, since it was last continued.

    Returns:
        ``objective`` (percent), ``val`` (all metrics of the validation with the best objective, in
        percent, and its ``epoch``), ``test`` (metrics of the test split; null if it was not tested)
        and ``seconds``.

    Raises:
        NotValidatedError: nothing was validated.
    """
    facts = json.loads((out / "run.json").read_text(encoding="utf-8"))
    best = facts.get("best") or {}
    val = best_validation(out / "csv" / "metrics.csv")
    objective = best.get("score", val.get("map50", math.nan))
    if not math.isfinite(objective):
        raise NotValidatedError(
            f"no validation gave {OBJECTIVE}: scale.check_val_every_n_epoch is for epochs that "
            "were not reached"
        )
    if not math.isclose(val.get("map50", math.nan), objective, abs_tol=1e-3):
        val = {"map50": objective}  # the curve lacks what was before a continuation
    tested = out / "test" / "metrics.json"
    content = json.loads(tested.read_text(encoding="utf-8")) if tested.is_file() else None
    test = {key: content[key] for key in SUMMARY_KEYS} if content else None
    return {"objective": objective, "val": val, "test": test, "seconds": round(seconds, 1)}


def best_validation(path: Path) -> dict[str, float]:
    """Returns the metrics of the validation with the highest objective, and its ``epoch``.

    Args:
        path: ``metrics.csv`` of a run.

    Returns:
        Metrics by their names without ``val/``, in percent; nothing where there is no such file.
    """
    if not path.is_file():
        return {}
    table = pd.read_csv(path)
    if OBJECTIVE not in table or table[OBJECTIVE].isna().all():
        return {}
    # The first of equals: ModelCheckpoint keeps that one, too.
    best = table.loc[table[OBJECTIVE].idxmax()].dropna()
    names = [name for name in (*(f"val/{key}" for key in SUMMARY_KEYS), "epoch") if name in best]
    return {name.removeprefix("val/"): float(best[name]) for name in names}
