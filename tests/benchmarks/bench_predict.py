"""``make predict``: where the time of an image goes, and what it costs as the work grows.

Stages are timed one at a time on one thread. Of growing pictures, cells and folders, seconds and
peak memory are given: of the process for one picture, of all its processes for a folder. Synthetic
spreads serve, or the pictures in the folder that ``DEEPACC_IMAGES`` names.

Run as a script with ``--figure F.png`` it draws the curves too; with ``--folder N KEY=VALUE ...``
it measures one folder of N images alone, predicted with these keys.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from measurement import Measurement

from deepacc_d2.cell import Cell
from deepacc_d2.command.program import set_environment
from deepacc_d2.command.table import COMMANDS
from deepacc_d2.data.synthetic import SyntheticConfig, render_metaphase
from deepacc_d2.detection.detector import Detections
from deepacc_d2.images.read import read_gray
from deepacc_d2.images.view import make_view, second_view
from deepacc_d2.karyogram import build_karyogram, draw_overlay
from deepacc_d2.karyogram.cut import cut_cell
from deepacc_d2.prediction.predictor import Predictor, load_predictor
from deepacc_d2.prediction.record import to_record

BOXES = (46, 200, 1000)
MEGAPIXELS = (0.5, 2.0, 8.0, 20.0, 60.0)
FOLDERS = (10, 100, 1000)
STAGED = 30
FIRST_RESULT = 8.0
POLL = 0.2


class Stages:
    """CPU seconds of this process by stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def __call__(self, name: str, work: Callable[..., Any], *args: Any) -> Any:
        """Does the work and adds its time to a stage."""
        began = time.process_time()
        result = work(*args)
        self.seconds[name] = self.seconds.get(name, 0.0) + time.process_time() - began
        return result


@contextmanager
def one_thread() -> Iterator[None]:
    """Computes on one thread."""
    before = torch.get_num_threads(), cv2.getNumThreads()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        cv2.setNumThreads(before[1])


@contextmanager
def pictures(count: int) -> Iterator[list[Path]]:
    """Yields that many pictures, fewer if the user's folder has no more."""
    if named := named_pictures():
        yield named[:count]
        return
    with tempfile.TemporaryDirectory() as folder:
        paths = []
        for number in range(count):
            gray, _ = render_metaphase(SyntheticConfig(cells_per_case=1), number, 0)
            paths.append(Path(folder) / f"cell{number:03}.jpg")
            cv2.imwrite(str(paths[-1]), gray)
        yield paths


def named_pictures() -> list[Path]:
    """Returns all pictures of the folder that the user names, none without one."""
    named = os.environ.get("DEEPACC_IMAGES")
    return sorted(path for path in Path(named).iterdir() if path.is_file()) if named else []


def stages(predictor: Predictor, paths: Sequence[Path], folder: Path) -> dict[str, float]:
    """Returns milliseconds of CPU of an image by stage, the mean of all but the first two."""
    detector = predictor.detector
    timed = Stages()
    for number, path in enumerate(paths):
        if number == 2:
            timed.seconds.clear()
        gray = timed("read and decode", read_gray, path)
        view = timed("find the spread, bring it to size", make_view, gray, detector.view)
        first = timed("network with cell context, first look", detector.look, view)
        sure = first.boxes[detector.sure(first)]
        other = second_view(gray, view, sure, detector.view)
        if other is not None:
            timed("network, second look, mean of all", detector.look, other)
        found = detector.choose(gray, first)
        timed("assignment, flags, confidence", predictor.interpret, found)
        cell = predictor.cell(gray, name=path.stem, path=str(path), view=view)
        overlay = timed("draw the overlay", draw_overlay, gray, cell)
        timed("encode the overlay", cv2.imencode, ".png", overlay[..., ::-1])
        boxes = [chromosome.box for chromosome in cell.chromosomes]
        timed("cut the chromosomes out", cut_cell, gray, boxes)
        built = timed("karyogram", build_karyogram, gray, cell)
        timed("karyogram to PNG", built.save, folder / "k.png")
        timed("karyogram to SVG", built.save, folder / "k.svg")
        timed("record to JSON", record_text, cell)
    timed.seconds["straighten, turn, lay out"] = timed.seconds.pop("karyogram") - timed.seconds.get(
        "cut the chromosomes out", 0.0
    )
    return {name: 1000 * took / (len(paths) - 2) for name, took in timed.seconds.items()}


def record_text(cell: Cell) -> str:
    """Returns a cell's record as text."""
    return json.dumps(to_record(cell))


def with_boxes(cell: Cell, gray: np.ndarray, count: int) -> tuple[Cell, np.ndarray]:
    """Returns a cell with that many chromosomes, on a picture tiled with that of a smaller one."""
    height, width = gray.shape
    side = int(np.ceil(np.sqrt(count / len(cell.chromosomes))))
    chromosomes = []
    for number in range(count):
        tile, place = divmod(number, len(cell.chromosomes))
        dy, dx = divmod(tile, side)
        one = cell.chromosomes[place]
        right, down = dx * width, dy * height
        box = tuple(a + b for a, b in zip(one.box, (right, down) * 2, strict=True))
        mask = one.mask
        if mask is not None:
            rings = (tuple((x + right, y + down) for x, y in ring) for ring in mask.rings)
            mask = replace(mask, rings=tuple(rings))
        chromosomes.append(replace(one, box=box, mask=mask))
    tiled = np.ascontiguousarray(np.tile(gray, (side, side)))
    return replace(
        cell, chromosomes=chromosomes, width=tiled.shape[1], height=tiled.shape[0]
    ), tiled


