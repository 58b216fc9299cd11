"""Damaged images through the one reader, and then all of them through predict and data."""

from __future__ import annotations

import csv
import json
import os
import resource
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import programs
import tiny
from damaged_images import READ, REFUSED, Damaged, make
from part import Part

from deepacc_d2.errors import DataError
from deepacc_d2.images.read import read_gray, read_image, read_size

GOAL = 1000
PATIENCE = 10.0
"""Seconds of processor time that a file may take."""
MOST_MEMORY = 2_000
"""Megabytes that the reader may need for the worst of them."""


def run(part: Part) -> None:
    """Makes the files, reads each, then hands them all to the programs."""
    cv2.setNumThreads(1)
    folder = part.work / "images"
    folder.mkdir()
    paths = []
    for number in range(part.result.goal):
        if not part.share(7, 10):
            break
        damaged = make(number, part.rng)
        path = folder / f"{number:04d}_{damaged.kind.replace(' ', '_')}{damaged.suffix}"
        path.write_bytes(damaged.data)
        (part.work / "current.txt").write_text(path.name)
        _read(part, path, damaged)
        paths.append(path)
        part.tried()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    part.fact("peak memory, MB", round(peak))
    part.expect(peak < MOST_MEMORY, "memory of the reader", f"{peak:.0f} MB")
    _predict(part, folder, paths)
    _convert(part, folder, paths)
    if not part.result.failures:
        shutil.rmtree(folder)


def _read(part: Part, path: Path, damaged: Damaged) -> None:
    began = time.process_time()
    outcomes: list[Any] = []
    with _StandardError() as said:
        for read in (read_image, read_gray, read_size):
            try:
                outcomes.append(read(path))
            except DataError as error:
                outcomes.append(error)
            except Exception as error:
                outcomes.append(error)
                part.fail(f"{read.__name__} of {path.name}", f"{type(error).__name__}: {error}")
                return
    seconds = time.process_time() - began
    part.expect(seconds < PATIENCE, f"{path.name} takes {seconds:.0f} s")
    part.expect(not said.text, f"{path.name} makes a decoder print", said.text)
    image, gray, size = outcomes
    refused = isinstance(image, DataError)
    part.count("refused" if refused else "read")
    for error in outcomes:
        if isinstance(error, DataError):
            line = str(error)
            part.expect("\n" not in line and len(line) < 600, f"line of {path.name}", line)
    part.expect(
        refused == isinstance(gray, DataError), f"{path.name}: read_image and read_gray", outcomes
    )
    if damaged.expected == REFUSED:
        part.expect(refused, f"{path.name} ({damaged.kind}) is read")
    if damaged.expected == READ:
        part.expect(not refused, f"{path.name} ({damaged.kind}) is refused", image)
    if refused or isinstance(gray, DataError):
        return
    pixels = image.gray
    sound = pixels.dtype == np.uint8 and pixels.ndim == 2 and pixels.size > 0
    part.expect(sound, f"{path.name}: {pixels.dtype} {pixels.shape}")
    part.expect(np.array_equal(pixels, gray), f"{path.name}: two readings differ")
    part.expect(size == pixels.shape[::-1], f"{path.name}: size {size}, pixels {pixels.shape}")
    if damaged.expected == READ:
        wanted = np.asarray(damaged.gray)
        if part.expect(wanted.shape == pixels.shape, f"{path.name}: {pixels.shape}", wanted.shape):
            # Deep gray levels are mapped, JPEG loses some: what is dark stays dark.
            alike = wanted.std() < 1 or np.corrcoef(wanted.ravel(), pixels.ravel())[0, 1] > 0.95
            part.expect(alike, f"{path.name} ({damaged.kind}): other pixels")


class _StandardError:
    """Catches what decoders written in C print within it."""

    text = ""

    def __enter__(self) -> _StandardError:
        self._file = tempfile.TemporaryFile()
        self._kept = os.dup(2)
        os.dup2(self._file.fileno(), 2)
        return self

    def __exit__(self, *error: object) -> None:
        os.dup2(self._kept, 2)
        os.close(self._kept)
        self._file.seek(0)
        self.text = self._file.read().decode("utf-8", "replace")
        self._file.close()


def _predict(part: Part, folder: Path, paths: list[Path]) -> None:
    """Predicts on all of them at once: each is a cell or a line in errors.csv."""
    checkpoint = tiny.write_checkpoint(part.work / "tiny.ckpt")
    out = part.work / "results"
    arguments = tiny.predict_arguments(checkpoint, folder, out, "overlay=false", "karyogram=[]")
    ended = programs.run(
        "deepacc_lightning.predict", arguments, part.work / "predict", seconds=1200
    )
    problems = ended.problems(0)
    if not part.expect(not problems, "predict on all of them", problems):
        return
    # What decoders say would come in between.
    part.expect(len(ended.lines) <= 1, "predict prints more than its line", ended.lines[:5])
    with (out / "errors.csv").open(newline="", encoding="utf-8") as file:
        errors = list(csv.DictReader(file))
    cells = len(list((out / "cells").glob("*.json")))
    part.fact("predict", f"{cells} cells, {len(errors)} errors, {ended.seconds:.0f} s")
    part.expect(cells + len(errors) == len(paths), "predict loses images", f"{cells} {len(errors)}")


def _convert(part: Part, folder: Path, paths: list[Path]) -> None:
    """Converts all of them at once: each is used or named in the report."""
    source = part.work / "source"
    source.mkdir()
    folder.rename(source / "images")
    entries = [{"id": n, "file_name": path.name} for n, path in enumerate(paths, start=1)]
    box = {"category_id": 1, "bbox": [2, 3, 20, 10], "iscrowd": 0}
    annotations = [{"id": n, "image_id": n, **box} for n in range(1, len(paths) + 1)]
    content = {
        "images": entries,
        "annotations": annotations,
        "categories": [{"id": 1, "name": "1"}],
    }
    (source / "annotations.json").write_text(json.dumps(content), "utf-8")
    out = part.work / "converted"
    arguments = ["--format", "coco", "--src", str(source), "--out", str(out)]
    ended = programs.run("deepacc_d2.data.convert", arguments, part.work / "data", seconds=600)
    (source / "images").rename(folder)
    if not part.expect(not ended.problems(0), "data on all of them", ended.problems(0)):
        return
    report = json.loads((out / "report.json").read_text("utf-8"))
    named = {found["name"] for entry in report["defects"].values() for found in entry["found"]}
    used = {path.name for path in (out / "images").iterdir()}
    lost = [p.name for p in paths if p.name not in used and f"images/{p.name}" not in named]
    part.fact("data", f"{len(used)} used, {report['images']['skipped']} skipped")
    part.expect(not lost, "data loses images", lost[:5])
    shutil.rmtree(out)
