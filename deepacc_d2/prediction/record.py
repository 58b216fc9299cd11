"""A cell as JSON, and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from deepacc_d2.chromosomes import CLASSES, class_index
from deepacc_d2.errors import DataError
from deepacc_d2.karyotype.disclaimer import DISCLAIMER
from deepacc_d2.prediction.types import LEFT_OUT, Cell, Chromosome

FORMAT = 1
"""Raised when a reader of the old records could not read the new ones."""

NO_CHROMOSOME = "none"
DIGITS = 5


def to_record(cell: Cell) -> dict[str, Any]:
    """Returns a cell as plain containers, classes by their names, boxes XYXY in pixels."""
    return {
        "format": FORMAT,
        "name": cell.name,
        "image": {"path": cell.path, "width": cell.width, "height": cell.height},
        "case": cell.case_id,
        "karyotype": cell.karyotype,
        "karyotype_by_box": cell.karyotype_by_box,
        "confidence": round(cell.confidence, DIGITS),
        "count": len(cell.counted),
        "counts": dict(zip(CLASSES, cell.counts().tolist(), strict=True)),
        "flags": list(cell.flags),
        "view": cell.view,
        "chromosomes": [
            {"id": number, **_chromosome(c)} for number, c in enumerate(cell.chromosomes, start=1)
        ],
        "disclaimer": DISCLAIMER,
    }


def _chromosome(chromosome: Chromosome) -> dict[str, Any]:
    names = (*CLASSES, NO_CHROMOSOME)
    assigned = chromosome.assigned
    return {
        "box": [round(float(v), 2) for v in chromosome.box],
        "class": None if assigned == LEFT_OUT else CLASSES[assigned],
        "class_by_box": CLASSES[chromosome.label],
        "confidence": round(chromosome.confidence, DIGITS),
        "flags": list(chromosome.flags),
        # What rounds to nothing is left out: most of 25 numbers do.
        "probabilities": {
            name: round(float(p), DIGITS)
            for name, p in zip(names, chromosome.probabilities, strict=True)
            if round(float(p), DIGITS) > 0
        },
    }


def from_record(record: Mapping[str, Any], source: str = "record") -> Cell:
    """Returns the cell that a record tells of.

    Args:
        record: of :func:`to_record`.
        source: the file's name, for errors.

    Raises:
        DataError: the record is of another format, or lacks something.
    """
    if record.get("format") != FORMAT:
        raise DataError(
            f"{source} is of format {record.get('format')}, not {FORMAT}: predict it anew"
        )
    try:
        return Cell(
            name=record["name"],
            path=record["image"]["path"],
            width=record["image"]["width"],
            height=record["image"]["height"],
            chromosomes=[_from_chromosome(c) for c in record["chromosomes"]],
            karyotype=record["karyotype"],
            karyotype_by_box=record["karyotype_by_box"],
            confidence=record["confidence"],
            flags=tuple(record["flags"]),
            case_id=record["case"],
            view=dict(record["view"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{source} is damaged ({error!r}): predict it anew") from error


def _from_chromosome(record: Mapping[str, Any]) -> Chromosome:
    told = record["probabilities"]
    x0, y0, x1, y1 = (float(v) for v in record["box"])
    return Chromosome(
        box=(x0, y0, x1, y1),
        probabilities=np.array([told.get(name, 0.0) for name in (*CLASSES, NO_CHROMOSOME)]),
        label=class_index(record["class_by_box"]),
        assigned=LEFT_OUT if record["class"] is None else class_index(record["class"]),
        confidence=record["confidence"],
        flags=tuple(record["flags"]),
    )
