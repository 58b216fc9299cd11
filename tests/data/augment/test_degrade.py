"""Augmentations that change pixels as another laboratory would: what follows, and by how much."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import pytest
from detectron2.data import transforms as T

from deepacc_d2.data.augment.degrade import (
    RandomFocus,
    RandomJpeg,
    RandomNoise,
    RandomNuclei,
    RandomStretch,
    RandomThickness,
)
from deepacc_d2.errors import ConfigError

WHITE, BLACK = 240, 60
BOX = (40, 30, 60, 90)


def draw_bar() -> np.ndarray:
    """A dark bar, 20 wide and 60 high, on white; (120, 100)."""
    image = np.full((120, 100), WHITE, dtype=np.uint8)
    image[BOX[1] : BOX[3], BOX[0] : BOX[2]] = BLACK
    return image


def apply(augmentation: T.Augmentation, image: np.ndarray, seed: int) -> T.AugInput:
    np.random.seed(seed)  # noqa: NPY002 - Detectron2 draws from NumPy's global generator
    inputs = T.AugInput(image.copy(), boxes=np.array([BOX], dtype=np.float32))
    augmentation(inputs)
    return inputs


ALL: list[Callable[[], T.Augmentation]] = [
    RandomStretch,
    lambda: RandomNuclei(chromosome_size=20, prob=1),
    lambda: RandomThickness(prob=1),
    lambda: RandomFocus(prob=1),
    lambda: RandomNoise(prob=1),
    lambda: RandomJpeg(prob=1),
]


@pytest.mark.parametrize("make", ALL)
def test_the_seed_decides(make: Callable[[], T.Augmentation]) -> None:
    first, again, other = (apply(make(), draw_bar(), seed) for seed in (3, 3, 5))
    np.testing.assert_array_equal(first.image, again.image)
    np.testing.assert_array_equal(first.boxes, again.boxes)
    assert first.image.dtype == np.uint8
    assert first.image.shape != other.image.shape or (first.image != other.image).any()


@pytest.mark.parametrize("make", ALL[1:])
def test_pixels_change_and_boxes_do_not(make: Callable[[], T.Augmentation]) -> None:
    image = draw_bar()
    found = apply(make(), image, 3)
    assert found.image.shape == image.shape
    assert (found.image != image).any()
    assert found.boxes.tolist() == [list(BOX)]


@pytest.mark.parametrize("kind", [RandomThickness, RandomFocus, RandomNoise, RandomJpeg])
def test_a_probability_of_0_leaves_the_image_alone(kind: Any) -> None:
    image = draw_bar()
    for seed in range(10):
        np.testing.assert_array_equal(apply(kind(prob=0), image, seed).image, image)


def test_stretch_keeps_the_area_and_boxes_follow() -> None:
    image, ratios = draw_bar(), []
    for seed in range(40):
        found = apply(RandomStretch(1.2), image, seed)
        height, width = found.image.shape
        assert height * width == pytest.approx(120 * 100, rel=0.011)  # sides are whole pixels
        factor = height / 120
        assert 1 / 1.2 - 0.01 < factor < 1.2 + 0.01
        ratios.append(factor)
        (box,) = found.boxes
        np.testing.assert_allclose(box[[1, 3]], np.array([30, 90]) * factor, rtol=1e-6)
        rows, columns = np.nonzero(found.image < (WHITE + BLACK) / 2)
        extent = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        np.testing.assert_allclose(box, extent, atol=1)
    assert min(ratios) < 0.9
    assert max(ratios) > 1.1


def test_thickness_widens_and_narrows_a_bar_by_less_than_a_pixel_a_side() -> None:
    most, image, changes = 0.6, draw_bar(), []
    for seed in range(40):
        line = apply(RandomThickness(most, prob=1), image, seed).image[60].astype(float)
        # Darkness of a line across the bar over the bar's depth is its width.
        changes.append((WHITE - line).sum() / (WHITE - BLACK) - 20)
        assert line[50] == BLACK
        assert line[[0, 99]].tolist() == [WHITE, WHITE]
    assert max(np.abs(changes)) <= 2 * most + 0.02
    assert min(changes) < -0.6
    assert max(changes) > 0.6


def test_focus_blurs_half_of_the_time_and_sharpens_the_other() -> None:
    image = draw_bar()
    steepest = WHITE - BLACK
    darker = softer = 0
    for seed in range(40):
        found = apply(RandomFocus(1.1, 1.0, prob=1), image, seed).image[60].astype(int)
        if found.min() < BLACK or found.max() > WHITE:  # sharpening overshoots at an edge
            darker += 1
        else:
            softer += np.abs(np.diff(found)).max() < steepest
        assert found[50] == BLACK
    assert darker > 10
    assert softer > 10


def test_the_widest_blur_is_the_one_that_is_allowed() -> None:
    image = draw_bar()
    widest = np.abs(np.diff(cv2.GaussianBlur(image, (0, 0), 1.1)[60].astype(int))).max()
    for seed in range(60):
        line = apply(RandomFocus(1.1, 0.0, prob=1), image, seed).image[60].astype(int)
        assert np.abs(np.diff(line)).max() >= widest


def test_noise_has_a_standard_deviation_up_to_the_most() -> None:
    image = np.full((200, 300), 128, dtype=np.uint8)
    found = [
        apply(RandomNoise(10, prob=1), image, seed).image.astype(float) - 128 for seed in range(40)
    ]
    deviations = [noise.std() for noise in found]
    # Rounding to whole gray levels adds a variance of a twelfth.
    assert max(deviations) < 10.2
    assert max(deviations) > 8
    assert np.mean(deviations) == pytest.approx(5, abs=1.5)
    for noise, deviation in zip(found, deviations, strict=True):
        assert abs(noise.mean()) < 6 * deviation / np.sqrt(image.size) + 0.01
    extremes = apply(RandomNoise(10, prob=1), np.full((50, 50), 255, np.uint8), 1).image
    assert extremes.max() == 255
    assert extremes.min() > 200  # no value ran over


def test_jpeg_is_a_jpeg_of_an_allowed_quality() -> None:
    image = draw_bar()
    cv2.circle(image, (20, 60), 11, 100, -1)
    allowed = set()
    for quality in range(50, 96):
        _, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])
        allowed.add(cv2.imdecode(data, cv2.IMREAD_GRAYSCALE).tobytes())
    found = {apply(RandomJpeg(50, prob=1), image, seed).image.tobytes() for seed in range(40)}
    assert found <= allowed
    assert len(found) > 5


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RandomStretch(0.9), r"largest=0\.9"),
        (lambda: RandomStretch(2), r"largest=2"),
        (lambda: RandomThickness(1.5), r"most=1\.5 is no share"),
        (lambda: RandomThickness(prob=-0.1), r"prob=-0\.1 is no share"),
        (lambda: RandomFocus(0.0), r"blur=0\.0"),
        (lambda: RandomFocus(sharpen=-1), r"sharpen=-1"),
        (lambda: RandomFocus(prob=2), r"prob=2"),
        (lambda: RandomNoise(-1), r"most=-1"),
        (lambda: RandomNoise(prob=float("nan")), r"prob=nan"),
        (lambda: RandomJpeg(0), r"lowest=0"),
        (lambda: RandomJpeg(96), r"lowest=96"),
    ],
)
def test_bad_arguments(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make()


def test_a_nucleus_multiplies_light_and_leaves_the_bar_visible() -> None:
    changed = apply(RandomNuclei(chromosome_size=60, most=1, prob=1), draw_bar(), seed=1).image
    light = changed / draw_bar()
    assert light.max() <= 1 + 0.5 / BLACK, "a nucleus absorbs, it never brightens"
    covered = light < 0.95
    assert 0.05 < covered.mean() < 1
    # Transmission is that of the nucleus alone, on the bar as on the slide: densities add up.
    rows = slice(BOX[1], BOX[3])
    on_bar, off_bar = light[rows, BOX[0] + 1], light[rows, BOX[0] - 2]
    assert np.abs(on_bar - off_bar).max() < 0.2
    inside = covered[rows, BOX[0] + 1] & covered[rows, BOX[0] - 2]
    assert inside.any()
    assert (changed[rows, BOX[0] + 1] < changed[rows, BOX[0] - 2])[inside].all()


def test_nuclei_need_a_size_and_a_density() -> None:
    for wrong in ({"chromosome_size": 2}, {"chromosome_size": 48, "dark": 0}):
        with pytest.raises(ConfigError, match="nuclei need"):
            RandomNuclei(**wrong)
