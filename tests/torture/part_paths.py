"""Odd names of folders and files in every place where a program takes one, and places not to write.

By make's variables and by the words of ``deepacc``: both must find the very file that is meant.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import programs
import tiny
from part import Part
from part_disk import _can_mount, _mount, _unmount
from trees import half_written

from deepacc_d2.command.arguments import arguments_of, compose
from deepacc_d2.command.table import COMMANDS
from deepacc_d2.errors import UserError

GOAL = 120
CONF = Path(__file__).resolve().parents[2] / "conf"
NAMES = (
    *("with blank", "two  blanks", " leading", "trailing ", "ünïcödé", "染色体", "nfd e\u0301"),
    *("100%", "%20", "a#b", "k=v", "a,b", "new\nline", "tab\tbed", "-dash", "--out", "'single'"),
    *('"double"', "$HOME", "${x}", "${oc.env:HOME}", "back\\slash", "end\\", "[a]", "{b}", "(c)"),
    *("star*", "what?", "~home", ".hidden", "a;b", "a&b", "a|b", "`id`", "null", "true", "12"),
    *("1e3", "a:b", "a@b", "a+b", "!bang", "^hat", "l" * 200, "染" * 70, "🧬", "a.png", "x.ckpt"),
)
READ_ONLY = (
    ("a file", lambda root: _touch(root / "file")),
    ("below a file", lambda root: _touch(root / "file") / "out"),
    ("/proc", lambda root: Path("/proc/deepacc")),
    ("below /dev/null", lambda root: Path("/dev/null/out")),
    ("a name too long", lambda root: root / ("l" * 300)),
    ("a path too long", lambda root: root.joinpath(*["l" * 200] * 25)),
    ("a link to itself", lambda root: _link(root / "link")),
    ("an image's folder", lambda root: root / "slides" / "p0"),
)


def _touch(path: Path) -> Path:
    path.write_text("mine", "utf-8")
    return path


def _link(path: Path) -> Path:
    path.unlink(missing_ok=True)
    path.symlink_to(path.name)
    return path


def run(part: Part) -> None:
    """Tries names in programs, then places that cannot be written."""
    base = part.work / "base"
    checkpoint = tiny.write_checkpoint(base / "tiny.ckpt")
    tiny.write_slides(base / "slides", 2)
    tiny.coco_source(base / "source", 6)
    _make_set(part, base)
    plans = [(name, command) for name in NAMES for command in PROGRAMS]
    part.rng.shuffle(plans)
    refusals = READ_ONLY_PROGRAMS
    places = [(name, place, command) for name, place in READ_ONLY for command in refusals]
    room = max(0, part.result.goal - len(places) - len(refusals))
    for number, (name, command) in enumerate(plans[:room]):
        if not part.share(8, 10):
            break
        _odd_name(part, base, checkpoint, name, command, part.work / f"name{number}")
        part.tried()
    for number, (what, place, command) in enumerate(places):
        if not part.has_time:
            break
        root = part.work / f"place{number}"
        shutil.copytree(base, root)
        _no_place(part, root, what, place(root), command)
        part.tried()
        shutil.rmtree(root)
    _read_only_disk(part, base)


def _make_set(part: Part, base: Path) -> None:
    arguments = ["--format", "coco", "--src", str(base / "source"), "--out", str(base / "set")]
    ended = programs.run("deepacc_d2.data.convert", arguments, part.work / "run")
    part.expect(not ended.problems(0), "data", ended.problems(0))


def _variables(command: str, root: Path, out: Path) -> dict[str, str]:
    """Returns make's variables for a command on what lies in a folder."""
    predicting = " ".join(tiny.PREDICTING)
    training = " ".join((*tiny.TRAINING, "scale.max_epochs=1", "test=false"))
    return {
        "predict": {
            "IMAGES": str(root / "slides"),
            "CKPT": str(root / "tiny.ckpt"),
            "OUT": str(out),
            "ARGS": predicting,
        },
        "train": {"DATA": str(root / "set"), "OUT": str(out), "ARGS": training},
        "data": {"FORMAT": "coco", "SRC": str(root / "source"), "OUT": str(out)},
        "synthetic": {
            "OUT": str(out),
            "ARGS": "--train 2 --val 1 --test 1 --size 224 208 --workers 1",
        },
        "data-check": {"DATA_DIR": str(root / "set")},
        "export": {"CKPT": str(root / "tiny.ckpt"), "FORMAT": "onnx", "OUT": str(out / "m.onnx"),
                   "ARGS": "images=1"},
    }[command]  # fmt: skip


