from __future__ import annotations

import numpy as np
import pytest

from deepacc_d2.data.made.placing import covered, is_free, pick, turned


def by_hand(busy: np.ndarray, shape: np.ndarray) -> np.ndarray:
    rows, columns = (big - own + 1 for big, own in zip(busy.shape, shape.shape, strict=True))
    return np.array(
        [
            [
                int((busy[i : i + shape.shape[0], j : j + shape.shape[1]] & shape).sum())
                for j in range(columns)
            ]
            for i in range(rows)
        ]
    )


@pytest.fixture
def field() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    busy = np.zeros((41, 53), dtype=bool)
    for y, x in rng.integers(0, 38, (6, 2)):
        busy[y : y + 5, x : x + 4] = True
    shape = np.zeros((11, 7), dtype=bool)
    shape[2:, 3] = shape[5, :] = True
    return busy, shape


def test_free_places_are_those_where_nothing_is_covered(
    field: tuple[np.ndarray, np.ndarray],
) -> None:
    expected = by_hand(*field)
    assert covered(*field) == pytest.approx(expected, abs=0.01)
    assert np.array_equal(is_free(*field), expected == 0)
    assert 0 < (expected == 0).sum() < expected.size


@pytest.mark.parametrize("step", [2, 3, 4])
def test_steps_overlook_places_but_allow_no_wrong_one(
    field: tuple[np.ndarray, np.ndarray], step: int
) -> None:
    expected = by_hand(*field)
    allowed = np.argwhere(is_free(*field, step))
    assert len(allowed) > 3
    for row, column in allowed * step:
        assert expected[row, column] == 0


def test_an_empty_margin_stays_inside_too() -> None:
    shape = np.zeros((7, 9), dtype=bool)
    shape[1, 1] = True  # the rest of it is margin
    for step in (1, 2, 3, 4):
        places = np.argwhere(is_free(np.zeros((22, 23), dtype=bool), shape, step)) * step
        assert len(places)
        assert (places + shape.shape <= (22, 23)).all()


def test_a_shape_that_is_too_large_has_no_place(field: tuple[np.ndarray, np.ndarray]) -> None:
    busy, shape = field
    rng = np.random.default_rng(0)
    assert pick(is_free(shape, busy), rng) is None
    assert pick(is_free(np.ones_like(busy), shape), rng) is None
    only = np.zeros((5, 6), dtype=bool)
    only[2, 4] = True
    assert pick(only, rng) == (2, 4)


def test_turning_keeps_what_is_there() -> None:
    patch = np.zeros((20, 9), dtype=np.float32)
    patch[4:16, 3:6] = 50
    for angle, scale in ((0, 1), (90, 1), (37, 1), (200, 1.3)):
        out = turned(patch, angle, scale)
        assert out.shape[0] == out.shape[1]
        assert out.sum() == pytest.approx(patch.sum() * scale**2, rel=0.03)
    assert np.argmax(turned(patch, 90, 1).sum(axis=0) > 0) < np.argmax(
        turned(patch, 90, 1).sum(axis=1) > 0
    )
