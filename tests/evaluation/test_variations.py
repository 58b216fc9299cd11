from __future__ import annotations

import cv2
import numpy as np
import pytest

from deepacc_d2.evaluation.variations import FIELD, VARIATIONS


def rod() -> tuple[np.ndarray, np.ndarray]:
    """A dark rod that fills its box on a light image."""
    gray = np.full((300, 400), 230, dtype=np.uint8)
    gray[60:150, 100:130] = 70
    return gray, np.array([[100.0, 60, 130, 150], [0, 0, 400, 300]])


@pytest.mark.parametrize("name", list(VARIATIONS))
def test_boxes_go_with_the_pixels(name: str) -> None:
    gray, boxes = rod()
    image, moved = VARIATIONS[name](gray, boxes, np.random.default_rng(3))
    levels = image.astype(np.float64)
    ground = np.median(levels[levels > 0])
    # Where the rod is, by its pixels: far from the background, inside the whole image's box.
    x0, y0, x1, y1 = moved[1].round().astype(int)
    inside = levels[y0:y1, x0:x1]
    far = np.abs(inside - np.median(inside)) > 0.5 * np.abs(inside - np.median(inside)).max()
    rows, columns = np.flatnonzero(far.any(axis=1)), np.flatnonzero(far.any(axis=0))
    found = [columns[0] + x0, rows[0] + y0, columns[-1] + 1 + x0, rows[-1] + 1 + y0]
    np.testing.assert_allclose(found, moved[0], atol=1.01, err_msg=f"{name}, ground {ground}")
    height, width = image.shape
    assert (moved >= 0).all()
    assert (moved <= [width, height, width, height]).all()


def test_what_changes() -> None:
    gray, boxes = rod()
    rng = np.random.default_rng(1)
    assert VARIATIONS["scale 0.5"](gray, boxes, rng)[0].shape == (150, 200)
    assert VARIATIONS["scale 2.0"](gray, boxes, rng)[0].shape == (600, 800)
    assert VARIATIONS["rotated"](gray, boxes, rng)[0].shape == (400, 300)
    field, moved = VARIATIONS["in a field"](gray, boxes, rng)
    assert field.shape == FIELD
    size = moved[1][2:] - moved[1][:2]
    assert size.max() == 400  # never enlarged
    large = np.full((1500, 1200), 230, dtype=np.uint8)
    _, moved = VARIATIONS["in a field"](large, np.array([[0.0, 0, 1200, 1500]]), rng)
    # The longest side of a large one is 45 percent of the field's height.
    assert moved[0][3] - moved[0][1] == pytest.approx(0.45 * 1024, abs=1)
    assert 150 < np.median(field) < 215
    assert cv2.Laplacian(field.astype(np.float64), cv2.CV_64F).std() > 5  # there is noise
    deep, _ = VARIATIONS["12 bits"](gray, boxes, rng)
    assert (deep.dtype, deep.min(), deep.max()) == (np.uint16, 70 * 16 + 8, 230 * 16 + 8)
    pale, _ = VARIATIONS["pale"](gray, boxes, rng)
    assert int(pale.max()) - int(pale.min()) == pytest.approx((230 - 70) / 3, abs=1)


def test_no_boxes() -> None:
    gray, _ = rod()
    for name, variation in VARIATIONS.items():
        _, moved = variation(gray, np.zeros((0, 4)), np.random.default_rng(0))
        assert moved.shape == (0, 4), name
