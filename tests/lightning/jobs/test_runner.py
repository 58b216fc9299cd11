"""What the runner of jobs does where a launcher gives nothing back."""

from __future__ import annotations

import errno
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from hydra.core.utils import JobReturn, JobStatus
from omegaconf import OmegaConf

from deepacc_lightning.jobs import job as jobs
from deepacc_lightning.jobs.job import Job
from deepacc_lightning.jobs.progress import Progress
from deepacc_lightning.jobs.runner import Runner


class FullDisk:
    """A launcher whose jobs begin and fail; Hydra keeps their errors in what it returns."""

    launched = 0

    def __init__(self, job: Job) -> None:
        self.job = job

    def launch(self, overrides: Sequence[Sequence[str]], initial_job_idx: int) -> list[JobReturn]:
        self.launched += 1
        assert self.launched < 10, "it is launched again and again"
        self.job.out.mkdir(exist_ok=True)
        (self.job.out / "log.txt").touch()
        jobs.stamp(self.job.out / "log.txt")
        returned = JobReturn(status=JobStatus.FAILED)
        returned.return_value = OSError(errno.ENOSPC, "No space left on device")
        return [returned]


def test_jobs_that_cannot_write_down_that_they_failed_end_the_sweep(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = Job("sep", 0, tmp_path / "alpha=0.1", ())

    def full(path: Path, text: str) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(jobs, "write_text", full)
    settings = OmegaConf.create({"jobs": 1, "launcher": "basic"})
    launcher = FullDisk(job)
    with Progress(1, time.time()) as progress:
        runner = Runner(tmp_path, settings, launcher, progress)
        with pytest.raises(OSError, match="No space left"):
            runner.run([job])
    assert launcher.launched == 1
