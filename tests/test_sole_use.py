import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from deepacc_d2.errors import ConfigError
from deepacc_d2.files import whole_directory
from deepacc_d2.sole_use import FOREVER, OccupiedError, is_in_use, lock_of, sole_use

HOLD = """
import sys, time
from deepacc_d2.sole_use import sole_use
with sole_use(sys.argv[1]):
    print("held", flush=True)
    time.sleep(120)
"""
FORK = """
import multiprocessing, sys, time
from deepacc_d2.sole_use import sole_use
with sole_use(sys.argv[1]):
    child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(120,))
    child.start()
    print(child.pid, flush=True)
    time.sleep(120)
"""


def start(program, place, **environment):
    """Starts a process that holds a place, and returns it with its first line."""
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(place), "--token", "abcdefgh"],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
    )
    return process, process.stdout.readline().strip()


def test_a_second_process_is_told_which_one_has_the_place(tmp_path):
    process, _ = start(HOLD, tmp_path / "out", DEEPACC_COMMAND="make train PASSWORD=geheim")
    try:
        with pytest.raises(OccupiedError) as raised, sole_use(tmp_path / "out"):
            pass
        said = str(raised.value)
        assert "\n" not in said
        assert f"process {process.pid} " in said
        assert "make train" in said
        assert "geheim" not in said
        assert is_in_use(tmp_path / "out")
        with sole_use(tmp_path / "other"):  # its neighbor is free
            pass
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_a_killed_process_leaves_the_place_to_the_next(tmp_path):
    process, _ = start(HOLD, tmp_path / "out")
    process.kill()
    process.wait()
    process.stdout.close()
    assert lock_of(tmp_path / "out").is_file()
    assert not is_in_use(tmp_path / "out")
    with sole_use(tmp_path / "out"):
        assert is_in_use(tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_process_forked_does_not_keep_the_place(tmp_path):
    process, child = start(FORK, tmp_path / "out")
    process.kill()
    process.wait()
    process.stdout.close()
    try:
        with sole_use(tmp_path / "out"):
            pass
    finally:
        os.kill(int(child), signal.SIGKILL)


def test_within_itself_a_job_may_ask_again_but_another_thread_may_not(tmp_path):
    refused = []

    def try_it():
        try:
            with sole_use(tmp_path / "out"):
                pass
        except OccupiedError as error:
            refused.append(error)

    with sole_use(tmp_path / "out"), sole_use(tmp_path / "x" / ".." / "out"):
        thread = threading.Thread(target=try_it)
        thread.start()
        thread.join()
    assert len(refused) == 1
    try_it()
    assert len(refused) == 1


def test_nothing_is_left_behind_but_what_was_written(tmp_path):
    with sole_use(tmp_path / "a" / "b" / "out"):
        pass
    assert not (tmp_path / "a").exists()
    with sole_use(tmp_path / "a" / "b" / "out"):
        (tmp_path / "a" / "b" / "out").mkdir()
    assert [path.name for path in (tmp_path / "a" / "b").iterdir()] == ["out"]


def test_waiting_ends_when_the_other_does(tmp_path):
    with (
        pytest.raises(OccupiedError),
        multiprocessing.get_context("spawn").Pool(1) as pool,
        sole_use(tmp_path / "out"),
    ):
        pool.apply(enter, (tmp_path / "out", 0.0))
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        with sole_use(tmp_path / "out"):
            waiting = pool.apply_async(enter, (tmp_path / "out", FOREVER))
            time.sleep(0.5)
            left = time.time()
        assert waiting.get(timeout=60) >= left


def enter(place, wait):
    with sole_use(place, wait=wait):
        return time.time()


def test_a_place_that_cannot_be_written_is_reported(tmp_path):
    (tmp_path / "file").write_text("x")
    with (
        pytest.raises(ConfigError, match=r"cannot be written .*OUT="),
        sole_use(tmp_path / "file" / "out"),
    ):
        pass


def test_a_mount_keeps_its_lock_inside(tmp_path, monkeypatch):
    place = tmp_path / "mounted"
    place.mkdir()
    monkeypatch.setattr(os, "access", lambda path, mode: path != tmp_path)
    with sole_use(place):
        assert (place / ".lock").is_file()


def test_a_directory_that_is_written_as_a_whole_is_one_jobs(tmp_path):
    process, _ = start(HOLD, tmp_path / "out")
    try:
        with (
            pytest.raises(OccupiedError, match=str(process.pid)),
            whole_directory(tmp_path / "out", overwrite=True) as folder,
        ):
            assert not folder
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
