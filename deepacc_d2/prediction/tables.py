"""The tables of a whole job, written from its cells one at a time: CSV and COCO."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from deepacc_d2.cell import Cell
from deepacc_d2.chromosomes import CLASSES, coco_categories
from deepacc_d2.disclaimer import DISCLAIMER
from deepacc_d2.files import whole_file
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
# Spreadsheets take a text that begins so for a formula; the apostrophe makes it a text again.
FORMULA = ("=", "+", "-", "@", "\t", "\r")


def write_tables(folder: OutputFolder) -> int:
    """Writes ``cells.csv``, ``chromosomes.csv`` and ``coco.json`` of all finished cells.

    Only one cell is in memory at a time, so that a job may have any number.

    Returns:
        The number of cells.

    Raises:
        DataError: a cell's record is damaged.
    """
    count = 0
    with (
        _whole(folder.root / "cells.csv") as cells_file,
        _whole(folder.root / "chromosomes.csv") as chromosomes_file,
    ):
        cells, chromosomes = csv.writer(cells_file), csv.writer(chromosomes_file)
        cells.writerow(CELL_COLUMNS)
        chromosomes.writerow(CHROMOSOME_COLUMNS)
        for cell in folder.cells():
            cells.writerow([_plain(v) for v in cell_row(cell)])
            chromosomes.writerows([_plain(v) for v in row] for row in chromosome_rows(cell))
            count += 1
    _write_coco(folder)
    return count


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


def _plain(value: object) -> object:
    is_formula = isinstance(value, str) and value.startswith(FORMULA)
    return f"'{value}" if is_formula else value


def write_errors(folder: OutputFolder, errors: list[tuple[str, str]]) -> None:
    """Writes ``errors.csv``, a row for each file that could not be used; none, no file."""
    path = folder.root / "errors.csv"
    if not errors:
        path.unlink(missing_ok=True)
        return
    with _whole(path) as file:
        table = csv.writer(file)
        table.writerow(("image", "error"))
        for image, error in sorted((printable(image), printable(error)) for image, error in errors):
            table.writerow([_plain(image), _plain(error)])


def _write_coco(folder: OutputFolder) -> None:
    """Writes a COCO data set whose annotations are the chromosomes, with scores.

    An unidentified one has the category that is most probable, and ``"unidentified": true``.
    ``file_name`` is relative to the folder that holds all the images, as annotation tools expect;
    ``path`` is where the image was.
    """
    paths = [cell.path for cell in folder.cells() if cell.path]
    images = _common_folder(paths)
    head = {"info": {"description": DISCLAIMER}, "licenses": [], "categories": coco_categories()}
    with _whole(folder.root / "coco.json") as file:
        file.write(json.dumps(head)[:-1])
        # Two passes: the annotations of a large job do not fit into memory with its images.
        file.write(', "images": [')
        _write_items(
            file, (_coco_image(n, c, images) for n, c in enumerate(folder.cells(), start=1))
        )
        file.write('], "annotations": [')
        _write_items(file, _coco_annotations(folder))
        file.write("]}\n")


def _write_items(file: IO[str], items: Iterator[dict[str, object]]) -> None:
    for number, item in enumerate(items):
        file.write((",\n" if number else "\n") + json.dumps(item, ensure_ascii=False))


def _common_folder(paths: list[str]) -> str:
    """Returns the folder that holds all the files, empty if there is none, as on two drives."""
    try:
        return os.path.commonpath([os.path.dirname(path) for path in paths])  # noqa: PTH120
    except ValueError:
        return ""


def _coco_image(number: int, cell: Cell, images: str) -> dict[str, object]:
    name = os.path.relpath(cell.path, images) if cell.path and images else cell.path
    return {
        "id": number,
        "file_name": Path(name).as_posix() if name else cell.name,
        "path": cell.path,
        "width": cell.width,
        "height": cell.height,
        "case_id": cell.case_id,
    }


def _coco_annotations(folder: OutputFolder) -> Iterator[dict[str, object]]:
    number = 0
    for image_id, cell in enumerate(folder.cells(), start=1):
        for chromosome in cell.counted:
            number += 1
            x0, y0, x1, y1 = (round(float(v), 2) for v in chromosome.box)
            width, height = round(x1 - x0, 2), round(y1 - y0, 2)
            unidentified = {} if chromosome.placed else {"unidentified": True}
            yield {
                "id": number,
                "image_id": image_id,
                "category_id": CLASSES.index(chromosome.name) + 1,
                "bbox": [x0, y0, width, height],
                "segmentation": [[x0, y0, x1, y0, x1, y1, x0, y1]],
                "area": round(width * height, 2),
                "iscrowd": 0,
                "score": round(chromosome.confidence, 5),
                **unidentified,
            }


def _open(path: Path) -> IO[str]:
    # What is no character, as of a file name that is no UTF-8, becomes an escape.
    return path.open("w", encoding="utf-8", errors="backslashreplace", newline="")


@contextmanager
def _whole(path: Path) -> Iterator[IO[str]]:
    """Opens a temporary file that takes the path when the block ends well."""
    with whole_file(path) as temporary, _open(temporary) as file:
        yield file