def boxes_curve(predictor: Predictor, path: Path, folder: Path) -> list[dict[str, float]]:
    """Returns seconds of assignment and of drawing by the number of boxes."""
    gray = read_gray(path)
    whole = predictor.cell(gray, name="cell")
    view = make_view(gray, predictor.detector.view)
    points = []
    for count in BOXES:
        cell, tiled = with_boxes(whole, gray, count)
        boxes = np.array([c.box for c in cell.chromosomes], np.float64)
        found = Detections(
            boxes,
            np.array([c.probabilities for c in cell.chromosomes], np.float64),
            np.arange(count),
            view,
        )
        timed = Stages()
        timed("assign", predictor.interpret, found)
        built = timed("draw", build_karyogram, tiled, cell)
        timed("draw", built.save, folder / "k.png")
        timed("draw", built.save, folder / "k.svg")
        timed("draw", draw_overlay, tiled, cell)
        points.append({"boxes": count, **timed.seconds})
    return points


def one_picture(path: Path) -> dict[str, float]:
    """Returns seconds and peak memory in MB of this process for one picture, read to drawn."""
    predictor = load_predictor(device="cpu")
    with one_thread(), tempfile.TemporaryDirectory() as folder:
        predictor.cell(render_metaphase(SyntheticConfig(), 0, 0)[0])  # warm
        before = peak_mb()
        timed = Stages()
        gray = timed("read", read_gray, path)
        cell = timed("predict", predictor.cell, gray)
        built = timed("draw", build_karyogram, gray, cell)
        timed("draw", built.save, Path(folder) / "k.png")
        timed("draw", draw_overlay, gray, cell)
        return {**timed.seconds, "before_mb": before, "peak_mb": peak_mb()}


def peak_mb() -> float:
    """Returns this process's largest resident memory so far."""
    status = Path("/proc/self/status")
    if status.is_file():  # the other number begins with that of the process that started this one
        lines = status.read_text(encoding="utf-8").splitlines()
        return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM:"))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def size_curve() -> list[dict[str, float]]:
    """Returns what one picture costs by its megapixels, each in a process of its own."""
    gray, _ = render_metaphase(SyntheticConfig(), 0, 0)
    points = []
    for megapixels in MEGAPIXELS:
        zoom = float(np.sqrt(1e6 * megapixels / gray.size))
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "cell.tif"
            cv2.imwrite(str(path), cv2.resize(gray, None, fx=zoom, fy=zoom))
            done = subprocess.run(
                [sys.executable, __file__, "--one", str(path)],
                check=True,
                capture_output=True,
                text=True,
            )
        points.append({"megapixels": megapixels, **json.loads(done.stdout.splitlines()[-1])})
    return points


