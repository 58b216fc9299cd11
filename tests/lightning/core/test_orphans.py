from __future__ import annotations

import os
import subprocess
import sys
import time

PARENT = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", sys.argv[1]])
print(child.pid, flush=True)
time.sleep(120)
"""
CHILD = """
import importlib.util
spec = importlib.util.spec_from_file_location("orphans", {path!r})
orphans = importlib.util.module_from_spec(spec)
spec.loader.exec_module(orphans)
orphans.end_with_parent()
while True:
    pass
"""


def test_a_busy_child_ends_after_its_parent_was_killed() -> None:
    from deepacc_lightning.core import orphans

    child_program = CHILD.format(path=orphans.__file__)
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, child_program], stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    time.sleep(1.5)
    os.kill(child, 0)  # it is there
    parent.kill()
    parent.communicate()
    until = time.monotonic() + 20
    while time.monotonic() < until:
        try:
            state = open(f"/proc/{child}/stat", encoding="utf-8").read().rpartition(")")[2].split()  # noqa: PTH123,SIM115
        except OSError:
            return
        if state[0] == "Z":  # nobody has asked for its status
            return
        time.sleep(0.2)
    os.kill(child, 9)
    raise AssertionError("the child lives on")
