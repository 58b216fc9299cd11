"""What the torture campaign counts and repeats; the campaign itself is no part of the tests."""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest

BUSY = "import time\nwhile time.process_time() < 0.6: pass\ntime.sleep(60)"
AND_ITS_CHILD = f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {BUSY!r}])"


@pytest.fixture
def campaign(monkeypatch: pytest.MonkeyPatch):
    """Imports a module of tests/torture as its runner does."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent / "torture"))

    def load(name: str) -> ModuleType:
        monkeypatch.delitem(sys.modules, name, raising=False)
        return import_module(name)

    return load


def test_time_of_a_process_and_of_those_below_it(campaign) -> None:
    programs = campaign("programs")
    process = subprocess.Popen([sys.executable, "-c", AND_ITS_CHILD], start_new_session=True)
    try:
        until = time.monotonic() + 60
        while programs.tree_time(process.pid) < 0.6:
            assert time.monotonic() < until
            time.sleep(0.05)
        assert programs.session_time(process.pid) >= 0.6
        assert programs.tree_time(process.pid) < 5
    finally:
        for pid in programs._of_session(process.pid):
            subprocess.run(["kill", "-9", str(pid)], check=True)
        process.wait()


@pytest.mark.parametrize(
    ("code", "most", "expected"),
    [
        ("import sys; sys.exit(3)", 60.0, 3),
        ("while True: pass", 0.5, "hung"),
        ("import time; time.sleep(60)", 60.0, "hung"),
    ],
)
def test_a_part_that_takes_too_much_or_nothing_is_ended(
    campaign, monkeypatch, code: str, most: float, expected: object
) -> None:
    run = campaign("run")
    monkeypatch.setattr(run, "STALLED", 3.0)
    assert run.wait(subprocess.Popen([sys.executable, "-c", code]), most) == expected


@pytest.mark.parametrize(
    ("done", "failed", "seed", "again"),
    [(4, False, 1, False), (3, False, 1, True), (4, True, 1, True), (4, False, 2, True)],
)
def test_only_a_part_that_tried_everything_and_passed_is_not_repeated(  # noqa: PLR0917
    campaign, monkeypatch, tmp_path, done: int, failed: bool, seed: int, again: bool
) -> None:
    run, part = campaign("run"), campaign("part")
    failures = [part.Failure("a", "b")] if failed else []
    result = part.Result("soak", seed, 4, done=done, failures=failures, complete=True)
    result.save(tmp_path / "soak.json")
    started: list[str] = []
    monkeypatch.setattr(run.subprocess, "Popen", lambda command, **_: started.append("soak"))
    monkeypatch.setattr(run, "namespace", list)
    monkeypatch.setattr(run, "wait", lambda process, most: 0)
    run.start_part("soak", 1.0, argparse.Namespace(out=tmp_path, seed=1, goal=None))
    assert bool(started) == again


def test_time_of_a_part_is_that_of_processors(campaign, tmp_path) -> None:
    made = campaign("part").Part(
        "soak", 4, seed=1, seconds=0.0, work=tmp_path, path=tmp_path / "soak.json"
    )
    made.seconds = made.used() + 0.5
    time.sleep(0.6)
    assert made.has_time
    until = time.process_time() + 0.6
    while time.process_time() < until:
        pass
    assert not made.has_time
    made.tried(4)
    assert campaign("part").Result.load(tmp_path / "soak.json").processor >= 0.6
