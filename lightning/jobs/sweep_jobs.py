"""The jobs of a sweep: one ``make train`` each, in a folder of its own, done once.

:func:`train_one` is what Hydra's launchers run, in this process or in one on another machine.
Between processes only files speak: ``job.json`` in a job's folder says that it is done and what it
gave, ``failed.txt`` why it failed, a lock beside the folder that somebody is at it.
"""

from __future__ import annotations

import csv
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
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytorch_lightning as pl
import torch
from filelock import FileLock, Timeout
from omegaconf import DictConfig, OmegaConf, open_dict
from pytorch_lightning.callbacks import Callback

from deepacc_d2.errors import DataError, UserError
from deepacc_d2.evaluation.types import SUMMARY_KEYS
from deepacc_d2.files import write_json, write_text
from deepacc_lightning import train
from deepacc_lightning.core.cli import message
from deepacc_lightning.core.run_info import make_run_dir
from deepacc_lightning.jobs.ablation_jobs import Job, go_on_from_last
from deepacc_lightning.training.stopping import StopOnSignal, Terminated

OBJECTIVE = "val/map50"
"""What a sweep maximizes, in percent. Never anything of the test split."""
OWN_NODES = ("sweep", "space")
"""Parts of the ``sweep`` config that are not of ``train``'s."""


class NotValidatedError(DataError):
    """A job was trained without a single validation."""


@dataclass(frozen=True)
class SweepJob(Job):
    """One training of a sweep.

    Attributes:
        values: the swept keys and the job's values of them, as texts of Hydra's override grammar.
    """

    config_name: ClassVar[str] = "sweep"

    values: tuple[tuple[str, str], ...] = ()

    @property
    def done(self) -> bool:
        """Whether it was finished, by any process."""
        return (self.out / "job.json").is_file()

    @property
    def failure(self) -> Path:
        """Where it is written down why the job failed, if it did."""
        return self.out / "failed.txt"

    def note_failure(self, reason: str) -> None:
        """Writes down why it failed."""
        write_text(self.failure, reason + "\n")
        stamp(self.failure)

    def failed_since(self, began: float) -> bool:
        """Whether it failed after a time in seconds since the epoch: before, it is tried again."""
        try:
            return self.failure.stat().st_mtime >= began
        except OSError:
            return False

    def started_since(self, began: float) -> bool:
        """Whether any process has begun or gone on with it after a time."""
        try:
            return (self.out / "log.txt").stat().st_mtime >= began
        except OSError:
            return False

    def reason(self) -> str:
        """Returns why it failed, on one line; empty if it did not."""
        try:
            return " ".join(self.failure.read_text(encoding="utf-8").split())
        except OSError:
            return ""

    def result(self) -> dict[str, Any]:
        """Returns what ``job.json`` of a done job says, see :func:`summarize`."""
        content: dict[str, Any] = json.loads((self.out / "job.json").read_text(encoding="utf-8"))
        return content


def stamp(path: Path) -> None:
    """Sets a file's time to this machine's: that of a file server may be another one."""
    now = time.time()
    os.utime(path, (now, now))


class StopWhenAsked(Callback):
    """Ends a training as Ctrl-C does, once a file appears: that reaches every machine of a sweep.

    It gives the signal to :class:`~deepacc_lightning.training.stopping.StopOnSignal`, which saves
    first.

    Args:
        path: the file.
        seconds: how often to look for it.
    """

    def __init__(self, path: str | Path, seconds: float = 1.0) -> None:
        self.path = Path(path)
        self.seconds = seconds
        self._next = 0.0

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Looks for the file."""
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + self.seconds
        if self.path.exists():
            for callback in trainer.callbacks:  # type: ignore[attr-defined]
                if isinstance(callback, StopOnSignal):
                    callback.received = signal.SIGINT


def train_one(cfg: DictConfig) -> None:
    """Trains one job of a sweep, goes on with it, or leaves it alone where there is no need.

    A failure is written down and not raised: it must not end the jobs that come after it.

    Args:
        cfg: the ``sweep`` config of the job, with its ``out``.

    Raises:
        KeyboardInterrupt: in the sweep's own process, after what was trained has been saved.
        Terminated: the same by SIGTERM.
    """
    job = SweepJob(cfg.preset, cfg.seed, Path(cfg.out), ())
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
                with a_device(cfg, job.out.parent) as device:
                    train.run(training_config(cfg, job.out.name, stop, device))
                summary = summarize(job.out, time.time() - began)
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
        write_json(job.out / "job.json", summary)


def reason_of(error: BaseException) -> str:
    """Describes an error on one line; one that is no message to a user begins with its type."""
    text = " ".join(message(error).split())[:500]
    return text if isinstance(error, UserError) else f"{type(error).__name__}: {text}".rstrip(": ")


def training_config(cfg: DictConfig, name: str, stop: Path, device: int | None) -> DictConfig:
    """Makes the config of ``make train`` out of a job's.

    Args:
        cfg: the job's ``sweep`` config.
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
        cfg.callbacks.stop = {
            "_target_": "deepacc_lightning.jobs.sweep_jobs.StopWhenAsked",
            "path": str(stop),
        }
        if OmegaConf.select(cfg, "logger.wandb.name"):
            cfg.logger.wandb.name = f"{cfg.preset}-{name}"
        if device is not None:
            cfg.trainer.devices = [device]
    go_on_from_last(cfg)
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
        seconds: how long this part of it took, since it was last gone on with.

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
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = [
                row
                for row in csv.DictReader(file)
                if math.isfinite(float(row.get(OBJECTIVE) or math.nan))
            ]
    except OSError:
        return {}
    # The first of equals: ModelCheckpoint keeps that one, too.
    best = max(rows, key=lambda row: float(row[OBJECTIVE]), default={})
    names = [*(f"val/{key}" for key in SUMMARY_KEYS), "epoch"]
    return {name.removeprefix("val/"): float(best[name]) for name in names if best.get(name)}
