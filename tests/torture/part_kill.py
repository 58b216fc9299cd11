"""SIGKILL at random moments of a program, which then goes on and is compared with an unbroken run.

The same files must come out, with the same weights and metrics, no file half-written at any time,
and no process of the killed one may stay.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import programs
import tiny
from part import Part
from trees import differences, half_written, leftovers

GOAL = 20
# A run that is killed again while it makes up for the first time.
TWICE = 4
WORKERS = 5
"""Every so many rounds the program has processes of its own."""


@dataclass(frozen=True)
class Program:
    """A program to be killed.

    Attributes:
        module: as of ``python -m``.
        begin: its arguments for an output folder.
        again: those that go on in a folder.
        workers: further arguments by which it starts processes.
        spared: names of files whose contents may differ.
    """

    module: str
    begin: Callable[[Path], list[str]]
    again: Callable[[Path], list[str]]
    workers: tuple[str, ...] = ()
    spared: tuple[str, ...] = ()


def run(part: Part) -> None:
    """Kills the program that the part's name says."""
    program = MAKERS[part.result.name.partition("_")[2]](part.work)
    whole = part.work / "whole" / "out"
    whole.parent.mkdir(parents=True)
    ended = programs.run(program.module, program.begin(whole), part.work / "whole-run")
    if not part.expect(not ended.problems(0), "the unbroken run", ended.problems(0)):
        return
    # Once more: what differs between two unbroken runs is not for a killed one to have.
    part.fact("seconds of the unbroken run", round(ended.seconds, 1))
    seconds = ended.seconds
    for number in range(part.result.goal):
        if not part.has_time:
            break
        folder = part.work / f"round{number}"
        seconds = 0.5 * (seconds + _round(part, program, whole, folder, number, seconds))
        part.tried()


def _round(  # noqa: PLR0917
    part: Part, program: Program, whole: Path, folder: Path, number: int, seconds: float
) -> float:
    """Kills once or twice, goes on, compares; returns how long an unbroken run would now take."""
    out = folder / "out"
    kills = 2 if number % TWICE == TWICE - 1 else 1
    workers = list(program.workers) if number % WORKERS == WORKERS - 1 else []
    moments = []
    took = seconds
    for kill in range(kills):
        again = kill > 0 and out.exists()
        arguments = program.again(out) if again else program.begin(out)
        started = programs.Started(program.module, [*arguments, *workers], folder / f"run{kill}")
        moment = part.rng.uniform(0.02, 1.0) * seconds
        if started.ended_within(moment) is not None:
            part.count("ended before the signal")
            break
        started.kill(whole=bool(part.rng.getrandbits(1)))
        moments.append(f"{moment:.2f} s")
        part.count("killed")
        left = started.orphans()
        part.expect(not left, f"round {number}: {len(left)} processes outlive a killed one")
        broken = half_written(out) if out.exists() else []
        part.expect(not broken, f"round {number}, killed at {moments}: files not whole", broken)
    arguments = program.again(out) if _begun(out) else program.begin(out)
    ended = programs.run(program.module, arguments, folder / "last")
    problems = ended.problems(0)
    what = f"round {number}, killed at {', '.join(moments)} of {seconds:.1f} s"
    if not part.expect(not problems, f"{what}: goes on", problems):
        return took
    unlike = differences(whole, out, program.spared)
    part.expect(not unlike, f"{what}: other results than unbroken", unlike[:6])
    rest = [name for name in leftovers(out.parent) if not name.startswith(("run", "last"))]
    part.expect(not rest, f"{what}: leaves unfinished files", rest)
    if not unlike and not rest:
        shutil.rmtree(folder)
    return max(took, ended.seconds)


def _begun(out: Path) -> bool:
    return (out / "run.json").is_file() if (out / "config.yaml").is_file() else out.exists()


def _data_set(work: Path) -> Path:
    from deepacc_d2.data.synthetic import SyntheticConfig, ensure_dataset

    root = work / "set"
    config = SyntheticConfig(size=(224, 208), cells_per_case=1, num_batches=2, seed=3)
    ensure_dataset(root, config, {"train": 6, "val": 3, "test": 3}, num_workers=1, progress=False)
    return root


def _train(work: Path) -> Program:
    data = _data_set(work)

    def again(out: Path) -> list[str]:
        if not (out / "run.json").is_file() or not (out / "config.yaml").is_file():
            return tiny.train_arguments(data, out)
        return [f"resume={out}"]

    return Program("deepacc_lightning.train", lambda out: tiny.train_arguments(data, out), again)


def _predict(work: Path) -> Program:
    checkpoint = tiny.write_checkpoint(work / "tiny.ckpt")
    slides = tiny.write_slides(work / "slides", 6)

    def arguments(out: Path) -> list[str]:
        return tiny.predict_arguments(checkpoint, slides, out, "cases=folder")

    workers = ("num_workers=1", "draw_workers=1")
    return Program("deepacc_lightning.predict", arguments, arguments, workers)


def _data(work: Path) -> Program:
    source = tiny.coco_source(work / "source", 120)

    def arguments(out: Path) -> list[str]:
        return ["--format", "coco", "--src", str(source), "--out", str(out), "--overwrite"]

    return Program("deepacc_d2.data.convert", arguments, arguments)


def _synthetic(work: Path) -> Program:
    def arguments(out: Path, workers: str = "1") -> list[str]:
        small = ["--train", "8", "--val", "3", "--test", "3", "--size", "224", "208"]
        return ["--out", str(out), "--workers", workers, *small]

    return Program("deepacc_d2.data.synthetic", arguments, arguments, workers=("--workers", "2"))


def _sweep(work: Path) -> Program:
    data = _data_set(work)

    def arguments(out: Path) -> list[str]:
        own = [a for a in tiny.train_arguments(data, out) if not a.startswith("out=")]
        return [*own, "scale.max_epochs=1", "alpha=0.1,0.2", f"sweep.dir={out}"]

    # Its page shows what compare.json says, and how many images a second were trained on.
    return Program("deepacc_lightning.sweep", arguments, arguments, spared=("compare.html",))


MAKERS: dict[str, Callable[[Path], Program]] = {
    "train": _train,
    "predict": _predict,
    "data": _data,
    "synthetic": _synthetic,
    "sweep": _sweep,
}
