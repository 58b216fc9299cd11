"""Runs the jobs of a sweep by Hydra's launchers, and tells of each one that is done."""

from __future__ import annotations

import importlib.util
import logging
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from hydra._internal.callbacks import Callbacks
from hydra.core.global_hydra import GlobalHydra
from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, RunMode, TaskFunction
from omegaconf import DictConfig

from deepacc_d2.errors import UserError
from deepacc_lightning.core.config import quoted
from deepacc_lightning.jobs.sweep_jobs import SweepJob, reason_of, train_one
from deepacc_lightning.jobs.sweep_plan import Sweep, short_names
from deepacc_lightning.training.callbacks import format_duration

PLUGINS = {
    "joblib": ("hydra_plugins.hydra_joblib_launcher", "joblib"),
    "submitit": ("hydra_plugins.hydra_submitit_launcher", "submitit"),
    "ray": ("hydra_plugins.hydra_ray_launcher", "ray"),
    "optuna": ("optuna",),
}
"""Modules of each optional extra of this project that a sweep uses."""
WEEK = 7 * 24 * 60
"""Minutes after which submitit ends a local job; its default of an hour is meant for Slurm."""


class MissingExtraError(UserError):
    """An optional extra is not installed."""


def check_extra(name: str, variable: str) -> None:
    """Checks that an optional extra is installed.

    Args:
        name: of the extra.
        variable: what asked for it, such as ``LAUNCHER=joblib``.

    Raises:
        MissingExtraError: names the command that installs it.
    """
    for module in PLUGINS.get(name, ()):
        try:
            found = importlib.util.find_spec(module) is not None
        except ModuleNotFoundError:
            found = False
        if not found:
            raise MissingExtraError(
                f"{variable} needs {module.rpartition('.')[2]}, which is not installed: make setup "
                f"EXTRAS={name}"
            )


def launcher_overrides(settings: DictConfig, given: Sequence[str]) -> list[str]:
    """Returns the overrides of Hydra's own config that choose a launcher.

    Args:
        settings: the ``sweep`` node.
        given: what the user said of the launcher; it goes last, and holds.
    """
    jobs, cores = settings.jobs, os.cpu_count() or 1
    plain = [f"hydra/launcher={settings.launcher}"]
    if settings.launcher == "joblib":
        plain += [f"hydra.launcher.n_jobs={jobs}"]
    elif settings.launcher == "submitit" and shutil.which("sbatch"):
        plain = ["hydra/launcher=submitit_slurm", f"hydra.launcher.array_parallelism={jobs}"]
    elif settings.launcher == "submitit":
        plain = ["hydra/launcher=submitit_local", f"hydra.launcher.timeout_min={WEEK}"]
        plain += [f"hydra.launcher.gpus_per_node={torch.cuda.device_count()}"]
    elif settings.launcher == "ray":
        plain += ["++hydra.launcher.ray.init.log_to_driver=false"]
        plain += [f"++hydra.launcher.ray.init.logging_level={logging.ERROR}"]
        if not any("ray.init.address" in text for text in given):
            # A Ray of our own: as many places as jobs, each with its share of the cores.
            plain += [f"++hydra.launcher.ray.init.num_cpus={max(cores, jobs)}"]
            plain += ["++hydra.launcher.ray.init.include_dashboard=false"]
            plain += [f"++hydra.launcher.ray.remote.num_cpus={max(1, cores // jobs)}"]
    return [*plain, *given]


class Progress(threading.Thread):
    """Prints a line for each job that got done or failed, with the time left.

    Args:
        total: how many jobs there are to be in all.
        began: when the command began, in seconds since the epoch.
    """

    def __init__(self, total: int, began: float) -> None:
        super().__init__(daemon=True)
        self.total = total
        self.began = began
        self.before = 0
        self.told: dict[Path, bool] = {}
        self.jobs: dict[Path, SweepJob] = {}
        # Jobs in this process print into their logs meanwhile.
        self.stream = sys.stdout
        self._ended = threading.Event()
        self._lock = threading.Lock()

    def add(self, jobs: Sequence[SweepJob]) -> None:
        """Takes jobs in; of those that are done already nothing is told."""
        with self._lock:
            for job in jobs:
                if job.out not in self.jobs and job.done:
                    self.told[job.out] = True
                    self.before += 1
                self.jobs[job.out] = job

    def run(self) -> None:
        """Looks once a second."""
        while not self._ended.wait(1.0):
            self.tell()

    def tell(self) -> None:
        """Prints what happened since the last call."""
        with self._lock:
            for out, job in self.jobs.items():
                if out in self.told:
                    continue
                if job.done:
                    result = job.result()
                    text = f"map50 {result['objective']:6.2f}  {format_duration(result['seconds'])}"
                    self._line(job, f"{text}  {self._left()} left")
                elif job.failed_since(self.began):
                    self._line(job, f"failed: {job.reason()}")

    def _left(self) -> str:
        ended = len(self.told) + 1
        each = (time.time() - self.began) / max(1, ended - self.before)
        return format_duration(each * max(0, self.total - ended))

    def _line(self, job: SweepJob, text: str) -> None:
        self.told[job.out] = job.done
        place = f"[{len(self.told)}/{self.total}]"
        print(f"{place} {values_text(job)}  {text}", file=self.stream, flush=True)

    def __enter__(self) -> Progress:
        """Starts looking."""
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        """Stops looking, after a last look."""
        self._ended.set()
        self.join()
        self.tell()


