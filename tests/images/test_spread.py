"""The spread in a field: its place and size by drawn truth, and an honest None elsewhere."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from deepacc_d2.data.synthetic.config import SyntheticConfig
from deepacc_d2.data.synthetic.render import render_metaphase
from deepacc_d2.images.spread import Spread, find_spread, is_inverted, normalize_tone


@pytest.fixture(scope="module")
def metaphase() -> tuple[np.ndarray, np.ndarray, float]:
    """An image, XYXY around its chromosomes, and the true size of one."""
    image, record = render_metaphase(SyntheticConfig(nucleus_rate=0, seed=5), case=2, cell=1)
    boxes = np.array([a["bbox"] for a in record["annotations"]])
    sides = boxes[:, 2:].copy()
    boxes[:, 2:] += boxes[:, :2]
    around = np.concatenate([boxes[:, :2].min(axis=0), boxes[:, 2:].max(axis=0)])
    return image, around, float(np.median(np.sqrt(sides.prod(axis=1))))


def _scaled(image: np.ndarray, factor: float) -> np.ndarray:
    method = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
    return cv2.resize(image, None, fx=factor, fy=factor, interpolation=method)


def _in_field(image: np.ndarray, noise: float = 3.0, nuclei: tuple[int, ...] = ()) -> np.ndarray:
    """The image at 300, 200 of a gray field of 1280x1024, next to nuclei of these gray levels."""
    field = np.full((1024, 1280), 185.0)
    height, width = image.shape
    field[200 : 200 + height, 300 : 300 + width] = np.minimum(
        185, image * (185 / np.percentile(image, 90))
    )
    for level, center in zip(nuclei, [(100, 100), (1150, 850), (1100, 120)], strict=False):
        cv2.circle(field, center, 70, float(level), -1)
    field = cv2.GaussianBlur(field, (0, 0), 0.7)
    field += np.random.default_rng(0).normal(0, noise, field.shape)
    return np.clip(field, 0, 255).astype(np.uint8)


def _close(spread: Spread | None, around: np.ndarray, size: float) -> None:
    """A spread was found, and no side of its box is off by a chromosome."""
    assert spread is not None
    assert np.abs(np.array(spread.box) - around).max() < size


def test_the_box_is_around_the_chromosomes(metaphase):
    image, around, size = metaphase
    spread = find_spread(image)
    _close(spread, around, size)
    assert spread.others == 0


@pytest.mark.parametrize("factor", [0.25, 0.33, 0.5, 2.0, 3.0])
def test_the_size_follows_the_magnification(metaphase, factor):
    image, around, size = metaphase
    own = find_spread(image)
    spread = find_spread(_scaled(image, factor))
    _close(spread, around * factor, size * factor)
    assert spread.chromosome_size == pytest.approx(own.chromosome_size * factor, rel=0.1)


@pytest.mark.parametrize("turn", ["inverted", "rotated", "blurred", "noisy", "pale"])
def test_the_size_is_the_same_however_the_picture_was_taken(metaphase, turn):
    image, _, _ = metaphase
    noise = np.random.default_rng(1).normal(0, 6, image.shape)
    pictures = {
        "inverted": 255 - image,
        "rotated": np.ascontiguousarray(np.rot90(image)),
        "blurred": cv2.GaussianBlur(image, (0, 0), 1.5),
        "noisy": np.clip(image + noise, 0, 255).astype(np.uint8),
        "pale": (image * 0.3 + 130).astype(np.uint8),
    }
    own, spread = find_spread(image), find_spread(pictures[turn])
    assert spread is not None
    assert spread.chromosome_size == pytest.approx(own.chromosome_size, rel=0.12)


@pytest.mark.parametrize("nuclei", [(), (70, 70, 70), (40, 40), (150, 150, 150)])
def test_nuclei_in_a_noisy_field_are_told_from_the_spread(metaphase, nuclei):
    image, around, size = metaphase
    own = find_spread(image)
    spread = find_spread(_in_field(_scaled(image, 0.4), nuclei=nuclei))
    _close(spread, around * 0.4 + [300, 200, 300, 200], size * 0.4 * 1.5)
    assert spread.chromosome_size == pytest.approx(own.chromosome_size * 0.4, rel=0.15)


def test_of_two_spreads_the_larger_is_taken_and_the_other_reported(metaphase):
    image, around, size = metaphase
    small = _scaled(image, 0.4)
    field = _in_field(small)
    half = small[: small.shape[0] // 2, : small.shape[1] // 2]
    y, x = 1024 - half.shape[0], 1280 - half.shape[1]
    field[y:, x:] = np.minimum(field[y:, x:], half * (185 / np.percentile(small, 90)))
    spread = find_spread(field)
    _close(spread, around * 0.4 + [300, 200, 300, 200], size * 0.4 * 1.5)
    assert spread.others == 1


def test_a_field_without_a_spread():
    rng = np.random.default_rng(0)
    gradient = np.tile(np.linspace(0, 255, 400).astype(np.uint8), (300, 1))
    assert find_spread(np.full((300, 400), 180, np.uint8)) is None
    assert find_spread(gradient) is None
    assert find_spread(np.clip(rng.normal(180, 4, (1024, 1280)), 0, 255).astype(np.uint8)) is None
    nucleus = np.full((600, 800), 200, np.uint8)
    cv2.circle(nucleus, (400, 300), 90, 80, -1)
    assert find_spread(nucleus) is None
    for shape in ((1, 1), (1, 300), (300, 1), (2, 2)):
        assert find_spread(np.zeros(shape, np.uint8)) is None


def test_which_images_are_light_on_dark(metaphase):
    image, _, _ = metaphase
    assert not is_inverted(image)
    assert is_inverted(255 - image)


def test_tone_has_a_light_even_background_and_dark_chromosomes(metaphase):
    image, _, _ = metaphase
    height, width = image.shape
    shade = np.linspace(1.0, 0.6, width)[None] * np.linspace(0.9, 0.7, height)[:, None]
    for picture in (image, (image * shade).astype(np.uint8), 255 - image):
        toned = normalize_tone(picture)
        assert toned.dtype == np.uint8
        assert toned.shape == image.shape
        assert np.percentile(toned, 60) == pytest.approx(240, abs=12)
        # The darkest hundredth of the chromosomes is at 40.
        assert 25 < np.percentile(toned[toned < 200], 1) < 60
        # Opposite sides of the background are alike.
        left, right = toned[:, : width // 4], toned[:, -width // 4 :]
        assert abs(np.percentile(left, 80) - np.percentile(right, 80)) < 12


def test_tone_of_nothing_is_background():
    np.testing.assert_array_equal(
        normalize_tone(np.full((50, 60), 17, np.uint8)), np.full((50, 60), 240, np.uint8)
    )
