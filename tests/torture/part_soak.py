"""Thousands of images through one ``predict``, with its memory and open files recorded."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import numpy as np
import programs
import tiny
from part import Part
from trees import half_written

GOAL = 2000
WARM_UP = 0.3
"""Share of the images after which memory must be flat."""
MOST_GROWTH = 0.05
INTERVAL = 2.0
"""Seconds between two looks at the process, which take time of their own."""
DIFFERENT = 50
"""Pictures that are drawn; the others are links to them."""


def run(part: Part) -> None:
    """Predicts, and looks at the process from outside after every few cells."""
    checkpoint = tiny.write_checkpoint(part.work / "tiny.ckpt")
    slides = _slides(part)
    out = part.work / "out"
    arguments = tiny.predict_arguments(checkpoint, slides, out)
    started = programs.Started("deepacc_lightning.predict", arguments, part.work / "run")
    memory: list[float] = []
    opened: list[int] = []
    cells: list[int] = []
    ended = None
    while ended is None:
        ended = started.ended_within(time.monotonic() - started.began + INTERVAL)
        if ended is not None:
            break
        done = _cells(out)
        looked = _look(started.pid)
        if done and looked and (not cells or done > cells[-1]):
            memory.append(looked[0])
            opened.append(looked[1])
            cells.append(done)
            part.tried(done - part.result.done)
        if part.used() + programs.session_time(started.pid) > part.seconds:
            started.kill(whole=True)
            break
    if ended is not None:
        part.expect(not ended.problems(0), "predict", ended.problems(0))
        done = _cells(out)
        part.tried(done - part.result.done)
        part.expect(done == part.result.goal, "predict loses images", done)
    broken = half_written(out)
    part.expect(not broken, "files not whole", broken[:5])
    _judge(part, cells, memory, opened)
    shutil.rmtree(out, ignore_errors=True)


def _slides(part: Part) -> Path:
    """Writes pictures of several sizes and links to them: the reader opens each anew."""
    root = part.work / "slides"
    root.mkdir()
    for number in range(part.result.goal):
        path = root / f"{number:05d}.png"
        if number < DIFFERENT:
            size = (140 + 17 * (number % 7), 120 + 11 * (number % 5))
            tiny.write_picture(path, number, size)
        else:
            os.link(root / f"{number % DIFFERENT:05d}.png", path)
    return root


def _cells(out: Path) -> int:
    return len(list((out / "cells").glob("[!.]*.json")))


def _look(pid: int) -> tuple[float, int] | None:
    """Returns a process's own memory in megabytes, and how many files it has open."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        opened = len(list(Path(f"/proc/{pid}/fd").iterdir()))
    except OSError:
        return None
    # Not what it shares with the process that it was forked from.
    sizes = {line.split(":")[0]: line.split() for line in lines[1:]}
    return float(sizes["Rss"][1]) / 1024, opened


def _judge(part: Part, cells: list[int], memory: list[float], opened: list[int]) -> None:
    """Compares the end with what was after the warm-up, by lines through all that was seen."""
    if not cells or cells[-1] < 50:
        part.note(f"memory and open files: {part.result.done} images are too few")
        return
    late = np.array(cells) >= WARM_UP * cells[-1]
    seen, used, files = (np.array(v)[late] for v in (cells, memory, opened))
    slope, start = np.polyfit(seen, used, 1)
    first, last = slope * seen[0] + start, slope * seen[-1] + start
    part.fact("memory after warm-up and at the end, MB", f"{first:.0f}, {last:.0f}")
    part.fact("growth of memory", f"{100 * (last / first - 1):.2f} %")
    part.fact("most memory, MB", round(max(memory)))
    # Of several looks: one may fall on a moment at which files are written.
    few = max(1, len(files) // 5)
    opened_first, opened_last = np.median(files[:few]), np.median(files[-few:])
    part.fact("open files after warm-up and at the end", f"{opened_first:g}, {opened_last:g}")
    part.expect(last < (1 + MOST_GROWTH) * first, "memory grows", f"{first:.0f} to {last:.0f} MB")
    part.expect(
        opened_last <= opened_first + 2, "open files grow", f"{opened_first:g} to {opened_last:g}"
    )
