"""Tiny sources in every public format, drawn and written by the tests themselves."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np
import pytest

LabelledBox = tuple[str, tuple[float, float, float, float]]

THREE_BOXES: tuple[LabelledBox, ...] = (
    ("A1", (2, 3, 22, 13)),
    ("C6", (10, 20, 30, 40)),
    ("X", (40, 5, 60, 25)),
)


class SourceMaker:
    """Writes images and annotations under a folder; images are 64x48 unless told otherwise."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._count = 0

    def image(self, path: str, *, size: tuple[int, int] = (64, 48)) -> Path:
        """Writes an image of its own content; the suffix chooses the codec."""
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        self._count += 1
        pixels = np.random.default_rng(self._count).integers(0, 256, (size[1], size[0]))
        _, data = cv2.imencode(file.suffix, pixels.astype(np.uint8))
        file.write_bytes(data.tobytes())
        return file

    def text(self, path: str, text: str) -> Path:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
        return file

    def json(self, path: str, value: object) -> Path:
        return self.text(path, json.dumps(value))

    def voc(
        self,
        path: str,
        boxes: Iterable[LabelledBox] = THREE_BOXES,
        *,
        size: tuple[int, int] = (64, 48),
    ) -> Path:
        objects = "".join(
            f"<object><name>{name}</name><bndbox><xmin>{a}</xmin><ymin>{b}</ymin>"
            f"<xmax>{c}</xmax><ymax>{d}</ymax></bndbox></object>"
            for name, (a, b, c, d) in boxes
        )
        return self.text(
            path,
            f"<annotation><filename>{Path(path).stem}.jpg</filename><size><width>{size[0]}</width>"
            f"<height>{size[1]}</height><depth>3</depth></size>{objects}</annotation>",
        )

    def tseng(self, stems: Iterable[str]) -> None:
        """Adds sound images with their annotation to a source laid out as Tseng et al. publish."""
        for stem in stems:
            self.image(f"24_chromosomes_object/JEPG/{stem}.jpg")
            self.voc(f"24_chromosomes_object/annotations/{stem}.xml")


@pytest.fixture
def source(tmp_path: Path) -> SourceMaker:
    root = tmp_path / "src"
    root.mkdir()
    return SourceMaker(root)


@pytest.fixture
def tseng_source(source: SourceMaker) -> SourceMaker:
    """Ten cases of two images, the first seven cases listed in train.txt."""
    stems = [f"10500{case}{cell}" for case in range(10) for cell in (1, 2)]
    source.tseng(stems)
    source.text("train.txt", "".join(f"{stem}\n" for stem in stems[:14]))
    source.text("test.txt", "".join(f"{stem}\n" for stem in stems[14:]))
    return source
