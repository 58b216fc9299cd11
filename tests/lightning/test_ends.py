"""How runs end in which a process fails or is ended: status, record, last line, no orphans."""

from __future__ import annotations

import csv
import json
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.lightning.programs import Program, Programs

Start = Callable[..., Program]

SAME_SIZE = "[{_target_: detectron2.data.transforms.Resize, shape: [96,96]}]"
TWO = [
    *(f"scale.train_augmentations={SAME_SIZE}", "trainer=ddp_sim", "scale.batch_size=1"),
    "+trainer.enable_progress_bar=false",
]


@pytest.fixture
def start(overrides: list[str], programs: Programs) -> Start:
    """Starts a training."""
    given = [o for o in overrides if not o.startswith("+trainer.")]
    return lambda *more: programs.start("deepacc_lightning.train", *given, *more)


def fails(how: str, **options: object) -> list[str]:
    node = "+callbacks.fails"
    given = [f"{node}.{key}={value}" for key, value in options.items()]
    return [f"{node}._target_=fail_in_process.FailInProcess", f"{node}.how={how}", *given]


def wait_until(reached: Callable[[], bool], seconds: float = 600) -> None:
    until = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < until
        time.sleep(0.2)


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


@pytest.mark.parametrize(
    ("how", "status", "lines"),
    [
        ("error", 2, ["error (process 1): image 7.png is cut short", "error: process 1 failed"]),
        ("bug", 1, ["ZeroDivisionError: division by zero", "error: process 1 failed"]),
        ("kill", 137, ["error: process 1 was ended by SIGKILL"]),
    ],
)
def test_the_other_process_failed(
    start: Start, tmp_path: Path, how: str, status: int, lines: list[str]
) -> None:
    process = start(*TWO, *fails(how), "test=false")
    _, said = process.communicate(timeout=600)
    assert process.returncode == status, said
    for line in lines:
        assert any(one.startswith(line) for one in said.splitlines()), said
    assert said.splitlines()[-1].startswith(lines[-1])
    assert json.loads((tmp_path / "run" / "run.json").read_text())["status"] == "failed"


def test_a_killed_run_leaves_no_process(start: Start, tmp_path: Path) -> None:
    process = start(*TWO, *fails("wait", folder=tmp_path), "test=false")
    wait_until(lambda: (tmp_path / "1").is_file() and (tmp_path / "0").is_file())
    other = int((tmp_path / "1").read_text())
    assert is_alive(other)
    process.kill()
    process.wait()
    wait_until(lambda: not is_alive(other), seconds=60)


@pytest.mark.parametrize("processes", [1, 2])
def test_sigterm_in_the_final_test(
    start: Start, programs: Programs, tmp_path: Path, processes: int
) -> None:
    more = TWO if processes == 2 else ["+trainer.enable_progress_bar=false"]
    process = start(*more, *fails("wait", folder=tmp_path, test="true"))
    wait_until(lambda: all((tmp_path / str(rank)).is_file() for rank in range(processes)))
    pids = [int((tmp_path / str(rank)).read_text()) for rank in range(processes)]
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=300)
    out = tmp_path / "run"
    assert process.returncode == 128 + signal.SIGTERM, said
    assert said.splitlines()[-1].startswith("interrupted by SIGTERM; checkpoint kept in ")
    assert json.loads((out / "run.json").read_text())["status"] == "interrupted"
    assert not any(map(is_alive, pids))
    assert not (out / "test").exists()
    # It goes on with the test alone.
    weights = (out / "checkpoints" / "last.ckpt").read_bytes()
    ends = fails("wait", folder=tmp_path, test="false")
    process = programs.start("deepacc_lightning.train", f"resume={out}", *ends)
    _, said = process.communicate(timeout=600)
    assert process.returncode == 0, said
    facts = json.loads((out / "run.json").read_text())
    assert (facts["status"], facts["epochs"]) == ("finished", 1)
    assert (out / "checkpoints" / "last.ckpt").read_bytes() == weights
    assert (out / "test" / "metrics.json").is_file()
    with (out / "csv" / "metrics.csv").open(newline="", encoding="utf-8") as file:
        assert sum(bool(row["test/map50"]) for row in csv.DictReader(file)) == 1
