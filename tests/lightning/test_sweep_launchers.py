"""Hydra's launchers of other processes, each for real with jobs of seconds."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import threading
import time
from pathlib import Path

import pytest

from deepacc_lightning import sweep

PARALLEL = ["experiment=sep", "seed=0,1", "sweep.jobs=2", "test=false"]


@pytest.fixture
def parallel(shared_overrides: list[str], tmp_path: Path) -> list[str]:
    return [*shared_overrides, *PARALLEL, f"sweep.dir={tmp_path / 's'}"]


def check_done(folder: Path, printed: str) -> None:
    for seed in (0, 1):
        run = folder / f"seed={seed}"
        assert json.loads((run / "run.json").read_text())["status"] == "finished"
        assert "sep at scale quick" in (run / "log.txt").read_text()
    assert "2 jobs, 2 done, 0 failed" in printed


@pytest.mark.parametrize("launcher", ["joblib", "processes"])
def test_processes_stop_by_ctrl_c_with_checkpoints_and_go_on(
    parallel: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], launcher: str
) -> None:
    if launcher == "joblib":
        pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    epochs = ["scale.max_epochs=12", "scale.check_val_every_n_epoch=12"]
    overrides = [*parallel, f"sweep.launcher={launcher}"]
    folder = tmp_path / "s"

    def interrupt() -> None:
        while not list(folder.glob("*/checkpoints/last.ckpt")):
            time.sleep(0.1)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt, daemon=True)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        sweep.run([*overrides, *epochs])
    thread.join()
    assert "ending the jobs after their present steps" in capsys.readouterr().err
    assert not list(folder.glob("*/job.json"))
    saved = sorted(folder.glob("*/checkpoints/last.ckpt"))
    assert saved
    assert not list(folder.glob(".stop*"))
    began = [path.parents[1] for path in saved]
    sweep.run([*overrides, *epochs])
    check_done(folder, capsys.readouterr().out)
    for run in began:
        # Gone on with, not begun anew: the log has both parts, the record all steps.
        assert (run / "log.txt").read_text().count("sep at scale quick") == 2
        assert json.loads((run / "run.json").read_text())["steps"] == 36


def test_submitit_runs_jobs_in_processes_where_there_is_no_slurm(
    parallel: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    monkeypatch.setattr("shutil.which", lambda name: None)
    overrides = [*parallel, "sweep.launcher=submitit"]
    sweep.run(overrides)
    check_done(tmp_path / "s", capsys.readouterr().out)
    assert list((tmp_path / "s" / ".submitit").glob("*/*_result.pkl"))


@pytest.mark.usefixtures("prompt_ray")
def test_ray_runs_jobs_on_a_ray_of_this_machine(
    parallel: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("hydra_plugins.hydra_ray_launcher")
    ray = pytest.importorskip("ray")
    overrides = [*parallel, "sweep.launcher=ray"]
    try:
        sweep.run(overrides)
    finally:
        ray.shutdown()
    check_done(tmp_path / "s", capsys.readouterr().out)


def processes_with(path: Path) -> list[int]:
    """Processes other than this one that have a file open."""
    found = []
    for link in Path("/proc").glob("[0-9]*/fd/*"):
        with contextlib.suppress(OSError):
            if link.readlink() == path:
                found.append(int(link.parts[2]))
    return [pid for pid in found if pid != os.getpid()]


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="looks for processes in /proc")
def test_a_process_that_dies_fails_its_job_alone(
    parallel: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    folder = tmp_path / "s"
    overrides = [*parallel, "sweep.launcher=joblib"]
    victim = folder / "seed=0" / "log.txt"
    ended = threading.Event()

    def kill() -> None:
        # As the kernel does each time that a job takes too much memory.
        while not ended.is_set():
            for pid in processes_with(victim):
                os.kill(pid, signal.SIGKILL)
            time.sleep(0.2)

    thread = threading.Thread(target=kill, daemon=True)
    thread.start()
    jobs = sweep.run(overrides)
    ended.set()
    thread.join()
    assert [job.out.name for job in jobs if not job.done] == ["seed=0"]
    assert jobs[0].reason().startswith("its process ended: TerminatedWorkerError")
    assert re.search(r"\[[12]/2\] seed=1  map50", capsys.readouterr().out)
