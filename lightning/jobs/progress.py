"""Prints which jobs are done or have failed, in any process."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from deepacc_lightning.jobs.job import Job
from deepacc_lightning.jobs.sweep_plan import short_names
from deepacc_lightning.training.callbacks import format_duration


class Progress(threading.Thread):
    """Prints a line for each job that is done or has failed, with the time left.

    Args:
        total: how many jobs there are to be in all.
        began: when the command began, in seconds since the epoch.
    """

    def __init__(self, total: int, began: float) -> None:
        super().__init__(daemon=True)
        self.total = total
        self.began = began
        self.before = 0
        self.printed: dict[Path, bool] = {}
        self.jobs: dict[Path, Job] = {}
        # Jobs in this process print into their logs meanwhile.
        self.stream = sys.stdout
        self._ended = threading.Event()
        self._lock = threading.Lock()

    def add(self, jobs: Sequence[Job]) -> None:
        """Takes jobs in; nothing is printed for those that are done."""
        with self._lock:
            for job in jobs:
                if job.out not in self.jobs and job.done:
                    self.printed[job.out] = True
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
                if out in self.printed:
                    continue
                if job.done:
                    self._line(job, f"{job.outcome()}  {self._left()} left")
                elif job.failed_since(self.began):
                    self._line(job, f"failed: {job.reason()}")

    def _left(self) -> str:
        ended = len(self.printed) + 1
        each = (time.time() - self.began) / max(1, ended - self.before)
        return format_duration(each * max(0, self.total - ended))

    def _line(self, job: Job, text: str) -> None:
        self.printed[job.out] = job.done
        place = f"[{len(self.printed)}/{self.total}]"
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


def values_text(job: Job) -> str:
    """Returns a job's values for people, such as ``alpha=0.1 m=0.25``."""
    values = dict(job.values)
    return " ".join(f"{short}={values[key]}" for key, short in short_names(values).items())
