from __future__ import annotations

import subprocess
import sys

import pytest

from deepacc_lightning.jobs.drawing import PRELOADED, drawing_pool

HEAVY = {"torch", "numpy", "cv2", "matplotlib", "pytorch_lightning", "hydra"}
"""Packages that take long to import."""

START = """
import multiprocessing.forkserver, sys
from deepacc_lightning.jobs.drawing import drawing_pool, start_server
start_server()
began = multiprocessing.forkserver._forkserver._forkserver_pid
print(*sorted(name for name in sys.modules if "." not in name))
with drawing_pool(2) as pool:
    print(pool.submit(eval, "__import__('os').getppid()").result() == began)
"""


def test_the_server_starts_before_any_library_is_imported() -> None:
    ran = subprocess.run(
        [sys.executable, "-c", START], capture_output=True, text=True, check=True, timeout=120
    )
    names, same = ran.stdout.splitlines()
    assert not HEAVY & set(names.split())
    assert same == "True"  # its processes come from the server that was started first


@pytest.mark.slow
def test_drawing_processes_have_what_they_draw_with_and_not_the_program() -> None:
    with drawing_pool(1) as pool:
        # Of builtins alone, since a process does not find this file by its name.
        names = pool.submit(eval, "sorted(__import__('sys').modules)").result()
        threads = pool.submit(eval, "__import__('torch').get_num_threads()").result()
    assert set(PRELOADED) <= set(names)
    assert "deepacc_lightning.predict" not in names
    assert "pytorch_lightning" not in names
    assert threads == 1