PROGRAMS: dict[str, Callable[[Path], bool]] = {
    "predict": lambda out: len(list((out / "cells").glob("*.json"))) == 2,
    "train": lambda out: (out / "checkpoints" / "last.ckpt").is_file(),
    "data": lambda out: (out / "dataset.json").is_file(),
    "synthetic": lambda out: (out / "dataset.json").is_file(),
    "data-check": lambda out: True,
}
"""Commands, and what says that their results are where they belong."""
READ_ONLY_PROGRAMS = ("predict", "train", "data", "synthetic")


def _start(command: str, variables: dict[str, str], *, words: bool) -> tuple[str, list[str]]:
    """Returns module and arguments as make or ``deepacc`` would start them."""
    entry = COMMANDS[command]
    if not words:
        found = compose(command, variables, CONF)
    else:
        keys = {option.variable: option.key for option in entry.options if option.variable}
        given = [f"{keys[name]}={value}" for name, value in variables.items() if name in keys]
        further = variables.get("ARGS", "").split()
        found = arguments_of(entry, [*given, *further], CONF)
    return found[1], found[2:]


def _odd_name(  # noqa: PLR0917
    part: Part, base: Path, checkpoint: Path, name: str, command: str, folder: Path
) -> None:
    root = folder / name
    root.parent.mkdir()
    shutil.copytree(base, root)
    out = folder / "to" / name / "out"
    words = bool(part.rng.getrandbits(1))
    what = f"{command} by {'deepacc' if words else 'make'}, {name!r}"
    try:
        module, arguments = _start(command, _variables(command, root, out), words=words)
    except UserError as error:
        part.fail(what, error)
        return
    ended = programs.run(module, arguments, part.work / "run")
    # Hydra's own sign for a reference: a line that says no will do.
    problems = ended.problems(*((0, 2) if "${" in name else (0,)))
    if not part.expect(not problems, what, problems) or ended.status:
        part.count(f"refused: {name}")
        return
    good = out.is_dir() and PROGRAMS[command](out) if command != "data-check" else True
    part.expect(good, f"{what}: results are not where they belong", ended.out[-300:])
    broken = half_written(out) if out.is_dir() else []
    part.expect(not broken, f"{what}: files not whole", broken)
    beside = {path.name for path in folder.iterdir()} - {name, "to"}
    part.expect(not beside, f"{what}: writes elsewhere", beside)
    strays = {path.name for path in (part.work / "run").iterdir()} - {"stdout.txt", "stderr.txt"}
    part.expect(not strays, f"{what}: writes where it was started", strays)
    shutil.rmtree(folder)


def _no_place(part: Part, root: Path, what: str, out: Path, command: str) -> None:
    module, arguments = _start(command, _variables(command, root, out), words=False)
    ended = programs.run(module, arguments, part.work / "run")
    if what == "an image's folder" and command in ("data", "train"):
        return  # it is no source of theirs, and a training leaves what is there alone
    problems = ended.problems(2)
    part.expect(not problems, f"{command} to {what}", problems)
    if what == "a file":
        part.expect(out.read_text("utf-8") == "mine", f"{command} to {what}: it is overwritten")


def _read_only_disk(part: Part, base: Path) -> None:
    """Everything on a disk that cannot be written: OUT is refused, what is read is read."""
    if not _can_mount(part.work / "probe"):
        part.note("a read-only disk: mounting is not allowed here")
        return
    disk = part.work / "disk"
    disk.mkdir()
    _mount(disk, 200_000)
    try:
        shutil.copytree(base, disk / "base")
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True, capture_output=True)
        for command in READ_ONLY_PROGRAMS:
            for out, status in ((disk / "out", 2), (part.work / f"out-{command}", 0)):
                module, arguments = _start(
                    command, _variables(command, disk / "base", out), words=False
                )
                ended = programs.run(module, arguments, part.work / "run")
                where = "to" if status else "from"
                problems = ended.problems(status)
                part.expect(not problems, f"{command} {where} a read-only disk", problems)
                part.tried()
    finally:
        _unmount(disk)
