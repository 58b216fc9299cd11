"""Runs jobs by Hydra's launchers, and reports each one that is done."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.plugins import Plugins
from hydra.core.utils import JobStatus
from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, RunMode
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from deepacc_d2.command.table import COMMANDS
from deepacc_d2.command.text import help_of
from deepacc_d2.errors import ConfigError, Terminated, UserError, end_on_sigterm
from deepacc_lightning.core.cli import fail, one_line
from deepacc_lightning.core.config import config_dir, normalized, quoted
from deepacc_lightning.jobs.job import Job
from deepacc_lightning.jobs.launchers import Processes, launcher_overrides, share_cores
from deepacc_lightning.jobs.progress import Progress, values_text
from deepacc_lightning.jobs.train_job import reason_of, train_one
from deepacc_lightning.training.callbacks import format_duration

Result = TypeVar("Result")


@dataclass
class Runner:
    """Runs jobs, of which some may be done, taken, or fail, by a launcher.

    Hydra's own sweeper for grids starts every job each time, and ends at the first one that fails.
    This takes the jobs as they were planned, leaves out what is done, and continues until none is
    left. It is no plugin of Hydra, which takes sweepers from ``hydra_plugins`` packages only.

    Attributes:
        folder: the folder that the jobs' are in; absolute.
        settings: the ``sweep`` node.
        launcher: what starts them.
        progress: gets the jobs.
        waits: whether it waits for jobs that other processes have; it leaves them out otherwise.
    """

    folder: Path
    settings: DictConfig
    launcher: Launcher | Processes
    progress: Progress
    waits: bool = True

    def __post_init__(self) -> None:
        self.began = self.progress.began
        self.stop = self.folder / f".stop-{os.getpid()}-{int(self.began * 1000)}"
        self.asked_to_stop = False
        self._next = 0
        # Submitit's processes on one machine start all at once.
        all_at_once = type(self.launcher).__name__ == "LocalLauncher"
        self._batch = self.settings.jobs if all_at_once else None

    def run(self, jobs: Sequence[Job]) -> list[Job]:
        """Runs jobs until each is done or has failed, here or in another process.

        Returns:
            Those that are not done.

        Raises:
            KeyboardInterrupt: Ctrl-C, after the jobs have saved what they trained.
        """
        self.progress.add(jobs)
        suspects: list[Job] = []
        while waiting := self._open(jobs):
            batch = [job for job in waiting if job not in suspects][: self._batch] or waiting[:1]
            started = time.time()
            lost = self._launch(batch)
            self.progress.tell()
            if self.asked_to_stop:
                raise KeyboardInterrupt
            if self.waits:
                self._wait_for_others(batch)
            if not lost:
                continue
            begun = [job for job in batch if job.started_since(started)]
            if not begun:
                raise UserError(f"LAUNCHER={self.settings.launcher} started no job: {lost}")
            if len(batch) == 1 and not batch[0].done:
                batch[0].note_failure(f"its process ended: {lost}")
            # A process that dies takes others of the launcher with it: whose fault it was shows
            # when each is run alone.
            suspects += self._open(begun)
        return [job for job in jobs if not job.done]

    def _open(self, jobs: Sequence[Job]) -> list[Job]:
        left = [job for job in jobs if not job.done and not job.failed_since(self.began)]
        return left if self.waits else [job for job in left if not job.claimed]

    def _launch(self, jobs: Sequence[Job]) -> str:
        """Launches jobs and waits; returns why the launcher gave up, empty if it did not."""
        own = [f"sweep.launcher={self.settings.launcher}", f"sweep.began={self.began}"]
        own.append(f"sweep.stop={quoted(self.stop)}")
        batch = [[*job.overrides, *own] for job in jobs]
        first, self._next = self._next, self._next + len(batch)
        try:
            with self._stoppable():
                returned = self.launcher.launch(batch, initial_job_idx=first)
        except Exception as error:
            # A process that was killed, for its memory say, is an error of the launcher's.
            return reason_of(error)
        # Left where it is after a second Ctrl-C: jobs that are still waiting must find it.
        self.stop.unlink(missing_ok=True)
        # What a job could not even write down, on a full disk say, Hydra keeps to itself.
        errors = [job._return_value for job in returned or () if job.status == JobStatus.FAILED]
        return reason_of(errors[0]) if errors else ""

    def _wait_for_others(self, jobs: Sequence[Job]) -> None:
        announced = False
        while claimed := [job for job in self._open(jobs) if job.claimed]:
            if not announced:
                names = ", ".join(values_text(job) for job in claimed[:3])
                print(f"waiting for {len(claimed)} jobs of other processes: {names}", flush=True)
                announced = True
            time.sleep(1.0)
            self.progress.tell()

    @contextmanager
    def _stoppable(self) -> Iterator[None]:
        """Passes Ctrl-C on to jobs in other processes, and waits until they have saved."""
        here = self.settings.launcher == "basic"
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
def running(
    folder: Path, cfg: DictConfig, total: int, hydra: Sequence[str] = (), *, waits: bool = True
) -> Iterator[Runner]:
    """Makes a runner, and reports each job that is done.

    Args:
        folder: the folder that the jobs' are in; absolute.
        cfg: the ``sweep`` or ``ablation`` config, which says how to run them.
        total: how many jobs there are to be in all.
        hydra: overrides of Hydra's own config, such as a launcher's options.
        waits: as of :class:`Runner`.
    """
    name, settings = "ablation" if "ablation" in cfg else "sweep", cfg.sweep
    launcher: Launcher | Processes = Processes(name, settings.jobs)
    share_cores(settings.jobs)
    GlobalHydra.instance().clear()
    with initialize_config_dir(config_dir(), version_base="1.3", job_name=name):
        if settings.launcher != "processes":
            loader = GlobalHydra.instance().config_loader()
            overrides = [*launcher_overrides(settings, hydra), f"sweep.dir={quoted(folder)}"]
            config = loader.load_configuration(name, overrides, run_mode=RunMode.MULTIRUN)
            # Hydra's own list of callbacks is private; one that does nothing has its methods.
            callbacks: Any = Callback()
            launcher = Plugins.instance().instantiate_launcher(
                HydraContext(config_loader=loader, callbacks=callbacks), train_one, config
            )
        with Progress(total, time.time()) as progress:
            yield Runner(folder, settings, launcher, progress, waits)


def run_program(run: Callable[[Sequence[str]], Result], name: str) -> Result | None:
    """Runs a program of jobs on its command line, or prints its help.

    Exits 2 on bad input, 130 on Ctrl-C and 143 on SIGTERM, with one line each.
    """
    began = time.monotonic()
    end_on_sigterm()
    if {"--help", "-h"} & set(sys.argv[1:]):
        print(help_of(COMMANDS[name], Path(config_dir())))
        return None
    try:
        result = run(normalized(sys.argv[1:]))
    except UserError as error:
        fail(error)
    except (HydraException, OmegaConfBaseException) as error:
        fail(ConfigError(one_line(error)))
    except OSError as error:
        fail(UserError(f"{error.filename or 'disk'}: {error.strerror or error}"))
    except (KeyboardInterrupt, Terminated) as error:
        print("interrupted: the same command continues where it was stopped", file=sys.stderr)
        sys.exit(143 if isinstance(error, Terminated) else 130)
    print(f"done in {format_duration(time.monotonic() - began)}", flush=True)
    return result
