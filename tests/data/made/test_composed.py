from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from deepacc_d2.data.made.composed import INK, compose, find_cells
from deepacc_d2.data.synthetic import SyntheticConfig
from deepacc_d2.data.synthetic.chromosome import draw_chromosome, draw_heteromorphism, render
from deepacc_d2.data.synthetic.config import batch_style
from deepacc_d2.errors import DataError
from deepacc_d2.ideogram import load_ideograms


def crop(name: str, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    style = batch_style(SyntheticConfig(), 0)
    chromosome = draw_chromosome(rng, load_ideograms()[name], style, draw_heteromorphism(rng), 1.0)
    patch = render(rng, chromosome, style, 100 + 100j)
    return np.rint(255 * np.exp(-patch.density)).astype(np.uint8)


@pytest.fixture(scope="module")
def crops() -> list[np.ndarray]:
    return [crop(name, n) for n, name in enumerate(["1", "1", "8", "14", "20", "21", "21", "21"])]


CLASSES = np.array([0, 0, 7, 13, 19, 20, 20, 20])


def test_all_are_there_and_apart(crops: list[np.ndarray]) -> None:
    made = compose(crops, CLASSES, seed=1)
    assert made is not None
    assert made.classes.tolist() == CLASSES.tolist()
    assert made.image[0, 0] == 255
    ink = (made.image < 255 - INK).astype(np.uint8)
    count, labels = cv2.connectedComponents(ink)
    largest = [int((labels == n).sum()) for n in range(1, count)]
    assert sum(area > 60 for area in largest) == len(crops)
    for (x0, y0, x1, y1), own in zip(made.boxes, crops, strict=True):
        inside = labels[int(y0) : int(np.ceil(y1)), int(x0) : int(np.ceil(x1))]
        part = np.bincount(inside[inside > 0]).argmax()
        assert (labels == part).sum() == pytest.approx((own < 255 - INK).sum(), rel=0.1)
        rows, columns = np.nonzero(labels == part)
        assert x0 <= columns.min()
        assert columns.max() + 1 <= x1
        assert y0 <= rows.min()
        assert rows.max() + 1 <= y1


def test_the_seed_decides(crops: list[np.ndarray]) -> None:
    first, again, other = (compose(crops, CLASSES, seed) for seed in (3, 3, 4))
    assert first is not None
    assert again is not None
    assert other is not None
    assert np.array_equal(first.image, again.image)
    assert np.array_equal(first.boxes, again.boxes)
    assert not np.array_equal(first.boxes, other.boxes)


def test_empty_crops_are_left_out(crops: list[np.ndarray]) -> None:
    white = np.full((30, 20), 255, np.uint8)
    made = compose([white, crops[0], crops[3]], np.array([4, 0, 13]), 0)
    assert made is not None
    assert made.classes.tolist() == [0, 13]
    assert compose([white], np.array([4]), 0) is None


def test_crops_are_found_by_their_names(tmp_path: Path) -> None:
    for name in ("b.2/21_1.tiff", "b.2/21_0.tiff", "b.2/3_0.TIF", "a.1/24_0.png", "a.1/notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "empty").mkdir()
    first, second = find_cells(tmp_path)
    assert (first.name, first.classes.tolist()) == ("a.1", [23])
    assert (second.name, second.classes.tolist()) == ("b.2", [2, 20, 20])
    assert [path.name for path in second.files] == ["3_0.TIF", "21_0.tiff", "21_1.tiff"]


def test_no_crops_are_reported(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        find_cells(tmp_path / "none")
    with pytest.raises(DataError, match="holds no chromosome crops"):
        find_cells(tmp_path)
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "25_0.tiff").write_bytes(b"")
    with pytest.raises(DataError, match=r"outside 1\.\.24"):
        find_cells(tmp_path)
