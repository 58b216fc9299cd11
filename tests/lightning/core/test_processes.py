from __future__ import annotations

import datetime
import os

import pytest

from deepacc_lightning.core import processes
from deepacc_lightning.core.config import compose_config

SLURM = {"SLURM_NTASKS": "4", "SLURM_JOB_NAME": "train", "SLURM_JOB_ID": "4711"}


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", os.environ.copy())
    for name in list(os.environ):
        if name.startswith(("SLURM_", "TORCHELASTIC_")) or name == processes.RUN_TIME:
            del os.environ[name]


def test_a_run_began_once() -> None:
    before = datetime.datetime.now()
    first = processes.run_time("%Y-%m-%d %H:%M:%S.%f")
    assert before <= datetime.datetime.fromisoformat(first) <= datetime.datetime.now()
    assert processes.run_time("%Y-%m-%d %H:%M:%S.%f") == first


def test_processes_that_inherit_the_environment_agree() -> None:
    os.environ[processes.RUN_TIME] = "2026-01-02"
    assert processes.run_time("%Y") == "2026-01-02"
    cfg = compose_config("train", ["experiment=sep"])
    assert cfg.out == "runs/sep-quick-synthetic/2026-01-02"


def test_a_slurm_job_keeps_its_directory_when_it_is_run_again() -> None:
    os.environ.update(SLURM)
    assert processes.run_time("%Y") == "slurm-4711"
    assert not processes.was_requeued()
    del os.environ[processes.RUN_TIME]
    os.environ["SLURM_RESTART_COUNT"] = "1"
    assert processes.run_time("%Y") == "slurm-4711"
    assert processes.was_requeued()
    del os.environ[processes.RUN_TIME]
    os.environ["SLURM_STEP_ID"] = "2"
    assert processes.run_time("%Y") == "slurm-4711.2"


def test_a_shell_within_a_slurm_allocation_is_no_job() -> None:
    os.environ.update({**SLURM, "SLURM_JOB_NAME": "bash", "SLURM_RESTART_COUNT": "1"})
    assert not processes.was_requeued()
    assert processes.run_time("%Y") == str(datetime.datetime.now().year)


def test_alone_there_is_nothing_to_agree_on() -> None:
    processes.check_same_everywhere("data set", "x", "fix")
    assert processes.rank() == 0
    assert processes.is_main_process()
