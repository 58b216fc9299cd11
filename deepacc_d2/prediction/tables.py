"""The tables of a whole job, written from its cells one at a time: CSV and COCO."""

from __future__ import annotations

import csv
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import IO

from pycocotools import mask as coco_mask

from deepacc_d2.cell import Cell, Chromosome
from deepacc_d2.chromosomes import CLASSES, coco_categories
from deepacc_d2.disclaimer import DISCLAIMER
from deepacc_d2.files import plain_row, whole_file
from deepacc_d2.images.rings import to_rle
from deepacc_d2.prediction.folder import OutputFolder
from deepacc_d2.prediction.record import class_of, significant
from deepacc_d2.text import printable

CELL_COLUMNS = (
    *("cell", "case", "image", "status", "reasons", "count", "unidentified"),
    *("karyotype", "karyotype_by_box", "confidence", "flags"),
    *(f"n_{name}" for name in CLASSES),
)
CHROMOSOME_COLUMNS = (
    *("cell", "case", "id", "class", "class_by_box", "confidence", "flags"),
    *("x0", "y0", "x1", "y1"),
)


@contextmanager
def job_tables(folder: OutputFolder) -> Iterator[Callable[[Cell], None]]:
    """Gives a function that writes a cell to ``cells.csv``, ``chromosomes.csv`` and ``coco.json``.

    The files take their names when the block ends well. Annotations of COCO stand behind all
    images there; until then they wait in a file of their own, so that a job may have any number of
    cells. An image's ``file_name`` is relative to the folder that holds all the images, as
    annotation tools expect; ``path`` is where the image was.
    """
    root = folder.root
    with (
        _whole(root / "cells.csv") as cells_file,
        _whole(root / "chromosomes.csv") as chromosomes_file,
        _whole(root / "coco.json") as coco,
        tempfile.TemporaryFile(
            "w+", encoding="utf-8", errors="backslashreplace", newline="", dir=root
        ) as waiting,
    ):
        cells, chromosomes = csv.writer(cells_file), csv.writer(chromosomes_file)
        cells.writerow(CELL_COLUMNS)
        chromosomes.writerow(CHROMOSOME_COLUMNS)
        images: list[dict[str, object]] = []
        numbers = count(1)

        def add(cell: Cell) -> None:
            cells.writerow(plain_row(cell_row(cell)))
            chromosomes.writerows(plain_row(row) for row in chromosome_rows(cell))
            images.append(_coco_image(len(images) + 1, cell))
            for item in _coco_annotations(len(images), numbers, cell):
                _write_item(waiting, item)

        yield add
        head = {"info": {"description": DISCLAIMER}, "licenses": []}
        coco.write(json.dumps({**head, "categories": coco_categories()})[:-1] + ', "images": [')
        common = _common_folder([str(image["path"]) for image in images if image["path"]])
        for image in images:
            _write_item(coco, _named(image, common))
        coco.write('], "annotations": [')
        waiting.seek(0)
        shutil.copyfileobj(waiting, coco)
        coco.write("]}\n")


def cell_row(cell: Cell) -> list[object]:
    """Returns a cell's values of :data:`CELL_COLUMNS`."""
    return [
        *(cell.name, cell.case_id or "", cell.path, cell.status, "; ".join(cell.reasons)),
        *(len(cell.counted), len(cell.unidentified), cell.karyotype, cell.karyotype_by_box),
        *(significant(cell.confidence), " ".join(cell.flags)),
        *cell.counts().tolist(),
    ]


def chromosome_rows(cell: Cell) -> Iterator[list[object]]:
    """Yields the values of :data:`CHROMOSOME_COLUMNS` of each chromosome of a cell."""
    for number, c in enumerate(cell.chromosomes, start=1):
        yield [
            *(cell.name, cell.case_id or "", number, class_of(c) or "", CLASSES[c.label]),
            *(round(c.confidence, 4), " ".join(c.flags)),
            *(round(float(v), 2) for v in c.box),
        ]


def write_errors(folder: OutputFolder, errors: list[tuple[str, str]]) -> None:
    """Writes ``errors.csv``, a row for each file that could not be used; none, no file."""
    path = folder.root / "errors.csv"
    if not errors:
        path.unlink(missing_ok=True)
        return
    with _whole(path) as file:
        table = csv.writer(file)
        table.writerow(("image", "error"))
        rows = sorted((printable(image), printable(error)) for image, error in errors)
        table.writerows(map(plain_row, rows))


def _write_item(file: IO[str], item: dict[str, object]) -> None:
    file.write(("\n" if item["id"] == 1 else ",\n") + json.dumps(item, ensure_ascii=False))


def _common_folder(paths: list[str]) -> str:
    """Returns the folder that holds all the files, empty if there is none, as on two drives."""
    try:
        return os.path.commonpath([os.path.dirname(path) for path in paths])  # noqa: PTH120
    except ValueError:
        return ""


def _coco_image(number: int, cell: Cell) -> dict[str, object]:
    return {
        "id": number,
        "file_name": cell.name,
        "path": cell.path,
        "width": cell.width,
        "height": cell.height,
        "case_id": cell.case_id,
    }


def _named(image: dict[str, object], folder: str) -> dict[str, object]:
    """Returns an image with its path in a folder as its name, where it has a path."""
    path = str(image["path"] or "")
    name = os.path.relpath(path, folder) if path and folder else path
    return {**image, "file_name": Path(name).as_posix()} if name else image


def _coco_annotations(
    image: int, numbers: Iterator[int], cell: Cell
) -> Iterator[dict[str, object]]:
    """Yields a cell's chromosomes, with the next of the numbers each.

    An unidentified one has the category that is most probable, and ``"unidentified": true``.
    """
    for chromosome in cell.counted:
        x0, y0, x1, y1 = (round(float(v), 2) for v in chromosome.box)
        width, height = round(x1 - x0, 2), round(y1 - y0, 2)
        unidentified = {} if chromosome.placed else {"unidentified": True}
        yield {
            "id": next(numbers),
            "image_id": image,
            "category_id": CLASSES.index(chromosome.name) + 1,
            "bbox": [x0, y0, width, height],
            **_outline(chromosome, cell),
            "iscrowd": 0,
            "score": round(chromosome.confidence, 5),
            **unidentified,
        }


def _outline(chromosome: Chromosome, cell: Cell) -> dict[str, object]:
    """Returns ``segmentation`` and ``area``: of the box itself where there is no mask.

    Polygons cannot tell of holes: ``rle`` is the same mask with them, as pycocotools reads it.
    """
    mask = chromosome.mask
    if mask is None:
        x0, y0, x1, y1 = (round(float(v), 2) for v in chromosome.box)
        return {
            "segmentation": [[x0, y0, x1, y0, x1, y1, x0, y1]],
            "area": round((x1 - x0) * (y1 - y0), 2),
        }
    rle = to_rle(mask.rings, (cell.height, cell.width))
    return {
        "segmentation": [[v for point in ring for v in point] for ring in mask.rings],
        "rle": {"size": rle["size"], "counts": rle["counts"].decode("ascii")},
        "area": int(coco_mask.area(rle)),
        "reconstructed": round(mask.shared, 4),
    }


def _open(path: Path) -> IO[str]:
    # What is no character, as of a file name that is no UTF-8, becomes an escape.
    return path.open("w", encoding="utf-8", errors="backslashreplace", newline="")


@contextmanager
def _whole(path: Path) -> Iterator[IO[str]]:
    """Opens a temporary file that takes the path when the block ends well."""
    with whole_file(path) as temporary, _open(temporary) as file:
        yield file
