"""A cell as JSON, and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from deepacc_d2.cell import LEFT_OUT, UNIDENTIFIED, Cell, Chromosome, Mask, Pose
from deepacc_d2.chromosomes import CLASSES, class_index
from deepacc_d2.disclaimer import DISCLAIMER
from deepacc_d2.errors import DataError

FORMAT = 2
"""Raised when a reader of the old records could not read the new ones."""

NO_CHROMOSOME = "none"
NO_CLASS = "?"
"""The class of an unidentified chromosome; that of a box that is left out is null."""

DIGITS = 5


def to_record(cell: Cell) -> dict[str, Any]:
    """Returns a cell as plain containers, classes by their names, boxes XYXY in pixels."""
    return {
        "format": FORMAT,
        "name": cell.name,
        "image": {"path": cell.path, "width": cell.width, "height": cell.height},
        "case": cell.case_id,
        "status": cell.status,
        "reasons": list(cell.reasons),
        "karyotype": cell.karyotype,
        "karyotype_by_box": cell.karyotype_by_box,
        "draft": cell.draft,
        "confidence": significant(cell.confidence),
        "count": len(cell.counted),
        "unidentified": len(cell.unidentified),
        "counts": dict(zip(CLASSES, cell.counts().tolist(), strict=True)),
        "flags": list(cell.flags),
        "view": cell.view,
        "chromosomes": [
            {"id": number, **_chromosome(c)} for number, c in enumerate(cell.chromosomes, start=1)
        ],
        "disclaimer": DISCLAIMER,
    }


def significant(confidence: float) -> float:
    """Returns a cell's confidence rounded to five significant digits.

    So many decimals would make all cells alike that are far from right.
    """
    return float(f"{confidence:.{DIGITS}g}")


def class_of(chromosome: Chromosome) -> str | None:
    """Returns the name of a chromosome's class, :data:`NO_CLASS`, or None where it is left out."""
    if chromosome.placed:
        return CLASSES[chromosome.assigned]
    return NO_CLASS if chromosome.assigned == UNIDENTIFIED else None


def _chromosome(chromosome: Chromosome) -> dict[str, Any]:
    names = (*CLASSES, NO_CHROMOSOME)
    return {
        "box": [round(float(v), 2) for v in chromosome.box],
        "class": class_of(chromosome),
        "class_by_box": CLASSES[chromosome.label],
        "confidence": round(chromosome.confidence, DIGITS),
        "flags": list(chromosome.flags),
        "mask": None if chromosome.mask is None else _mask(chromosome.mask),
        "doubtful_cut": None if chromosome.doubtful_cut is None else list(chromosome.doubtful_cut),
        "polarity": None if chromosome.pose is None else _pose(chromosome.pose),
        # What rounds to nothing is left out: most of 25 numbers do.
        "probabilities": {
            name: round(float(p), DIGITS)
            for name, p in zip(names, chromosome.probabilities, strict=True)
            if round(float(p), DIGITS) > 0
        },
    }


def _mask(mask: Mask) -> dict[str, Any]:
    return {
        "polygons": [[list(point) for point in ring] for ring in mask.rings],
        "reconstructed": round(mask.shared, 4),
    }


def _pose(pose: Pose) -> dict[str, Any]:
    sure = pose.centromere_confidence
    return {
        "p_arm": [round(v, 4) for v in pose.p_arm],
        "probability": round(pose.probability, DIGITS),
        "centromere": {
            "point": [round(v, 2) for v in pose.centromere],
            "share": round(pose.share, 4),
            "confidence": None if sure is None else round(sure, DIGITS),
        },
        "method": pose.method,
    }


def _from_pose(record: Mapping[str, Any] | None) -> Pose | None:
    # Records of earlier versions do not have it.
    if record is None:
        return None
    centromere = record["centromere"]
    (px, py), (cx, cy) = record["p_arm"], centromere["point"]
    return Pose(
        p_arm=(float(px), float(py)),
        probability=record["probability"],
        centromere=(float(cx), float(cy)),
        share=centromere["share"],
        centromere_confidence=centromere["confidence"],
        method=record["method"],
    )


def from_record(record: Mapping[str, Any], source: str = "record") -> Cell:
    """Returns the cell that a record describes.

    Args:
        record: of :func:`to_record`.
        source: the file's name, for errors.

    Raises:
        DataError: the record is of another format, or lacks something.
    """
    if record.get("format") != FORMAT:
        raise DataError(
            f"{source} is of format {record.get('format')}, not {FORMAT}: predict it again"
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
            status=record["status"],
            reasons=tuple(record["reasons"]),
            draft=record["draft"],
        )
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{source} is damaged ({error!r}): predict it again") from error


def _from_chromosome(record: Mapping[str, Any]) -> Chromosome:
    given = record["probabilities"]
    x0, y0, x1, y1 = (float(v) for v in record["box"])
    return Chromosome(
        box=(x0, y0, x1, y1),
        probabilities=np.array([given.get(name, 0.0) for name in (*CLASSES, NO_CHROMOSOME)]),
        label=class_index(record["class_by_box"]),
        assigned=_assigned(record["class"]),
        confidence=record["confidence"],
        flags=tuple(record["flags"]),
        mask=_from_mask(record.get("mask")),
        doubtful_cut=_from_doubts(record.get("doubtful_cut")),
        pose=_from_pose(record.get("polarity")),
    )


def _from_mask(record: Mapping[str, Any] | None) -> Mask | None:
    # Records of earlier versions have neither this nor the next.
    if record is None:
        return None
    rings = tuple(tuple((float(x), float(y)) for x, y in ring) for ring in record["polygons"])
    return Mask(rings, float(record["reconstructed"]))


def _from_doubts(record: list[str] | None) -> tuple[str, ...] | None:
    return None if record is None else tuple(record)


def _assigned(name: str | None) -> int:
    if name is None:
        return LEFT_OUT
    return UNIDENTIFIED if name == NO_CLASS else class_index(name)
