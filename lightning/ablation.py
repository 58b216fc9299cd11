"""``make ablation``: every preset of Table 1 with several seeds, and the table of it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from omegaconf import DictConfig, ListConfig

from deepacc_d2.errors import ConfigError, UserError
from deepacc_d2.evaluation.ablation_report import AblationResult
from deepacc_lightning import train
from deepacc_lightning.ablation_jobs import (
    Job,
    prepare_heads,
    read_facts,
    read_metrics,
    run_end_to_end,
    run_heads,
)
from deepacc_lightning.ablation_report import report
from deepacc_lightning.callbacks import format_duration
from deepacc_lightning.cli import (
    check_accelerator,
    check_data_root,
    check_overrides,
    fail,
    interrupted,
    message,
)
from deepacc_lightning.config import compose_config, config_dir, quoted
from deepacc_lightning.run_info import make_run_dir

PROTOCOLS = ("heads", "end_to_end")
OWN = ("experiment", "preset", "seed", "ckpt_path", "init_trunk", "test")
"""Keys that differ from job to job, or that every job needs as they are."""
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
    for override in overrides:
        key = override.partition("=")[0].lstrip("+~")
        if key in OWN:
            raise ConfigError(
                f"{key} is set by the ablation for each of its jobs: use EXPS, SEEDS or CKPT of "
                "make ablation (ablation.presets, ablation.seeds, ablation.trunk)"
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


def plan(cfg: DictConfig, overrides: list[str]) -> list[Job]:
    """Lists the jobs: all presets with the first seed, then with the next.

    Raises:
        ConfigError: an unknown protocol or preset, no seeds, no processes.
    """
    settings = cfg.ablation
    if settings.protocol not in PROTOCOLS:
        raise ConfigError(f"ablation.protocol={settings.protocol}: choose {' or '.join(PROTOCOLS)}")
    if not isinstance(settings.jobs, int) or settings.jobs < 1:
        raise ConfigError(f"ablation.jobs={settings.jobs}: expected a number of processes")
    exist = sorted(p.stem for p in (Path(config_dir()) / "experiment").glob("*.yaml"))
    unknown = [p for p in settings.presets if p not in exist]
    if unknown or not settings.presets:
        raise ConfigError(
            f"ablation.presets: unknown preset {', '.join(unknown) or '(none given)'}: there is "
            f"{', '.join(exist)}"
        )
    out = Path(cfg.out).resolve()
    common = list(overrides)
    if settings.protocol == "heads":
        common += HEADS_OVERRIDES
    elif settings.trunk:
        common += [f"init_trunk={quoted(Path(settings.trunk).resolve())}"]
    jobs = []
    for seed in seeds_of(settings.seeds):
        for preset in dict.fromkeys(settings.presets):
            folder = out / preset / f"seed{seed}"
            own = [f"experiment={preset}", f"seed={seed}", f"out={quoted(folder)}"]
            jobs.append(Job(preset, seed, folder, (*common, *own)))
    return jobs


def make_trunk(cfg: DictConfig, overrides: list[str]) -> Path:
    """Returns the checkpoint of the trunk that all heads share; trains it if none is given."""
    if cfg.ablation.trunk:
        return Path(cfg.ablation.trunk).resolve()
    folder = Path(cfg.out).resolve() / "trunk"
    own = [f"experiment={cfg.ablation.trunk_preset}", f"out={quoted(folder)}", "test=false"]
    job = Job(cfg.ablation.trunk_preset, cfg.seed, folder, (*overrides, *own))
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
            if mine:
                print(f"\n{job.preset} seed {job.seed}", flush=True)
                job.failure.unlink(missing_ok=True)
                try:
                    if self.trunk is None:
                        run_end_to_end(job.compose())
                    else:
                        run_heads(job.compose(), self.trunk, self.caches)
                except UserError as error:
                    self.failed.add(job.out)
                    job.failure.write_text(message(error) + "\n", encoding="utf-8")
                    print(f"failed: {message(error)}", flush=True)
                self.progress.tell()
            return mine


def run_workers(cfg: DictConfig, jobs: list[Job], overrides: list[str], trunk: Path | None) -> None:
    """Spreads the jobs over ``ablation.jobs`` processes and tells of each one that is done."""
    logs = Path(cfg.out).resolve() / "logs"
    logs.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "deepacc_lightning.ablation", *overrides]
    command += ["ablation.worker=true", "callbacks.progress=null"]
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
    broken = [n for n, worker in enumerate(workers) if worker.returncode not in (0, 2)]
    if broken:
        raise JobsFailedError(
            f"worker {broken[0]} ended with status {workers[broken[0]].returncode}: see "
            f"{logs / f'worker{broken[0]}.log'}; the same command goes on with what is left"
        )


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
    """Runs the ablation that the overrides describe, or goes on with it.

    Returns:
        The comparison; none in a process that was started by another one.

    Raises:
        UserError: bad input, or a job failed.
    """
    check_arguments(overrides)
    train.quiet()
    cfg = compose_config("ablation", overrides)
    check_data_root(cfg)
    check_accelerator(cfg.trainer.accelerator)
    jobs = plan(cfg, overrides)
    out = make_run_dir(Path(cfg.out).resolve())
    for job in jobs:
        job.check_same()
    trunk = make_trunk(cfg, overrides) if cfg.ablation.protocol == "heads" else None
    worker = Worker(cfg, jobs, trunk)
    if cfg.ablation.worker:
        worker.run()
        return None
    done = sum(job.done for job in jobs)
    print(f"{cfg.ablation.protocol}: {len(jobs)} jobs, {done} done -> {out}", flush=True)
    if cfg.ablation.jobs > 1 and done < len(jobs):
        # Once, before there are many: the data set that is drawn, the trunk's features.
        if trunk is None:
            train.build_datamodule(cfg)
        else:
            prepare_heads(jobs[0].compose(), trunk, worker.caches)
        run_workers(cfg, jobs, overrides, trunk)
    else:
        worker.run()
    failed = [job for job in jobs if not job.done]
    result = report(cfg, jobs, trunk) if len(failed) < len(jobs) else None
    if failed:
        first = failed[0]
        why = first.failure.read_text("utf-8").strip() if first.failure.is_file() else "unknown"
        raise JobsFailedError(
            f"{len(failed)} of {len(jobs)} jobs are not done, first {first.preset} seed "
            f"{first.seed}: {why}; the same command tries them again"
        )
    return result


def main() -> None:
    """Entry point; exits 2 on bad input and 130 on Ctrl-C, with one line each."""
    began = time.monotonic()
    overrides = sys.argv[1:]
    try:
        check_overrides("ablation", overrides)
        run(overrides)
    except UserError as error:
        fail(error)
    except KeyboardInterrupt:
        interrupted()
    print(f"done in {format_duration(time.monotonic() - began)}", flush=True)


if __name__ == "__main__":
    main()
