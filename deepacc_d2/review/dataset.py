"""A data set to train on, of the cells that people confirmed: the loop closes here."""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
from sqlalchemy import select

from deepacc_d2.chromosomes import coco_categories
from deepacc_d2.data.convert import convert
from deepacc_d2.errors import DataError
from deepacc_d2.review.export import check_new
from deepacc_d2.review.pictures import image_of
from deepacc_d2.review.store.database import reading
from deepacc_d2.review.store.store import ReviewedCell, Store
from deepacc_d2.review.store.tables import cells


@dataclass(frozen=True)
class Written:
    """What a data set was made of.

    Attributes:
        images: how many.
        skipped: by reason, how many cells are not in it.
        problems: a line for each image that has gone.
    """

    images: int
    skipped: dict[str, int]
    problems: tuple[str, ...]


def write_dataset(store: Store, out: Path, *, ratios: str = "3:1:1", seed: int = 0) -> Written:
    """Writes the confirmed cells in the internal format that ``make train`` takes.

    Only cells confirmed as analyzed or karyotyped, fit, and with a class for every chromosome: one
    without a class would teach that it is background. Images are written as 8-bit gray PNG, as the
    detector saw them; no case is in two splits.

    Args:
        store: of the review.
        out: new or empty.
        ratios: of train, val and test.
        seed: of the split.

    Raises:
        DataError: no cell can be used, or ``out`` is there.
        ConfigError: ``out`` cannot be written, or the ratios are wrong.
    """
    out = check_new(out)
    with reading(store.engine) as connection:
        numbers = connection.execute(select(cells.c.id).order_by(cells.c.name)).scalars().all()
    skipped: dict[str, int] = {}
    problems: list[str] = []
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as temporary:
        source = Path(temporary)
        (source / "images").mkdir()
        (source / "annotations").mkdir()
        for number in numbers:
            cell = store.cell(number)
            reason = _unusable(cell)
            if not reason:
                try:
                    gray = image_of(cell)
                except DataError as error:
                    problems.append(str(error))
                    reason = "without an image"
            if reason:
                skipped[reason] = skipped.get(reason, 0) + 1
                continue
            name = f"{cell.name}.png"
            cv2.imwrite(str(source / "images" / name), gray)
            images.append(_image(len(images) + 1, name, cell))
            annotations += _annotations(len(images), len(annotations), cell)
        if not images:
            told = ", ".join(f"{n} {reason}" for reason, n in sorted(skipped.items()))
            raise DataError(
                f"no cell can be trained on ({told or 'there is none'}): confirm cells as analyzed"
            )
        content = {
            "info": {"description": "cells confirmed in review"},
            "images": images,
            "annotations": annotations,
            "categories": coco_categories(),
        }
        (source / "annotations" / "review.json").write_text(json.dumps(content), encoding="utf-8")
        out.parent.mkdir(parents=True, exist_ok=True)
        convert("coco", source, out, split="case", ratios=ratios, seed=seed, overwrite=False)
    return Written(len(images), skipped, tuple(problems))


def _unusable(cell: ReviewedCell) -> str:
    """Returns why a cell cannot be trained on; empty if it can."""
    if cell.found.cell.unfit:
        return "unfit"
    if not cell.state.checked:
        return "not confirmed as analyzed"
    if cell.found.cell.unidentified:
        return "with a chromosome of no class"
    return ""


def _image(number: int, name: str, cell: ReviewedCell) -> dict[str, Any]:
    told = cell.found.cell
    case = told.case_id if told.case_id is not None else f"cell {told.name}"
    return {
        "id": number,
        "file_name": name,
        "width": told.width,
        "height": told.height,
        "case_id": case,
        "karyotype": told.karyotype,
    }


def _annotations(image: int, before: int, cell: ReviewedCell) -> list[dict[str, Any]]:
    made: list[dict[str, Any]] = []
    for chromosome in cell.found.cell.counted:
        x0, y0, x1, y1 = (float(v) for v in chromosome.box)
        made.append(
            {
                "id": before + len(made) + 1,
                "image_id": image,
                "category_id": chromosome.assigned + 1,
                "bbox": [x0, y0, round(x1 - x0, 2), round(y1 - y0, 2)],
                "area": round((x1 - x0) * (y1 - y0), 2),
                "iscrowd": 0,
            }
        )
    return made
