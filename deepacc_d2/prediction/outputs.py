"""The files of one cell: overlay, karyogram, record."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import cv2

from deepacc_d2.cell import MARKER, Cell
from deepacc_d2.errors import ConfigError
from deepacc_d2.files import whole_file, write_bytes, write_json
from deepacc_d2.images.gray import Gray
from deepacc_d2.images.resolution import read_scale
from deepacc_d2.karyogram import Karyogram, build_karyogram, draw_overlay
from deepacc_d2.karyogram.shape import rotation_of
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
    align: str = "centromere",
    crops: bool = False,
) -> None:
    """Draws and writes a cell; its record comes last, so that an unfinished cell has none.

    A field without any chromosome gets no karyogram.

    Args:
        folder: the job's.
        gray: uint8 (H, W), the image.
        cell: what was found in it.
        overlay: draw the image with its boxes.
        karyogram: suffixes of the karyograms to draw.
        align: how chromosomes stand in them; see :func:`deepacc_d2.karyogram.build_karyogram`.
        crops: write each chromosome as a picture of its own, straightened and upright.
    """
    if overlay:
        drawn = cv2.cvtColor(draw_overlay(gray, cell), cv2.COLOR_RGB2BGR)
        write_bytes(folder.overlay(cell.name), cv2.imencode(".png", drawn)[1].tobytes())
    built = None
    if (karyogram or crops) and cell.chromosomes:
        pixel_size = read_scale(cell.path).pixel_size
        built = build_karyogram(gray, cell, align=align, pixel_size=pixel_size)
        for chromosome, strip in zip(cell.chromosomes, built.strips, strict=True):
            chromosome.doubtful_cut = strip.doubts
            chromosome.pose = strip.pose
        for suffix in karyogram if cell.counted else ():
            with whole_file(folder.karyogram(cell.name, suffix)) as path:
                built.save(path)
        if crops:
            write_crops(folder.crops(cell.name), built)
    record = to_record(cell)
    if built is not None:
        add_shapes(record, built)
    write_json(folder.record(cell.name), record, indent=1)


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


def add_shapes(record: dict[str, Any], karyogram: Karyogram) -> None:
    """Adds to a cell's record what its karyogram shows: band level, outlines and rotations."""
    level = karyogram.band_level
    record["band_level"] = None if level is None else asdict(level)
    for chromosome, strip in zip(record["chromosomes"], karyogram.strips, strict=True):
        chromosome["outline"] = [[round(x, 1), round(y, 1)] for x, y in strip.outline]
        arm = strip.pose.p_arm if strip.pose is not None else None
        chromosome["rotation"] = None if arm is None else round(rotation_of(arm), 1)


def write_crops(root: Path, karyogram: Karyogram) -> None:
    """Writes single chromosomes as PNG, dark on white, p arm up: ``<class>_<n>.png``.

    Those without a class are ``unidentified_<n>``, ``mar_<n>`` or ``not_placed_<n>``.
    """
    root.mkdir(parents=True, exist_ok=True)
    numbers: Counter[str] = Counter()
    for chromosome, strip in zip(karyogram.cell.chromosomes, karyogram.strips, strict=True):
        name = strip.name
        if not strip.placed:
            name = "unidentified" if strip.unidentified else "not_placed"
            name = "mar" if MARKER in chromosome.flags else name
        numbers[name] += 1
        data = cv2.imencode(".png", strip.pixels())[1].tobytes()
        write_bytes(root / f"{name}_{numbers[name]}.png", data)
