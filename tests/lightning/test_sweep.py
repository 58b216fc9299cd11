"""A real grid at tiny size with a job that fails: continuing, sharing, stopping, the report."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from deepacc_d2.errors import ConfigError
from deepacc_d2.evaluation.types import SUMMARY_KEYS
from deepacc_lightning import sweep
from deepacc_lightning.core.config import compose_config
from deepacc_lightning.jobs.job import Job
from deepacc_lightning.jobs.sweep_plan import make_plan
from deepacc_lightning.jobs.train_job import (
    NotValidatedError,
    a_device,
    best_validation,
    reason_of,
    summarize,
)
from deepacc_lightning.reports.sweep_report import format_rows, table_rows, to_csv
from tests.lightning.programs import Programs

GRID = ["experiment=siamese_gia", "alpha=.1,.2", "m=.25,.5"]
# A model of one epoch is sure of nothing, and nothing has no metrics to tell apart.
SURE_OF_NOTHING = "model.roi_heads.box_predictor.test_score_thresh=0.0"
FAILING = "alpha=0.2,m=0.25"


@pytest.fixture(scope="module")
def grid(shared_overrides: list[str], tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("sweep") / "grid"
    return [*shared_overrides, SURE_OF_NOTHING, *GRID, f"sweep.dir={folder}"]


@pytest.fixture(scope="module")
def output(grid: list[str]) -> str:
    """What a grid prints one of whose jobs fails: a checkpoint is there that cannot be read."""
    plan = make_plan(grid)
    plan.folder.mkdir()
    (plan.folder / "sweep.json").write_text(json.dumps(plan.manifest))
    checkpoint = plan.folder / FAILING / "checkpoints" / "last.ckpt"
    checkpoint.parent.mkdir(parents=True)
    checkpoint.write_bytes(b"cut short")
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        jobs = sweep.run(grid)
    assert [job.out.name for job in jobs if not job.done] == [FAILING]
    return printed.getvalue()


@pytest.fixture
def folder(output: str, grid: list[str]) -> Path:
    return Path(grid[-1].partition("=")[2])


def test_one_failed_job_does_not_stop_the_others(output: str, folder: Path) -> None:
    lines = [line for line in output.splitlines() if line.startswith("[")]
    assert [line[:5] for line in lines] == ["[1/4]", "[2/4]", "[3/4]", "[4/4]"]
    assert lines[0].startswith("[1/4] alpha=0.1 m=0.25  map50 ")
    assert lines[0].endswith(" left")
    assert lines[2].startswith("[3/4] alpha=0.2 m=0.25  failed: checkpoint ")
    reason = (folder / FAILING / "failed.txt").read_text()
    assert reason.count("\n") == 1
    assert "last.ckpt is damaged" in reason
    assert "4 jobs, 3 done, 1 failed" in output


def test_a_job_is_a_run_of_make_train(output: str, folder: Path) -> None:
    run = folder / "alpha=0.1,m=0.5"
    facts = json.loads((run / "run.json").read_text())
    assert (facts["status"], facts["preset"], facts["steps"]) == ("finished", "siamese_gia", 3)
    result = json.loads((run / "job.json").read_text())
    assert result["objective"] == facts["best"]["score"]
    assert result["val"]["map50"] == pytest.approx(result["objective"], abs=1e-3)
    assert (
        result["test"]["map50"] == json.loads((run / "test" / "metrics.json").read_text())["map50"]
    )
    config = (run / "config.yaml").read_text()
    assert "group: grid" in config
    assert "sweep:" not in config
    assert "siamese_gia at scale quick on " in (run / "log.txt").read_text()


def test_results_are_sorted_by_validation_and_name_the_best(output: str, folder: Path) -> None:
    results = json.loads((folder / "results.json").read_text())
    scores = [job["objective"] for job in results["jobs"]]
    assert scores[:3] == sorted(scores[:3], reverse=True)
    assert scores[3] is None
    assert results["jobs"][3]["reason"] in (folder / FAILING / "failed.txt").read_text()
    assert results["objective"] == "val/map50"
    best = results["best"]
    assert best["objective"] == scores[0]
    assert best["command"] in output
    with (folder / "results.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["job"] for row in rows] == [job["job"] for job in results["jobs"]]
    assert rows[0]["alpha"] == best["values"]["alpha"]
    assert float(rows[0]["val/aer"]) == best["val"]["aer"]
    assert "nothing was chosen by them" in output
    assert (folder / "comparison" / "compare.csv").is_file()


def stamps(folder: Path) -> dict[str, int]:
    names = ("job.json", "run.json", "best.ckpt", "last.ckpt")
    return {str(p): p.stat().st_mtime_ns for p in folder.glob("*/**/*") if p.name in names}


def test_the_same_command_does_only_what_is_missing(
    grid: list[str], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = stamps(folder)
    (folder / FAILING / "checkpoints" / "last.ckpt").unlink()
    assert all(job.done for job in sweep.run(grid))
    after = stamps(folder)
    changed = {path for path, stamp in after.items() if before.get(path) != stamp}
    assert changed
    assert all(f"/{FAILING}/" in path for path in changed)
    assert not (folder / FAILING / "failed.txt").exists()
    printed = capsys.readouterr().out
    assert "4 jobs, 3 done" in printed
    assert "[4/4] alpha=0.2 m=0.25  map50" in printed
    sweep.run(grid)
    assert stamps(folder) == after


def test_other_settings_are_refused_in_the_same_folder(grid: list[str], folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"delta: 0\.5 there, 0\.7 now"):
        sweep.run([*grid, "delta=0.7"])
    with pytest.raises(ConfigError, match="holds another sweep"):
        sweep.run([*grid, "s=32,64"])


def test_a_job_of_another_process_is_waited_for_and_made_up_if_that_one_dies(
    grid: list[str],
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lost = folder / "alpha=0.1,m=0.5"
    (lost / "job.json").unlink()
    before = stamps(folder)
    lock = FileLock(folder / f".{lost.name}.lock", thread_local=False)
    lock.acquire()  # flock is per open file, so that this process can stand in for another one
    released: list[float] = []

    def release() -> None:
        released.append(time.time())
        lock.release()

    timer = threading.Timer(8, release)
    begin = sweep.running

    def begun(*arguments: Any) -> Any:
        timer.start()  # not before: composing the jobs takes long on a busy machine
        return begin(*arguments)

    monkeypatch.setattr(sweep, "running", begun)
    assert all(job.done for job in sweep.run(grid))
    timer.join()
    assert "waiting for 1 jobs of other processes: alpha=0.1 m=0.5" in capsys.readouterr().out
    assert (lost / "job.json").stat().st_mtime > released[0]
    changed = {path for path, stamp in stamps(folder).items() if before.get(path) != stamp}
    assert all(f"/{lost.name}/" in path for path in changed)


def test_ctrl_c_exits_130_with_what_was_trained_kept(
    shared_overrides: list[str], tmp_path: Path, programs: Programs
) -> None:
    folder = tmp_path / "s"
    overrides = [*shared_overrides, "experiment=sep", "seed=0,1", f"sweep.dir={folder}"]
    overrides += ["scale.max_epochs=200", "scale.check_val_every_n_epoch=50", "test=false"]
    process = programs.start("deepacc_lightning.sweep", *overrides)
    last = folder / "seed=0" / "checkpoints" / "last.ckpt"
    while not last.is_file() and process.poll() is None:
        time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 130, errors
    assert errors.splitlines()[-1] == "interrupted: the same command continues where it was stopped"
    facts = json.loads((folder / "seed=0" / "run.json").read_text())
    assert facts["status"] == "interrupted"
    assert not (folder / "seed=0" / "job.json").exists()
    assert not (folder / "seed=1").exists()


def test_bad_input_of_the_command_line_exits_2_and_writes_nothing(
    shared_overrides: list[str], tmp_path: Path, programs: Programs
) -> None:
    folder = tmp_path / "s"
    overrides = [*shared_overrides, "experiment=sep", "alhpa=1,2", f"sweep.dir={folder}"]
    done = programs.run("deepacc_lightning.sweep", *overrides)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == "error: unknown key alhpa: did you mean alpha?"
    assert not folder.exists()


def test_the_best_validation_is_read_from_the_curve(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    path.write_text(
        "epoch,train/loss,val/map50,val/aer\n0,1.5,,\n0,,10.5,80\n1,,30.25,60\n2,,nan,70\n3,,30.25,50\n"
    )
    assert best_validation(path) == {"epoch": 1.0, "map50": 30.25, "aer": 60.0}
    assert best_validation(tmp_path / "none.csv") == {}


def test_the_objective_is_never_of_the_test_split(tmp_path: Path) -> None:
    (tmp_path / "test").mkdir()
    (tmp_path / "test" / "metrics.json").write_text(json.dumps(dict.fromkeys(SUMMARY_KEYS, 99.0)))
    (tmp_path / "run.json").write_text(json.dumps({"best": None}))
    with pytest.raises(NotValidatedError, match="no validation gave val/map50"):
        summarize(tmp_path, 1.0)
    (tmp_path / "run.json").write_text(json.dumps({"best": {"score": 12.5}}))
    assert summarize(tmp_path, 1.0)["objective"] == 12.5
    # A curve that began after the best validation, as of a job gone on with, is not mixed with it.
    (tmp_path / "csv").mkdir()
    (tmp_path / "csv" / "metrics.csv").write_text("epoch,val/map50,val/aer\n5,11.0,70\n")
    assert summarize(tmp_path, 1.0)["val"] == {"map50": 12.5}


def test_rows_are_sorted_and_test_figures_stay_apart(tmp_path: Path) -> None:
    jobs = []
    for name, objective, test in (("0.1", 40.0, 90.0), ("0.2", 60.0, 10.0), ("0.3", None, None)):
        job = Job("sep", 0, tmp_path / f"m={name}", (), (("m", name),))
        job.out.mkdir()
        if objective is None:
            job.note_failure("no memory")
        else:
            content = {
                "objective": objective,
                "val": {"map50": objective, "aer": 5.0, "epoch": 3.0},
            }
            content |= {"test": dict.fromkeys(SUMMARY_KEYS, test), "seconds": 61.0}
            (job.out / "job.json").write_text(json.dumps(content))
        jobs.append(job)
    rows = table_rows([*jobs, jobs[0]])
    assert [row["job"] for row in rows] == ["m=0.2", "m=0.1", "m=0.3"]
    assert rows[2]["reason"] == "no memory"
    text = format_rows(rows[:2], ["m"])
    assert " ".join(text.splitlines()[0].split()) == (
        "m val map50 val aer val acc epoch time (test map50) (test aer)"
    )
    assert text.splitlines()[2].split() == ["0.2", "60.00", "5.00", "3", "1:01", "10.00", "10.00"]
    table = list(csv.DictReader(io.StringIO(to_csv(rows, ["m"]))))
    assert [row["objective"] for row in table] == ["60.0", "40.0", ""]
    assert table[1]["test/map50"] == "90.0"
    rows[2]["reason"] = rows[2]["values"]["m"] = "=cmd|' /C calc'!A0"
    rows[1]["values"]["m"] = "-0.1"
    table = list(csv.DictReader(io.StringIO(to_csv(rows, ["m"]))))
    assert table[2]["reason"] == table[2]["m"] == "'=cmd|' /C calc'!A0"
    assert table[1]["m"] == "-0.1"


def test_each_job_gets_a_gpu_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cfg = compose_config("train", ["experiment=sep"])
    with a_device(cfg, tmp_path) as device:
        assert device is None  # there are not several
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    with a_device(cfg, tmp_path) as first, a_device(cfg, tmp_path) as second:
        assert {first, second} == {0, 1}
        with a_device(cfg, tmp_path) as third:
            assert third == os.getpid() % 2
    with a_device(cfg, tmp_path) as again:
        assert again == 0
    cfg.trainer.accelerator = "cpu"
    with a_device(cfg, tmp_path) as device:
        assert device is None


def test_reasons_are_one_line(tmp_path: Path) -> None:
    assert reason_of(ConfigError("alpha=-1:\n  no")) == "alpha=-1: no"
    assert reason_of(KeyError("x")) == "KeyError: 'x'"
    assert reason_of(MemoryError()) == "MemoryError"
    assert len(reason_of(ValueError("x " * 999))) < 600
    job = Job("sep", 0, tmp_path, ())
    began = time.time()
    assert not job.failed_since(0)
    job.note_failure("a b")
    assert job.reason() == "a b"
    assert job.failed_since(began)
    assert not job.failed_since(time.time() + 1)
