"""``make ablation``: every preset of Table 1 with several seeds, and the table of it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import traceback
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from hydra.errors import HydraException
from omegaconf import DictConfig, ListConfig
from omegaconf.errors import OmegaConfBaseException

from deepacc_d2.checkpoint import read_checkpoint
from deepacc_d2.errors import ConfigError, UserError
from deepacc_d2.evaluation.ablation.report import AblationResult
from deepacc_d2.modeling.cached import fingerprint, trunk_weights
from deepacc_lightning import train
from deepacc_lightning.core.cli import (
    check_accelerator,
    check_data_root,
    fail,
    interrupted,
    message,
    one_line,
)
from deepacc_lightning.core.config import compose_config, config_dir, quoted
from deepacc_lightning.core.run_info import make_run_dir
from deepacc_lightning.jobs.ablation_jobs import (
    Job,
    prepare_heads,
    read_facts,
    read_metrics,
    run_end_to_end,
    run_heads,
)
from deepacc_lightning.reports.ablation_report import report
from deepacc_lightning.training.callbacks import format_duration

PROTOCOLS = ("heads", "end_to_end")
OWN = ("experiment", "preset", "seed", "ckpt_path", "init_trunk", "test")
"""Keys that differ from job to job, or that every job needs as they are."""
HEADS_KEYS = ("max_epochs", "check_val_every_n_epoch", "gradient_clip_val")
HEADS_OVERRIDES = (
    "trainer.max_epochs=${heads.max_epochs}",
    "trainer.check_val_every_n_epoch=${heads.check_val_every_n_epoch}",
    "trainer.gradient_clip_val=${heads.optim.gradient_clip_val}",
    "init_weights=null",
)


class JobsFailedError(UserError):
    """Some jobs of an ablation failed; the others were done."""


def check_arguments(overrides: list[str]) -> None:
    """Refuses overrides that the ablation sets itself.

    Raises:
        ConfigError: names the key and what to use instead.
    """
    heads = not any(o.endswith("ablation.protocol=end_to_end") for o in overrides)
    for override in overrides:
        key = override.partition("=")[0].lstrip("+~")
        if key in OWN:
            raise ConfigError(
                f"{key} is set by the ablation for each of its jobs: use EXPS, SEEDS or CKPT of "
                "make ablation (ablation.presets, ablation.seeds, ablation.trunk)"
            )
        group, _, name = key.partition(".")
        if heads and group == "trainer" and name in HEADS_KEYS:
            where = "heads.optim" if name == "gradient_clip_val" else "heads"
            raise ConfigError(
                f"{key} is of the trunk and the heads alike: use {where}.{name} for the heads and "
                f"{'optim' if name == 'gradient_clip_val' else 'scale'}.{name} for the trunk"
            )


def seeds_of(value: Any) -> list[int]:
    """Returns the seeds that a count or a list stands for.

    Raises:
        ConfigError: it is neither, or empty.
    """
    if isinstance(value, int) and not isinstance(value, bool) and value > 0:
        return list(range(value))
    if isinstance(value, ListConfig) and len(value) and all(isinstance(v, int) for v in value):
        return list(dict.fromkeys(value))
    raise ConfigError(f"ablation.seeds={value}: expected a count, or a list such as [0,1,2]")


def check_settings(cfg: DictConfig) -> None:
    """Checks the ablation's own settings.

    Raises:
        ConfigError: an unknown protocol or preset, no processes, several devices.
    """
    settings = cfg.ablation
    if settings.protocol not in PROTOCOLS:
        raise ConfigError(f"ablation.protocol={settings.protocol}: choose {' or '.join(PROTOCOLS)}")
    if not isinstance(settings.jobs, int) or settings.jobs < 1:
        raise ConfigError(f"ablation.jobs={settings.jobs}: expected a number of processes")
    if settings.protocol == "heads" and cfg.data.get("weights"):
        raise ConfigError(
            "data.weights: PROTOCOL=heads sees each cached image once an epoch; leave them out, or "
            "use PROTOCOL=end_to_end"
        )
    exist = sorted(p.stem for p in (Path(config_dir()) / "experiment").glob("*.yaml"))
    unknown = [p for p in settings.presets if p not in exist]
    if unknown or not settings.presets:
        raise ConfigError(
            f"ablation.presets: unknown preset {', '.join(unknown) or '(none given)'}: there is "
            f"{', '.join(exist)}"
        )
    if str(cfg.trainer.devices) not in ("1", "[0]") or cfg.trainer.get("num_nodes", 1) != 1:
        raise ConfigError(
            f"trainer.devices={cfg.trainer.devices}: a job of an ablation trains on one device; "
            "use JOBS to spread the jobs"
        )


def plan(cfg: DictConfig, overrides: list[str]) -> list[Job]:
    """Lists the jobs: all presets with the first seed, then with the next.

    Raises:
        ConfigError: no seeds; an override that does not fit a preset; a preset without ROI heads
            under ``heads``.
    """
    settings = cfg.ablation
    heads = settings.protocol == "heads"
    out = Path(cfg.out).resolve()
    common = list(overrides)
    if heads:
        common += HEADS_OVERRIDES
    elif settings.trunk:
        common += [f"init_trunk={quoted(Path(settings.trunk).resolve())}"]
    jobs = []
    for seed in seeds_of(settings.seeds):
        for preset in dict.fromkeys(settings.presets):
            folder = out / preset / f"seed{seed}"
            own = [f"experiment={preset}", f"seed={seed}", f"out={quoted(folder)}"]
            jobs.append(Job(preset, seed, folder, (*common, *own)))
    for job in jobs[: len(set(settings.presets))]:
        try:
            composed = job.compose()
        except ConfigError as error:
            raise ConfigError(f"{job.preset}: {error}") from error
        if heads and "roi_heads" not in composed.model:
            raise ConfigError(
                f"{job.preset} has no ROI heads: PROTOCOL=heads is for presets of Faster R-CNN, "
                "leave the others out of EXPS"
            )
    return jobs


def make_trunk(cfg: DictConfig, overrides: list[str]) -> Path:
    """Returns the checkpoint of the trunk that all heads share; trains it if none is given."""
    if cfg.ablation.trunk:
        return Path(cfg.ablation.trunk).resolve()
    folder = Path(cfg.out).resolve() / "trunk"
    # What is said of the heads may not fit those that the trunk is trained with.
    common = [o for o in overrides if not o.lstrip("+~").startswith("model.roi_heads.")]
    common.append("ablation.protocol=end_to_end")
    own = [f"experiment={cfg.ablation.trunk_preset}", f"out={quoted(folder)}", "test=false"]
    job = Job(cfg.ablation.trunk_preset, cfg.seed, folder, (*common, *own))
    with FileLock(folder.parent / ".trunk.lock"):
        job.check_same()
        if "steps" not in read_facts(job):
            print(f"trunk: training {job.preset} end to end -> {folder}", flush=True)
            run_end_to_end(job.compose())
    return folder / "checkpoints" / "best.ckpt"


class Worker:
    """Takes jobs until none is left that no other process has.

    Args:
        cfg: the ablation's config.
        jobs: all jobs.
        trunk: checkpoint of the trunk; null for ``end_to_end``.
    """

    def __init__(self, cfg: DictConfig, jobs: list[Job], trunk: Path | None) -> None:
        self.jobs = jobs
        self.trunk = trunk
        self.caches = Path(cfg.out).resolve() / "cache"
        self.failed: set[Path] = set()
        self.began = cfg.ablation.worker or time.time()
        self.progress = Progress(jobs)

    def run(self) -> None:
        """Runs the jobs; a failing one does not stop the others.

        Raises:
            KeyboardInterrupt: after what was trained has been saved.
        """
        while True:
            waiting = [j for j in self.jobs if not j.done and j.out not in self.failed]
            if not any(self._try(job) for job in waiting):
                return

    def _try(self, job: Job) -> bool:
        with job.claim() as mine:
            if mine and job.failure.is_file() and job.failure.stat().st_mtime > self.began:
                self.failed.add(job.out)  # by another process of the same command
            elif mine:
                print(f"\n{job.preset} seed {job.seed}", flush=True)
                job.failure.unlink(missing_ok=True)
                try:
                    if self.trunk is None:
                        run_end_to_end(job.compose())
                    else:
                        run_heads(job.compose(), self.trunk, self.caches)
                except (UserError, OSError, RuntimeError) as error:
                    # Out of memory or of disk: the next job may be smaller, or find more.
                    if not isinstance(error, UserError):
                        traceback.print_exc()
                    self.failed.add(job.out)
                    text = message(error) if isinstance(error, UserError) else one_line(error)
                    job.failure.write_text(text + "\n", encoding="utf-8")
                    print(f"failed: {text}", flush=True)
                self.progress.tell()
            return mine


def run_workers(cfg: DictConfig, jobs: list[Job], overrides: list[str], trunk: Path | None) -> None:
    """Spreads the jobs over ``ablation.jobs`` processes and tells of each one that is done."""
    logs = Path(cfg.out).resolve() / "logs"
    logs.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "deepacc_lightning.ablation", *overrides]
    command += [f"ablation.worker={time.time()}", "callbacks.progress=null"]
    if trunk is not None:
        command.append(f"ablation.trunk={quoted(trunk)}")
    threads = max(1, torch.get_num_threads() // cfg.ablation.jobs)
    environment = {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads), **os.environ}
    workers = []
    progress = Progress(jobs)
    try:
        for number in range(cfg.ablation.jobs):
            with (logs / f"worker{number}.log").open("a", encoding="utf-8") as log:
                workers.append(subprocess.Popen(command, stdout=log, stderr=log, env=environment))
        print(f"{len(workers)} processes, their output is in {logs}", flush=True)
        while any(worker.poll() is None for worker in workers):
            progress.tell()
            time.sleep(0.5)
    except KeyboardInterrupt:
        for worker in workers:
            worker.send_signal(signal.SIGINT)
        for worker in workers:
            worker.wait()
        raise
    progress.tell()
    for number, worker in enumerate(workers):
        if worker.returncode:
            log = logs / f"worker{number}.log"
            print(f"worker {number} ended with status {worker.returncode}: see {log}", flush=True)


class Progress:
    """Prints a line for each job that got done, with the time left.

    Args:
        jobs: all jobs; those that are done already are not told.
    """

    def __init__(self, jobs: list[Job]) -> None:
        self.jobs = jobs
        self.told = {job.out for job in jobs if job.done}
        self.before = len(self.told)
        self.began = time.monotonic()

    def tell(self) -> None:
        """Prints what got done since the last call."""
        for job in self.jobs:
            if job.out in self.told or not job.done:
                continue
            self.told.add(job.out)
            elapsed = time.monotonic() - self.began
            left = elapsed / (len(self.told) - self.before) * (len(self.jobs) - len(self.told))
            values = read_metrics(job)
            numbers = "  ".join(f"{k} {values[k]:6.2f}" for k in ("map50", "acc", "aer"))
            print(
                f"[{len(self.told)}/{len(self.jobs)}] {job.preset:<12} seed {job.seed}  {numbers}"
                f"  {format_duration(left)} left",
                flush=True,
            )


def run(overrides: list[str]) -> AblationResult | None:
    """Runs the ablation that the overrides describe, or continues it.

    Returns:
        The comparison; none in a process that was started by another one, or while other
        processes still have jobs.

    Raises:
        UserError: bad input, or a job failed.
    """
    check_arguments(overrides)
    train.quiet()
    cfg = compose_own(overrides)
    check_data_root(cfg, several=True)
    check_accelerator(cfg.trainer.accelerator)
    check_settings(cfg)
    jobs = plan(cfg, overrides)
    data = train.build_datamodule(cfg).info().fingerprint
    if cfg.ablation.trunk:
        read_checkpoint(cfg.ablation.trunk)
    out = make_run_dir(Path(cfg.out).resolve())
    for job in jobs:
        job.check_same()
    heads = cfg.ablation.protocol == "heads"
    trunk = make_trunk(cfg, overrides) if heads else None
    print_of_trunk = fingerprint(trunk_weights(read_checkpoint(trunk)["model"])) if trunk else None
    for job in jobs:
        job.check_origin(data, print_of_trunk)
    worker = Worker(cfg, jobs, trunk)
    if cfg.ablation.worker:
        worker.run()
        return None
    done = sum(job.done for job in jobs)
    print(f"{cfg.ablation.protocol}: {len(jobs)} jobs, {done} done -> {out}", flush=True)
    if cfg.ablation.jobs > 1 and done < len(jobs):
        if trunk is not None:
            prepare_heads(jobs[0].compose(), trunk, worker.caches)
        run_workers(cfg, jobs, overrides, trunk)
    else:
        worker.run()
    return conclude(cfg, jobs, trunk)


def compose_own(overrides: list[str]) -> DictConfig:
    """Composes the config of the ablation itself, whatever presets the overrides are for."""
    try:
        return compose_config("ablation", overrides)
    except (HydraException, OmegaConfBaseException):
        # An override of a part that the default preset lacks: which presets there are is needed.
        own = [o for o in overrides if not o.lstrip("+~").startswith("model.")]
        return compose_config("ablation", own)


def conclude(cfg: DictConfig, jobs: list[Job], trunk: Path | None) -> AblationResult | None:
    """Reports, unless other processes are still at it.

    Raises:
        JobsFailedError: some jobs failed; the report is of the others.
    """
    undone = [job for job in jobs if not job.done]
    elsewhere = [job for job in undone if job.claimed]
    if elsewhere:
        print(
            f"{len(elsewhere)} jobs are with other processes; the last one to end reports, or run "
            "the same command again",
            flush=True,
        )
        return None
    result = None
    if len(undone) < len(jobs):
        with FileLock(Path(cfg.out).resolve() / ".report.lock"):
            result = report(cfg, jobs, trunk)
    if undone:
        first = undone[0]
        why = first.failure.read_text("utf-8").strip() if first.failure.is_file() else "see above"
        raise JobsFailedError(
            f"{len(undone)} of {len(jobs)} jobs are not done, first {first.preset} seed "
            f"{first.seed}: {why}; the same command tries them again"
        )
    return result


def main() -> None:
    """Entry point; exits 2 on bad input and 130 on Ctrl-C, with one line each."""
    began = time.monotonic()
    overrides = sys.argv[1:]
    try:
        run(overrides)
    except UserError as error:
        fail(error)
    except (HydraException, OmegaConfBaseException) as error:
        fail(ConfigError(one_line(error)))
    except OSError as error:
        fail(UserError(f"{error.filename or 'disk'}: {error.strerror or error}"))
    except KeyboardInterrupt:
        interrupted()
    print(f"done in {format_duration(time.monotonic() - began)}", flush=True)


if __name__ == "__main__":
    main()
