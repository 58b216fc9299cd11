"""Programs whose disk is full: a small tmpfs, and files that may not grow. Then again with room."""

from __future__ import annotations

import resource
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import programs
from part import Part
from part_kill import MAKERS, Program
from trees import differences, half_written, leftovers

GOAL = 30
SMALL = (16, 64, 200, 600, 1500, 4000)
"""Sizes of the disk, KiB."""
LIMITS = (0, 2_000, 20_000, 120_000)
"""Bytes that a file may grow to."""


def run(part: Part) -> None:
    """Runs every program on small disks and with small files."""
    mounts = _can_mount(part.work / "probe")
    if not mounts:
        part.note("a full tmpfs: mounting is not allowed here; files that may not grow stand in")
    names = [name for name in MAKERS if name != "sweep"] + ["sweep"]
    plans: list[tuple[str, str, int]] = []
    for turn in range(max(len(SMALL), len(LIMITS))):
        for name in names:
            if mounts and turn < len(SMALL):
                plans.append((name, "tmpfs", SMALL[turn]))
            if turn < len(LIMITS):
                plans.append((name, "file size", LIMITS[turn]))
    part.rng.shuffle(plans)
    ready: dict[str, tuple[Program, Path]] = {}
    for number, (name, kind, size) in enumerate(plans[: part.result.goal]):
        if not part.has_time:
            break
        if name not in ready:
            ready[name] = _prepare(part, name)
        program, whole = ready[name]
        what = f"{name}, {kind} {size}"
        folder = part.work / f"try{number}"
        if kind == "tmpfs":
            _full_disk(part, program, whole, folder, size, what)
        else:
            _short_files(part, program, whole, folder, size, what)
        part.tried()


def _prepare(part: Part, name: str) -> tuple[Program, Path]:
    work = part.work / name
    work.mkdir()
    program, whole = MAKERS[name](work), work / "whole" / "out"
    ended = programs.run(program.module, program.begin(whole), work / "run")
    part.expect(not ended.problems(0), f"{name} with room", ended.problems(0))
    return program, whole


def _can_mount(folder: Path) -> bool:
    folder.mkdir()
    try:
        _mount(folder, 64)
    except (OSError, subprocess.CalledProcessError):
        return False
    _unmount(folder)
    return True


def _mount(folder: Path, size: int, *options: str) -> None:
    how = ",".join((f"size={size}k", *options))
    command = ["mount", "-t", "tmpfs", "-o", how, "none", str(folder)]
    subprocess.run(command, check=True, capture_output=True)


def _unmount(folder: Path) -> None:
    subprocess.run(["umount", str(folder)], check=True, capture_output=True)


def _full_disk(  # noqa: PLR0917
    part: Part, program: Program, whole: Path, folder: Path, size: int, what: str
) -> None:
    disk = folder / "disk"
    disk.mkdir(parents=True)
    _mount(disk, size)
    try:
        out = disk / "out"
        ended = programs.run(program.module, program.begin(out), folder / "run")
        _check_end(part, ended, out, what)
        _unmount_or_grow(disk)
        _again(part, program, whole, out, folder, what)
    finally:
        _unmount(disk)


def _unmount_or_grow(disk: Path) -> None:
    command = ["mount", "-o", "remount,size=512m", str(disk)]
    subprocess.run(command, check=True, capture_output=True)


def _short_files(  # noqa: PLR0917
    part: Part, program: Program, whole: Path, folder: Path, size: int, what: str
) -> None:
    # What a program prints goes to files as well, which this limit holds for too.
    limits = {resource.RLIMIT_FSIZE: max(size, 1)}
    out = folder / "out"
    ended = programs.run(program.module, program.begin(out), folder / "run", limits=limits)
    if size > 1000:
        _check_end(part, ended, out, what)
    else:
        part.expect(ended.status not in (None, 0), f"{what}: status {ended.status}")
    _again(part, program, whole, out, folder, what)


def _check_end(part: Part, ended: programs.Ended, out: Path, what: str) -> None:
    # A sweep's jobs fail one by one: each says so in a line.
    problems = ended.problems(0, 1, 2) if "sweep" in what else ended.problems(0, 2)
    if "sweep" in what and ended.status == 1 and "lines" in problems:
        problems = ""
    part.expect(not problems, what, problems)
    part.count("enough room" if ended.status == 0 else "said no")
    broken = half_written(out) if out.exists() else []
    part.expect(not broken, f"{what}: files not whole", broken)
    rest = leftovers(out.parent)
    part.expect(not rest, f"{what}: leaves unfinished files", rest)


def _again(  # noqa: PLR0917
    part: Part, program: Program, whole: Path, out: Path, folder: Path, what: str
) -> None:
    begun: Callable[[Path], list[str]] = program.again if out.exists() else program.begin
    ended = programs.run(program.module, begun(out), folder / "again")
    if not part.expect(not ended.problems(0), f"{what}: then with room", ended.problems(0)):
        return
    unlike = differences(whole, out, program.spared)
    part.expect(not unlike, f"{what}: other results once there is room", unlike[:6])
    if not unlike:
        shutil.rmtree(out)