def values_text(job: SweepJob) -> str:
    """Returns a job's values for people, such as ``alpha=0.1 m=0.25``."""
    values = dict(job.values)
    return " ".join(f"{short}={values[key]}" for key, short in short_names(values).items())


class JobSweeper(Sweeper):
    """A sweeper of Hydra's, for jobs of which some may be done, taken, or fail.

    Hydra's own for grids starts every job each time, and ends at the first one that fails. This one
    takes the jobs as they were planned, leaves out what is done, and goes on until none is left.
    Built here and not by Hydra, which takes sweepers from ``hydra_plugins`` packages only.

    Args:
        sweep: the sweep.
        began: when the command began, in seconds since the epoch.
        progress: is told of the jobs.
    """

    def __init__(self, sweep: Sweep, began: float, progress: Progress) -> None:
        self.plan = sweep
        self.began = began
        self.progress = progress
        self.stop = sweep.folder / f".stop-{os.getpid()}-{int(began * 1000)}"
        self.asked_to_stop = False
        self._next = 0
        settings = sweep.cfg.sweep
        hydra = GlobalHydra.instance().hydra
        assert hydra is not None
        own = [f"sweep.dir={quoted(sweep.folder)}", *sweep.request.fixed]
        config = hydra.compose_config(
            "sweep",
            [*launcher_overrides(settings, sweep.request.hydra), *own],
            run_mode=RunMode.MULTIRUN,
            with_log_configuration=False,
        )
        context = HydraContext(config_loader=hydra.config_loader, callbacks=Callbacks(config))
        self.setup(hydra_context=context, task_function=train_one, config=config)
        # Processes of submitit start all at once.
        local = "LocalLauncher" in config.hydra.launcher._target_
        self.batch = settings.jobs if local else None

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """Makes Hydra's launcher, as Hydra asks of every sweeper."""
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: Sequence[SweepJob]) -> list[SweepJob]:  # type: ignore[override]
        """Runs jobs until each is done or has failed, here or in another process.

        Args:
            arguments: the jobs.

        Returns:
            Those that failed.

        Raises:
            KeyboardInterrupt: Ctrl-C, after the jobs have saved what they trained.
        """
        self.progress.add(arguments)
        suspects: list[SweepJob] = []
        while waiting := self._open(arguments):
            batch = [job for job in waiting if job not in suspects][: self.batch] or waiting[:1]
            started = time.time()
            lost = self._launch(batch)
            self.progress.tell()
            if self.asked_to_stop:
                raise KeyboardInterrupt
            self._wait_for_others(batch)
            if not lost:
                continue
            begun = [job for job in batch if job.started_since(started)]
            if not begun:
                raise UserError(f"LAUNCHER={self.plan.cfg.sweep.launcher} started no job: {lost}")
            if len(batch) == 1 and not batch[0].done:
                batch[0].note_failure(f"its process ended: {lost}")
            # A process that dies takes others of the launcher with it: whose fault it was shows
            # when each is run alone.
            suspects += self._open(begun)
        return [job for job in arguments if not job.done]

    def _open(self, jobs: Sequence[SweepJob]) -> list[SweepJob]:
        return [job for job in jobs if not job.done and not job.failed_since(self.began)]

    def _launch(self, jobs: Sequence[SweepJob]) -> str:
        """Launches jobs and waits; returns why the launcher gave up, empty if it did not."""
        own = (f"sweep.began={self.began}", f"sweep.stop={quoted(self.stop)}")
        batch = [[*job.overrides, *own] for job in jobs]
        first, self._next = self._next, self._next + len(batch)
        try:
            with self._stoppable(), shared_cores(self.plan.cfg.sweep.jobs):
                self.launcher.launch(batch, initial_job_idx=first)
        except Exception as error:
            # A process that was killed, for its memory say, is an error of the launcher's.
            return reason_of(error)
        # Left where it is after a second Ctrl-C: jobs that are still waiting must find it.
        self.stop.unlink(missing_ok=True)
        return ""

    def _wait_for_others(self, jobs: Sequence[SweepJob]) -> None:
        told = False
        while claimed := [job for job in self._open(jobs) if job.claimed]:
            if not told:
                names = ", ".join(values_text(job) for job in claimed[:3])
                print(f"waiting for {len(claimed)} jobs of other processes: {names}", flush=True)
                told = True
            time.sleep(1.0)
            self.progress.tell()

    @contextmanager
    def _stoppable(self) -> Iterator[None]:
        """Passes Ctrl-C on to jobs in other processes, and waits until they have saved."""
        here = self.plan.cfg.sweep.launcher == "basic"
        if here or threading.current_thread() is not threading.main_thread():
            yield
            return

        def ask(number: int, frame: FrameType | None) -> None:
            if self.asked_to_stop:
                raise KeyboardInterrupt
            self.asked_to_stop = True
            self.stop.touch()
            text = "\nending the jobs after their present steps; once more ends at once\n"
            sys.stderr.write(text)

        before: Any = signal.signal(signal.SIGINT, ask)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)


@contextmanager
def shared_cores(jobs: int) -> Iterator[None]:
    """Gives processes that are started within their share of the cores."""
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
    before = {name: os.environ.get(name) for name in names}
    if jobs > 1:
        for name in names:
            os.environ.setdefault(name, str(max(1, torch.get_num_threads() // jobs)))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
