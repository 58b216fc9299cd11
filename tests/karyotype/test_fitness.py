from __future__ import annotations

import numpy as np
import pytest

from deepacc_d2.cell import Cell, Chromosome
from deepacc_d2.data.synthetic import SyntheticConfig, render_metaphase
from deepacc_d2.karyogram import build_karyogram
from deepacc_d2.karyotype.fitness import (
    Showing,
    aligned_share,
    is_karyogram_page,
    smaller_spread,
    unfit_reasons,
)
from deepacc_d2.karyotype.settings import KaryotypeSettings

SETTINGS = KaryotypeSettings()


def metaphase(seed: int, index: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Image, boxes and classes of a synthetic cell."""
    gray, record = render_metaphase(SyntheticConfig(seed=seed, box_margin=3), index, 0)
    boxes = np.array([a["bbox"] for a in record["annotations"]], dtype=float)
    boxes[:, 2:] += boxes[:, :2]
    return gray, boxes, np.array([a["category_id"] - 1 for a in record["annotations"]])


@pytest.fixture(scope="module")
def pages() -> list[np.ndarray]:
    """Boxes of the chromosomes on karyograms that this project draws."""
    found = []
    for seed in (5, 6, 7):
        gray, boxes, classes = metaphase(seed)
        own = [
            Chromosome(tuple(box), np.full(25, 0.04), int(k), int(k), 0.9)
            for box, k in zip(boxes.tolist(), classes, strict=True)
        ]
        karyogram = build_karyogram(gray, Cell("a", "", *gray.shape[::-1], own, "", "", 0.5))
        places = [p for slot in karyogram.layout.slots for p in slot.places if p.strip is not None]
        found.append(np.array([[p.x0, p.y0, p.x1, p.y1] for p in places]))
    return found


def reasons(boxes: np.ndarray, doubtful: int = 0, **more: object) -> tuple[str, ...]:
    unclear = np.arange(len(boxes)) < doubtful
    return unfit_reasons(boxes, np.ones(len(boxes), bool), unclear, SETTINGS, **more)


def test_our_own_karyograms_are_told_from_metaphases(pages: list[np.ndarray]) -> None:
    for boxes in pages:
        assert is_karyogram_page(boxes)
        assert reasons(boxes)[0].startswith("the chromosomes stand upright in rows")
    for index in range(12):
        _, boxes, _ = metaphase(11, index)
        assert not is_karyogram_page(boxes)
        assert not is_karyogram_page(boxes[:, [1, 0, 3, 2]])


def test_a_page_is_known_with_boxes_that_jitter_are_missed_or_are_no_chromosomes(
    pages: list[np.ndarray],
) -> None:
    rng = np.random.default_rng(0)
    for boxes in pages:
        kept = boxes[rng.random(len(boxes)) < 0.75]
        kept = kept + rng.normal(0, 6, kept.shape)
        corner = rng.uniform([0, 0], boxes[:, 2:].max(axis=0), (4, 2))
        letters = np.concatenate([corner, corner + 40], axis=1)
        assert is_karyogram_page(np.concatenate([kept, letters]))
        # Baselines on one level, as other systems print.
        level = boxes.copy()
        rows = np.searchsorted([450, 800, 1150], boxes[:, 3])
        bottom = np.array([boxes[rows == r, 3].max() for r in range(4)])
        level[:, [1, 3]] += (bottom[rows] - boxes[:, 3])[:, None]
        assert is_karyogram_page(level)


def test_upright_chromosomes_in_a_single_row_or_at_any_height_are_no_page() -> None:
    x = np.arange(46) * 30.0
    row = np.stack([x, 0 * x, x + 20, 0 * x + 90], axis=1)
    assert aligned_share(row) == (1.0, 1.0)
    assert not is_karyogram_page(row)
    y = np.random.default_rng(0).uniform(0, 600, 46)
    assert not is_karyogram_page(row + np.stack([0 * x, y, 0 * x, y], axis=1))
    assert not is_karyogram_page(row[:5])
    assert aligned_share(row[:1]) == (0.0, 0.0)
    assert aligned_share([[0, 0, 5, 10], [9, 5, 14, 15], [20, 6, 25, 8]]) == (
        pytest.approx(2 / 3),
        1.0,
    )


def test_two_spreads_in_the_field() -> None:
    _, boxes, _ = metaphase(3)
    assert smaller_spread(boxes) == 0
    width = boxes[:, 2].max() - boxes[:, 0].min()
    size = float(np.median(np.sqrt(np.prod(boxes[:, 2:] - boxes[:, :2], axis=1))))
    moved = boxes + np.array([1, 0, 1, 0]) * (width + 4 * size)
    both = np.concatenate([boxes, moved[:20]])
    assert smaller_spread(both) == pytest.approx(20 / len(both))
    (reason,) = reasons(both)
    assert reason == f"there are two spreads in the field: 20 of {len(both)} chromosomes lie apart"
    # Chromosomes that strayed are no spread, and near ones are not apart.
    assert reasons(np.concatenate([boxes, moved[:5]])) == ()
    near = boxes + np.array([1, 0, 1, 0]) * (width + 2 * size)
    assert smaller_spread(np.concatenate([boxes, near])) == 0
    assert smaller_spread(np.zeros((0, 4))) == 0


def test_reasons_in_plain_words() -> None:
    _, boxes, _ = metaphase(3)
    number = len(boxes)
    size = float(np.median(np.sqrt(np.prod(boxes[:, 2:] - boxes[:, :2], axis=1))))
    assert reasons(boxes, showing=Showing(40 / size, 40.0)) == ()
    assert reasons(np.zeros((0, 4))) == ("no chromosome was found",)
    assert reasons(boxes[:1]) == ("only 1 chromosome was found, fewer than 35",)
    assert reasons(boxes, doubtful=number // 2) == ()
    assert reasons(boxes, doubtful=30) == (f"30 of {number} chromosomes are in doubt",)
    assert reasons(boxes, showing=Showing(100 / size, 40.0)) == (
        "the network saw chromosomes 2.5 times larger than in training",
    )
    assert reasons(boxes, showing=Showing(20 / size, 40.0, spread=False)) == (
        "no spread was found in the picture",
        "the network saw chromosomes 2.0 times smaller than in training",
    )


def test_boxes_that_are_left_out_do_not_count() -> None:
    _, boxes, _ = metaphase(3)
    kept = np.arange(len(boxes)) < 34
    doubtful = ~kept
    assert unfit_reasons(boxes, kept, doubtful, SETTINGS) == (
        "only 34 chromosomes were found, fewer than 35",
    )
