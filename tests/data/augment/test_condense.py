"""Condensing isolated chromosomes: drawn bars, whose length, width and bands are known."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest
from detectron2.data import transforms as T

from deepacc_d2.data.augment.condense import Condensed, RandomCondensation
from deepacc_d2.data.augment.crowding import PlacingTransform, isolated
from deepacc_d2.data.synthetic import SyntheticConfig, render_metaphase
from deepacc_d2.errors import ConfigError
from deepacc_d2.images.spread import WHITE

SIZE = (200, 240)
# A bar from (60, 90), 80 pixels long and 16 wide, with a dark band at a quarter of its length.
LENGTH, WIDTH, LEFT, TOP = 80, 16, 60, 90
BAND = (LEFT + 18, LEFT + 22)


def bar(angle: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """The bar turned about its middle, and its box."""
    dark = np.zeros(SIZE, dtype=np.float32)
    dark[TOP : TOP + WIDTH, LEFT : LEFT + LENGTH] = 90
    dark[TOP : TOP + WIDTH, BAND[0] : BAND[1]] = 160
    middle = (LEFT + (LENGTH - 1) / 2, TOP + (WIDTH - 1) / 2)
    matrix = cv2.getRotationMatrix2D(middle, angle, 1.0)
    dark = cv2.warpAffine(dark, matrix, SIZE[::-1])
    image = np.rint(WHITE - dark).astype(np.uint8)
    rows, columns = np.nonzero(dark > 35)
    box = [columns.min() - 1, rows.min() - 1, columns.max() + 2, rows.max() + 2]
    return image, np.array([box], dtype=np.float64)


def condensed(angle: float = 0.0, **kwargs: Any) -> tuple[np.ndarray, np.ndarray]:
    """Darkness after the change, turned back, and the box in the image as it is."""
    image, boxes = bar(angle)
    (cutout,) = isolated(image, boxes)
    options = {"length": 1.0, "width": 1.0, "apart": 0.0, "spread": (0.0, 0.0), "centromere": 0.0}
    height, width = cutout.mask.shape
    center = (cutout.corner[0] + width / 2, cutout.corner[1] + height / 2)
    change = Condensed(cutout, center, additive=False, blur=0.0, **(options | kwargs))
    transform = PlacingTransform(image, [change])
    after = WHITE - transform.apply_image(image).astype(np.float32)
    middle = (LEFT + (LENGTH - 1) / 2, TOP + (WIDTH - 1) / 2)
    matrix = cv2.getRotationMatrix2D(middle, -angle, 1.0)
    return cv2.warpAffine(after, matrix, SIZE[::-1]), transform.apply_box(boxes)


def spans(line: np.ndarray) -> list[int]:
    """Lengths of the runs that are darker than the background."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], line > 45, [0]]).astype(int)))
    return list(edges[1::2] - edges[::2])