def folder_job(images: Path, out: Path, *options: str) -> dict[str, float]:
    """Runs the command on a folder.

    Returns:
        ``seconds``, ``first`` (until the first record), ``cpu_seconds`` of all processes and
        ``peak_mb``, their largest memory together, pages that several share counted once.

    Raises:
        RuntimeError: it failed, with what it printed last.
    """
    command = [sys.executable, "-m", "deepacc_lightning.predict", f"images={images}", f"out={out}"]
    environment = dict(os.environ)
    set_environment(environment, COMMANDS["predict"], "deepacc predict")  # as users start it
    began = time.monotonic()
    process = subprocess.Popen(
        [*command, *options],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    printed: list[str] = []
    assert process.stdout is not None
    reader = threading.Thread(target=lambda: printed.extend(process.stdout or ()), daemon=True)
    reader.start()
    first, tree = 0.0, Tree(process.pid)
    while process.poll() is None:
        if not first and any((out / "cells").glob("[!.]*.json")):
            first = time.monotonic() - began
        tree.look()
        time.sleep(POLL)
    seconds = time.monotonic() - began
    reader.join()
    if process.returncode:
        raise RuntimeError("".join(printed[-20:]))
    return {
        "seconds": seconds,
        "first": first,
        "cpu_seconds": tree.cpu_seconds,
        "peak_mb": tree.peak_mb,
    }


class Tree:
    """A process and all below it, as far as Linux reports it; looked at while it runs.

    What the system adds up at the end leaves out processes that another than their parent awaits.
    """

    def __init__(self, parent: int) -> None:
        self.parent = parent
        self.peak_mb = 0.0
        self._used: dict[int, float] = {}

    @property
    def cpu_seconds(self) -> float:
        """Of all of them up to the last look at each."""
        return sum(self._used.values())

    def look(self) -> None:
        """Adds up memory, pages that several share once, and takes down CPU seconds."""
        below, memory = [self.parent], 0.0
        while below:
            pid = below.pop()
            place = Path("/proc") / str(pid)
            try:
                # The name in parentheses may hold anything; fields 14 and 15 are the time.
                fields = (place / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()
                ticks = int(fields[11]) + int(fields[12])
                self._used[pid] = ticks / os.sysconf("SC_CLK_TCK")
                for line in (place / "smaps_rollup").read_text(encoding="utf-8").splitlines():
                    if line.startswith("Pss:"):
                        memory += int(line.split()[1]) / 1024
                for task in (place / "task").iterdir():
                    below += [int(one) for one in (task / "children").read_text().split()]
            except OSError:  # it ended meanwhile, or this is no Linux
                continue
        self.peak_mb = max(self.peak_mb, memory)


def folder_curve(paths: Sequence[Path]) -> list[dict[str, float]]:
    """Returns what a folder costs by its images; pictures are repeated where there are too few."""
    return [folder_point(paths, count) for count in FOLDERS]


def folder_point(paths: Sequence[Path], count: int, *options: str) -> dict[str, float]:
    """Returns what a folder of that many images costs."""
    with tempfile.TemporaryDirectory() as name:
        images = Path(name) / "images"
        images.mkdir()
        for number in range(count):
            source = paths[number % len(paths)]
            (images / f"{number:05}{source.suffix}").symlink_to(source.resolve())
        return {"images": count, **folder_job(images, Path(name) / "out", *options)}


def draw_curves(result: dict[str, Any], path: Path) -> None:
    """Draws time and memory as the work grows."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 3.4), layout="constrained")
    work = {"assign": "assignment", "draw": "overlay and karyogram"}
    steps = {"read": "read", "predict": "find, detect, assign", "draw": "draw"}
    clocks = {"seconds": "wall clock", "cpu_seconds": "CPU, all processes"}
    for axes, curve, across, xlabel, ylabel, lines in zip(
        figure.subplots(1, 3),
        (result["boxes"], result["sizes"], result["folders"]),
        ("boxes", "megapixels", "images"),
        ("boxes of a cell", "megapixels", "images of a folder"),
        ("CPU seconds", "CPU seconds", "seconds"),
        (work, steps, clocks),
        strict=True,
    ):
        x = [p[across] for p in curve]
        for key, label in lines.items():
            axes.plot(x, [p[key] for p in curve], "o-", label=label)
        axes.set(xlabel=xlabel, ylabel=ylabel, xscale="log", yscale="log")
        axes.legend(frameon=False, fontsize=8, loc="upper left")
        axes.grid(alpha=0.3)
        if "peak_mb" in curve[0]:
            peaks, twin = [p["peak_mb"] for p in curve], axes.twinx()
            twin.plot(x, peaks, "k:", lw=1.2)
            twin.set(ylabel="peak memory, MB (dotted)", ylim=(0, 1.3 * max(peaks)))
    figure.savefig(path, dpi=110)


def measure() -> dict[str, Any]:
    """Measures everything."""
    predictor = load_predictor(device="cpu")
    with pictures(STAGED) as paths, tempfile.TemporaryDirectory() as name, one_thread():
        result: dict[str, Any] = {
            "stages_ms": stages(predictor, paths, Path(name)),
            "boxes": boxes_curve(predictor, paths[0], Path(name)),
        }
        result["sizes"] = size_curve()
        # Of as many different pictures as there are: memory could grow with each new size.
        result["folders"] = folder_curve(named_pictures() or paths)
    return result


def run() -> list[Measurement]:
    """Measures and returns the totals; the rest is in the details."""
    result = measure()
    total = sum(result["stages_ms"].values())
    first = result["folders"][0]["first"]
    large = result["folders"][-1]
    rate = large["images"] / large["seconds"]
    memory = large["peak_mb"] / result["folders"][0]["peak_mb"]
    how = f"a folder of {large['images']} images"
    return [
        Measurement("an image of make predict", total, "-", "ms", "CPU, one at a time", result),
        Measurement(
            "first result of make predict", first, f"<= {FIRST_RESULT:g}", "s", "from the command"
        ),
        Measurement("images a second of make predict", rate, "-", "images/s", how),
        Measurement("memory, 1000 images / 10 images", memory, "<= 1.3", "x", how),
    ]


def main() -> None:
    """Command line: see the module's docstring."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--one", type=Path, help="measure one picture in this process")
    parser.add_argument("--figure", type=Path, help="measure everything and draw it")
    parser.add_argument("--folder", type=int, help="measure one folder of that many images")
    parser.add_argument("keys", nargs="*", help="of make predict, for --folder")
    options = parser.parse_args()
    if options.one:
        print(json.dumps(one_picture(options.one)))
        return
    if options.folder:
        with pictures(STAGED) as drawn:
            paths = named_pictures() or drawn
            print(json.dumps(folder_point(paths, options.folder, *options.keys)))
        return
    result = measure()
    print(json.dumps(result, indent=1))
    if options.figure:
        draw_curves(result, options.figure)
        options.figure.with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
