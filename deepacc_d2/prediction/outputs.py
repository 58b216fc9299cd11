"""The files of one cell: overlay, karyogram, record."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import cv2

from deepacc_d2.cell import Cell
from deepacc_d2.errors import ConfigError
from deepacc_d2.files import whole_file, write_bytes, write_json
from deepacc_d2.images.gray import Gray
from deepacc_d2.karyogram import build_karyogram, draw_overlay
from deepacc_d2.prediction.folder import OutputFolder
from deepacc_d2.prediction.record import to_record

VECTOR = (".svg", ".pdf")
KARYOGRAMS = (".png", *VECTOR)


def check_suffixes(suffixes: Sequence[str]) -> tuple[str, ...]:
    """Returns the suffixes of karyograms with their dots.

    Raises:
        ConfigError: one is none that we draw.
    """
    dotted = tuple(dict.fromkeys(f".{suffix.lower().lstrip('.')}" for suffix in suffixes))
    for suffix in dotted:
        if suffix not in KARYOGRAMS:
            raise ConfigError(f"karyogram={suffix}: choose from png, svg and pdf")
    return dotted


def write_cell(
    folder: OutputFolder,
    gray: Gray,
    cell: Cell,
    *,
    overlay: bool = True,
    karyogram: Sequence[str] = (".png",),
) -> None:
    """Draws and writes a cell; its record comes last, so that an unfinished cell has none.

    Args:
        folder: the job's.
        gray: uint8 (H, W), the image.
        cell: what was found in it.
        overlay: draw the image with its boxes.
        karyogram: suffixes of the karyograms to draw.
    """
    if overlay:
        drawn = cv2.cvtColor(draw_overlay(gray, cell), cv2.COLOR_RGB2BGR)
        write_bytes(folder.overlay(cell.name), cv2.imencode(".png", drawn)[1].tobytes())
    if karyogram:
        built = build_karyogram(gray, cell)
        for chromosome, strip in zip(cell.chromosomes, built.strips, strict=True):
            chromosome.doubtful_cut = strip.doubts
            chromosome.pose = strip.pose
        for suffix in karyogram:
            with whole_file(folder.karyogram(cell.name, suffix)) as path:
                built.save(path)
    write_json(folder.record(cell.name), to_record(cell), indent=1)


def draw(folder: OutputFolder, gray: Gray, cell: Cell, options: Mapping[str, Any]) -> str:
    """Writes a cell by :func:`write_cell` with its options.

    Returns:
        What went wrong in one line; empty if all is well. One cell never ends a job.
    """
    try:
        write_cell(folder, gray, cell, **options)
    except OSError as error:
        return f"its results cannot be written ({error.strerror or error}): free some space"
    except Exception as error:  # a bug that one picture shows must not stop thousands
        return f"it cannot be drawn ({type(error).__name__}: {error}): please report this"
    return ""
