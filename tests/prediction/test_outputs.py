"""What is written of one cell: shapes in its record, single chromosomes, no page of nothing."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from deepacc_d2.cell import LEFT_OUT, UNIDENTIFIED, Cell, Chromosome
from deepacc_d2.errors import ConfigError
from deepacc_d2.karyogram import build_karyogram
from deepacc_d2.prediction.folder import OutputFolder, open_folder
from deepacc_d2.prediction.outputs import write_cell
from deepacc_d2.prediction.record import from_record


@pytest.fixture
def folder(tmp_path: Path) -> OutputFolder:
    return open_folder(tmp_path / "out", {"kind": "prediction"})


def drawn() -> tuple[np.ndarray, Cell]:
    """An upright, a level and a small bar, of which the last two have no class."""
    gray = np.full((200, 300), 235, np.uint8)
    boxes = [(40, 30, 52, 110), (100, 60, 180, 72), (240, 40, 252, 70)]
    for x0, y0, x1, y1 in boxes:
        cv2.rectangle(gray, (x0, y0), (x1, y1), 60, -1)
    found = []
    for n, (box, assigned) in enumerate(zip(boxes, (0, UNIDENTIFIED, LEFT_OUT), strict=True)):
        flags = ("unidentified", "marker") if n == 1 else ()
        floats = tuple(float(v) for v in box)
        found.append(Chromosome(floats, np.eye(25)[0], 0, assigned, 0.9, flags))  # type: ignore[arg-type]
    return gray, Cell("a", "", 300, 200, found, "2,?", "2,?", 0.5)


def test_shapes_and_single_chromosomes(folder: OutputFolder) -> None:
    gray, cell = drawn()
    write_cell(folder, gray, cell, overlay=False, crops=True)
    record = json.loads(folder.record("a").read_text())
    assert from_record(record).name == "a"
    assert record["band_level"] is None
    for written, chromosome in zip(record["chromosomes"], cell.chromosomes, strict=True):
        points = np.array(written["outline"])
        x0, y0, x1, y1 = chromosome.box
        # By hand: the outline of a bar is within a pixel or two of the bar itself.
        assert np.abs(points.min(axis=0) - (x0, y0)).max() <= 2.5
        assert np.abs(points.max(axis=0) - (x1, y1)).max() <= 2.5
    upright, level, _ = (abs(c["rotation"]) for c in record["chromosomes"])
    assert min(upright, 180 - upright) < 5
    assert abs(level - 90) < 5
    files = sorted(folder.crops("a").iterdir())
    assert [path.name for path in files] == ["1_1.png", "mar_1.png", "not_placed_1.png"]
    for path in files[:2]:
        picture = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
        assert picture.shape[0] > 3 * picture.shape[1], "it stands"
        assert picture[0, 0] > 250, "on white"


def test_an_empty_field_gets_no_karyogram(folder: OutputFolder) -> None:
    empty = Cell("empty", "", 300, 200, [], "", "", 0.0)
    write_cell(folder, np.full((200, 300), 235, np.uint8), empty, crops=True)
    assert folder.overlay("empty").is_file()
    assert folder.is_done("empty")
    assert not folder.karyogram("empty").exists()
    assert not folder.crops("empty").exists()


def test_the_alignment_of_a_job_is_that_of_its_pages(tmp_path: Path) -> None:
    job = {"kind": "prediction", "drawings": {"align": "line"}}
    assert open_folder(tmp_path / "a", job).alignment() == "line"
    assert open_folder(tmp_path / "b", {"kind": "prediction"}).alignment() == "centromere"
    gray, cell = drawn()
    with pytest.raises(ConfigError, match="align=middle: choose centromere or line"):
        build_karyogram(gray, cell, align="middle")
