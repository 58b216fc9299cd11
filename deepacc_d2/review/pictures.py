"""Karyograms of cells in review: as the program draws them, with what a person said of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from deepacc_d2.errors import DataError
from deepacc_d2.files import whole_file, write_bytes, write_json
from deepacc_d2.images.read import read_image
from deepacc_d2.images.resolution import read_scale
from deepacc_d2.karyogram import Karyogram, build_karyogram, draw_overlay
from deepacc_d2.prediction.folder import OutputFolder
from deepacc_d2.prediction.outputs import add_shapes
from deepacc_d2.prediction.record import class_of, to_record
from deepacc_d2.review.store.store import ReviewedCell
from deepacc_d2.review.summary import corrected, touched


def image_of(cell: ReviewedCell) -> NDArray[np.uint8]:
    """Reads a cell's image: uint8 (H, W).

    Raises:
        DataError: it is missing, cannot be read, or is not of the size that it had.
    """
    prediction = cell.state.prediction
    if not prediction.path:
        raise DataError(f"cell {cell.name} has no image file: it was predicted from an array")
    gray: NDArray[np.uint8] = read_image(prediction.path).gray
    if gray.shape != (prediction.height, prediction.width):
        raise DataError(
            f"image {prediction.path} is not what cell {cell.name} was predicted from: it has "
            f"{gray.shape[1]} x {gray.shape[0]} pixels, not {prediction.width} x "
            f"{prediction.height}"
        )
    return gray


def karyogram_of(cell: ReviewedCell, gray: NDArray[np.uint8]) -> Karyogram:
    """Builds the karyogram of a cell as it is now."""
    by_id = {c.id: c for c in cell.state.chromosomes}
    ordered = [by_id[number] for number in cell.found.ids]
    return build_karyogram(
        gray,
        cell.found.cell,
        turned=[n for n, c in enumerate(ordered) if c.turned],
        outlines={n: (c.outline,) for n, c in enumerate(ordered) if c.outline},
        pixel_size=read_scale(cell.state.prediction.path).pixel_size,
    )


def record_of(cell: ReviewedCell) -> dict[str, Any]:
    """Returns a cell's record as ``make predict`` writes it, plus ``review``.

    For a chromosome that differs from the prediction, ``review`` has what was predicted.
    """
    record = to_record(cell.found.cell)
    prediction = cell.state.prediction
    changed = corrected(cell.state)
    by_id = {c.id: c for c in cell.state.chromosomes}
    moved = touched(cell.state)
    chromosomes = []
    for place, number in enumerate(cell.found.ids):
        own = by_id[number]
        told: dict[str, object] = {
            "id": place + 1,
            "review_id": number,
            "by_person": own.by_person,
            "touched": number in moved,
            "marker": own.marker,
            "turned": own.turned,
            "derivative": own.derivative,
            "outline": [list(point) for point in own.outline],
        }
        if own.predicted is not None and number in moved:
            before = prediction.chromosomes[own.predicted]
            told["predicted"] = {
                "class": class_of(before),
                "box": list(before.box),
                "confidence": before.confidence,
            }
        chromosomes.append(told)
    gone = sorted(set(changed) - set(by_id))
    record["review"] = {
        "version": cell.version,
        "predicted_karyotype": prediction.karyotype,
        "confirmed": cell.state.confirmed,
        "edits": cell.state.edits,
        "markers": cell.found.markers,
        "notes": list(cell.state.notes),
        "chromosomes": chromosomes,
        "removed": [{"review_id": n, "class": changed[n][0]} for n in gone],
    }
    return record


def write_reviewed(
    folder: OutputFolder, cell: ReviewedCell, *, overlay: bool, karyogram: Sequence[str]
) -> str:
    """Draws and writes a cell as ``make predict`` does; without its image the record alone.

    Args:
        folder: to write to.
        cell: as it is now.
        overlay: draw the image with its boxes.
        karyogram: suffixes with their dots.

    Returns:
        Why nothing was drawn; empty if it was.
    """
    problem = ""
    record = record_of(cell)
    if overlay or karyogram:
        try:
            gray = image_of(cell)
        except DataError as error:
            problem = str(error)
        else:
            if overlay:
                drawn = cv2.cvtColor(draw_overlay(gray, cell.found.cell), cv2.COLOR_RGB2BGR)
                write_bytes(folder.overlay(cell.name), cv2.imencode(".png", drawn)[1].tobytes())
            built = karyogram_of(cell, gray) if karyogram and cell.found.cell.chromosomes else None
            if built is not None:
                add_shapes(record, built)
            for suffix in karyogram if built is not None and cell.found.cell.counted else ():
                assert built is not None
                with whole_file(folder.karyogram(cell.name, suffix)) as path:
                    built.save(Path(path))
    write_json(folder.record(cell.name), record, indent=1)
    return problem