@pytest.mark.parametrize("angle", [0.0, 33.0, 90.0, 160.0])
def test_length_and_width_change_by_their_factors(angle: float) -> None:
    dark, _ = condensed(angle, length=0.6, width=1.5)
    (along,) = spans(dark[TOP + WIDTH // 2])
    (across,) = spans(dark[:, LEFT + LENGTH // 2])
    assert along == pytest.approx(0.6 * LENGTH, abs=3)
    assert across == pytest.approx(1.5 * WIDTH, abs=3)


def test_the_band_stays_at_its_share_of_the_length() -> None:
    dark, _ = condensed(length=0.6)
    line = dark[TOP + WIDTH // 2]
    inside = np.flatnonzero(line > 45)
    band = np.flatnonzero(line > 120)
    share = (band.mean() - inside[0]) / (inside[-1] - inside[0])
    assert min(share, 1 - share) == pytest.approx(0.25, abs=0.03)


def test_without_a_change_the_picture_stays() -> None:
    image, boxes = bar()
    dark, box = condensed()
    before = WHITE - image.astype(np.float32)
    # Drawn anew half a pixel away at most.
    assert dark.sum() == pytest.approx(before.sum(), rel=0.01)
    assert np.abs(cv2.blur(dark, (5, 5)) - cv2.blur(before, (5, 5))).max() < 30
    assert np.abs(box - boxes).max() <= 1


@pytest.mark.parametrize("angle", [0.0, 45.0])
def test_chromatids_lie_apart_and_each_has_the_band(angle: float) -> None:
    dark, _ = condensed(angle, apart=1.0)
    # Each is 0.62 of the width, and their axes are one width apart.
    first, second = spans(dark[:, LEFT + LENGTH // 2])
    assert first == pytest.approx(0.62 * WIDTH, abs=2)
    assert second == pytest.approx(0.62 * WIDTH, abs=2)
    for y in (TOP + WIDTH // 2 - WIDTH // 2, TOP + WIDTH // 2 + WIDTH // 2):
        assert 2 <= np.count_nonzero(dark[y] > 120) <= 6


def test_chromatids_meet_at_the_centromere() -> None:
    dark, _ = condensed(spread=(1.5, 1.5), centromere=-0.5)
    counts = [len(spans(dark[:, x])) for x in range(LEFT + 3, LEFT + LENGTH - 3)]
    # Together near a quarter, or three quarters, whichever way the axis points; apart at the ends.
    together = LEFT + 3 + np.flatnonzero(np.array(counts) == 1).mean()
    assert min(abs(together - LEFT - 20), abs(together - LEFT - 60)) < 5
    assert counts[0] == 2
    assert counts[-1] == 2


def test_bands_fade_along_the_axis_and_the_outline_stays() -> None:
    before, plain = condensed()
    dark, box = condensed(faded=12.0)
    line, was = dark[TOP + WIDTH // 2], before[TOP + WIDTH // 2]
    inside = slice(LEFT + 4, LEFT + LENGTH - 4)
    assert np.ptp(was[inside]) > 60
    assert np.ptp(line[inside]) < 25
    # Neither the tips nor the sides are blurred.
    assert abs(spans(line)[0] - spans(was)[0]) <= 2
    across = dark[:, LEFT + LENGTH // 2], before[:, LEFT + LENGTH // 2]
    assert abs(spans(across[0])[0] - spans(across[1])[0]) <= 2
    assert line[LEFT + 3] > 0.75 * line[LEFT + LENGTH // 2]
    assert np.abs(box - plain).max() <= 2


def test_either_arm_opens_by_itself() -> None:
    dark, _ = condensed(spread=(0.0, 1.5), centromere=0.0)
    counts = [len(spans(dark[:, x])) for x in (LEFT + 4, LEFT + LENGTH - 5)]
    assert sorted(counts) == [1, 2]


def test_chromatids_open_about_the_real_centromere() -> None:
    config = SyntheticConfig(seed=3, overlap_rate=0, nucleus_rate=0, debris_rate=0, num_batches=30)
    errors: list[float] = []
    for case in range(12):
        image, record = render_metaphase(config, case, 0)
        image = np.clip(image.astype(np.float32) * (WHITE / np.median(image)), 0, WHITE)
        truth = record["annotations"]
        boxes = np.array([a["bbox"] for a in truth])
        boxes[:, 2:] += boxes[:, :2]
        inputs = T.AugInput(image.astype(np.uint8), boxes=boxes)
        inputs.classes = np.array([a["category_id"] - 1 for a in truth])
        np.random.seed(case)  # noqa: NPY002
        transform = RandomCondensation(prob=1, opened=1)(inputs)
        for change in getattr(transform, "moves", []):
            if change.apart + max(change.spread) == 0:
                continue
            known = truth[change.cutout.row]
            tips = np.array(known["axis"])
            # Where the centromere is taken to be, on the straight line through the middle.
            length = float(np.linalg.norm(tips[1] - tips[0]))
            share = np.linalg.norm(np.array(known["centromere"]) - tips[0]) / length
            found = (change.centromere + 1) / 2
            errors.append(min(abs(found - share), abs(1 - found - share)))
    assert len(errors) > 60
    # Anywhere along the axis, as before, would be 0.2 off in the median.
    assert np.median(errors) < 0.05
    assert np.mean(np.array(errors) < 0.15) > 0.8


def test_without_classes_chromatids_open_anywhere() -> None:
    places = set()
    for seed in range(8):
        np.random.seed(seed)  # noqa: NPY002
        image, boxes = bar()
        transform = RandomCondensation(prob=1, opened=1)(T.AugInput(image, boxes=boxes))
        places |= {round(move.centromere, 2) for move in transform.moves}
    assert len(places) > 4


@pytest.mark.parametrize("angle", [0.0, 20.0])
def test_the_box_encloses_what_is_drawn(angle: float) -> None:
    image, boxes = bar(angle)
    (cutout,) = isolated(image, boxes)
    change = Condensed(cutout, (100.0, 98.0), False, 0.8, 1.3, 0.5, (0.5, 0.9), 0.1, 0.5)
    transform = PlacingTransform(image, [change])
    rows, columns = np.nonzero(transform.apply_image(image) <= WHITE - 35)
    drawn = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
    assert np.abs(transform.apply_box(boxes)[0] - drawn).max() <= 2


def test_only_isolated_chromosomes_change() -> None:
    image, boxes = bar()
    image[85:112, 100:104] = 80  # another one crosses it
    both = np.concatenate([boxes, [[99, 84, 105, 113]]])
    inputs = T.AugInput(image.copy(), boxes=both)
    RandomCondensation(prob=1)(inputs)
    assert np.array_equal(inputs.image, image)
    assert np.array_equal(inputs.boxes, both)


def test_it_is_drawn_for_its_share_of_images_and_never_crashes() -> None:
    changed = 0
    for seed in range(40):
        np.random.seed(seed)  # noqa: NPY002
        image, boxes = bar(9.0 * seed)
        image[20, 20] = 100  # one dark pixel is a chromosome here
        image[20:25, 200:206] = 120
        boxes = np.concatenate([boxes, [[19, 19, 22, 22], [199, 19, 207, 26]]])
        inputs = T.AugInput(image.copy(), boxes=boxes.copy())
        T.AugmentationList([RandomCondensation(prob=0.5)])(inputs)
        changed += not np.array_equal(inputs.image, image)
        assert np.isfinite(inputs.boxes).all()
        assert (inputs.boxes[:, 2:] > inputs.boxes[:, :2]).all()
    assert 10 <= changed <= 30
    empty = T.AugInput(np.full(SIZE, 240, np.uint8), boxes=np.zeros((0, 4)))
    RandomCondensation(prob=1)(empty)
    assert empty.boxes.shape == (0, 4)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"length": 1.2}, r"length=1\.2"),
        ({"width": 0.9}, r"width=0\.9"),
        ({"opened": 2}, r"opened=2 is no share"),
        ({"prob": -1}, r"prob=-1 is no share"),
    ],
)
def test_bad_settings_are_named(options: dict[str, float], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        RandomCondensation(**options)
