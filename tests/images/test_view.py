"""Views: the same pixels as training's, the way back, and any image at all."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
from detectron2.data import transforms as T
from hypothesis import given, settings
from hypothesis import strategies as st

from deepacc_d2.data.synthetic.config import SyntheticConfig
from deepacc_d2.data.synthetic.render import render_metaphase
from deepacc_d2.errors import ConfigError
from deepacc_d2.images.transforms import NormalizeTone, ResizeShortestEdge, ResizeToChromosomes
from deepacc_d2.images.view import (
    BOX_TO_SIZE,
    View,
    ViewSettings,
    make_view,
    second_view,
    typical_size,
)

SETTINGS = ViewSettings(chromosome_size=40, max_size=832)


@pytest.fixture(scope="module")
def metaphase() -> tuple[np.ndarray, np.ndarray]:
    """An image and its boxes XYXY."""
    image, record = render_metaphase(SyntheticConfig(nucleus_rate=0, seed=3), case=1, cell=0)
    boxes = np.array([a["bbox"] for a in record["annotations"]])
    boxes[:, 2:] += boxes[:, :2]
    return image, boxes


def _field(image: np.ndarray, x: int, y: int) -> np.ndarray:
    """The image as a part of a large gray field, with a little noise."""
    field = np.full((1800, 2000), np.percentile(image, 80))
    height, width = image.shape
    field[y : y + height, x : x + width] = np.minimum(image, field[0, 0])
    field += np.random.default_rng(0).normal(0, 2, field.shape)
    return np.clip(field, 0, 255).astype(np.uint8)


def test_a_view_is_what_training_tests_on(metaphase):
    image, _ = metaphase
    inputs = T.AugInput(image)
    T.AugmentationList([ResizeToChromosomes(40, max_size=832), NormalizeTone()])(inputs)
    view = make_view(image, SETTINGS)
    assert view.crop == (0, 0, image.shape[1], image.shape[0])
    assert view.normalized
    np.testing.assert_array_equal(view.image, inputs.image)


def test_chromosomes_get_the_size_asked_for_at_any_magnification(metaphase):
    image, boxes = metaphase
    sides = boxes[:, 2:] - boxes[:, :2]
    true = float(np.median(np.sqrt(sides.prod(axis=1))))
    for factor in (0.4, 1.0, 2.0):
        scaled = cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
        view = make_view(scaled, SETTINGS)
        assert true * factor * view.zoom == pytest.approx(40, rel=0.25)
        assert f"zoomed {view.zoom:.2f} times" in view.note


def test_a_field_is_cut_to_its_spread_and_loses_no_chromosome(metaphase):
    image, boxes = metaphase
    view = make_view(_field(image, 900, 700), SETTINGS)
    found = boxes + np.array([900, 700, 900, 700])
    x0, y0, x1, y1 = view.crop
    assert (x1 - x0) * (y1 - y0) < 0.5 * 1800 * 2000
    assert (found[:, :2] >= [x0, y0]).all()
    assert (found[:, 2:] <= [x1, y1]).all()
    assert "cut to" in view.note
    # What the whole image's view shows is found again at the right place.
    dark = np.argwhere(view.image < 120)[:, ::-1]
    corners = view.to_original([[*dark.min(axis=0), *dark.max(axis=0) + 1]])[0]
    truth = [*found[:, :2].min(axis=0), *found[:, 2:].max(axis=0)]
    np.testing.assert_allclose(corners, truth, atol=12)


def test_light_on_dark_gives_the_same_view(metaphase):
    image, _ = metaphase
    view, turned = make_view(image, SETTINGS), make_view(255 - image, SETTINGS)
    assert (view.inverted, turned.inverted) == (False, True)
    assert "light on dark inverted" in turned.note
    assert turned.zoom == pytest.approx(view.zoom, rel=0.01)
    size = view.image.shape[::-1]
    other = cv2.resize(turned.image, size, interpolation=cv2.INTER_AREA)
    assert np.abs(other.astype(int) - view.image).mean() < 4


def test_boxes_come_back_by_hand():
    view = View(np.zeros((50, 100), np.uint8), 0.5, (10, 20, 210, 120), False, True, "")
    boxes = view.to_original(np.array([[0, 0, 100, 50], [1, 2, 3, 4]], dtype=np.float32))
    np.testing.assert_array_equal(boxes, [[10, 20, 210, 120], [12, 24, 16, 28]])
    assert view.to_original(np.zeros((0, 4))).shape == (0, 4)
    assert view.to_original([]).dtype == np.float64


def test_without_normalization_the_whole_image_is_fitted(metaphase):
    image, _ = metaphase
    view = make_view(image, ViewSettings(max_size=300, normalize=False))
    assert max(view.image.shape) == 300
    ours = view.image.astype(int)
    theirs = cv2.resize(image, view.image.shape[::-1], interpolation=cv2.INTER_AREA)
    np.testing.assert_array_equal(ours, theirs)
    assert not view.normalized
    assert view.note.startswith("not normalized")


def test_no_spread_is_told_and_fitted():
    view = make_view(np.full((300, 900), 200, np.uint8), SETTINGS)
    assert view.image.shape == (171, 512)
    assert not view.normalized
    assert view.note == "no spread found; the whole image zoomed 0.57 times"


def test_no_view_is_longer_than_allowed(metaphase):
    image, _ = metaphase
    view = make_view(image, ViewSettings(chromosome_size=200, max_size=600))
    assert max(view.image.shape) == 600
    assert "would pass 600 pixels" in view.note


def _squares(side: float, count: int = 30, x: float = 100, y: float = 80) -> np.ndarray:
    """Boxes XYXY in rows of six from x, y on."""
    corners = np.array([[x + 60 * (n % 6), y + 60 * (n // 6)] for n in range(count)], dtype=float)
    return np.concatenate([corners, corners + side], axis=1)


def test_boxes_tell_a_size():
    boxes = np.array([[0, 0, 10, 40], [0, 0, 30, 30], [5, 5, 5 + 90, 5 + 10.0]])
    assert typical_size(boxes) == pytest.approx(30 / BOX_TO_SIZE)
    assert typical_size(boxes.astype(np.float32)) == pytest.approx(typical_size(boxes))


def _first(zoom: float, crop: tuple[int, int, int, int]) -> tuple[np.ndarray, View]:
    """A picture of 1200 x 900 pixels and a view of a part of it, as the first look made it."""
    image = np.full((900, 1200), 230, np.uint8)
    sides = round((crop[3] - crop[1]) * zoom), round((crop[2] - crop[0]) * zoom)
    return image, View(np.zeros(sides, np.uint8), zoom, crop, False, True, "first")


@pytest.mark.parametrize(("size", "corrected"), [(30, 40 / 30), (50, 0.8), (10, 2.0), (200, 0.5)])
def test_a_second_look_zooms_by_what_boxes_measure(size, corrected):
    image, view = _first(0.5, (100, 100, 1100, 800))
    settings = replace(SETTINGS, max_size=1600)
    again = second_view(image, view, _squares(size * BOX_TO_SIZE), settings)
    assert again is not None
    assert again.zoom == pytest.approx(0.5 * corrected, rel=1e-6)
    assert again.normalized
    assert again.note.startswith("first; second look, zoomed")
    # It shows at least what the first one did, at the zoom that it gives.
    x0, y0, x1, y1 = again.crop
    assert x0 <= 100
    assert y0 <= 100
    assert x1 >= 1100
    assert y1 >= 800
    assert again.image.shape == (round((y1 - y0) * again.zoom), round((x1 - x0) * again.zoom))


def test_a_second_look_shows_the_rim_of_larger_chromosomes():
    image, view = _first(0.8, (300, 300, 800, 700))
    boxes = _squares(80 * BOX_TO_SIZE, x=2, y=2)
    again = second_view(image, view, boxes, SETTINGS)
    assert again is not None
    # The outermost boxes begin at 302.5 and end at 774.5 of the image; its chromosomes are of 100
    # pixels, the margin is 150.
    assert again.crop[:3] == (152, 152, 925)


def test_no_second_look_where_the_first_stands():
    image, view = _first(0.5, (100, 100, 1100, 800))
    for size in (40 * 1.06, 40 / 1.06):
        assert second_view(image, view, _squares(size * BOX_TO_SIZE), SETTINGS) is None
    wrong = _squares(30 * BOX_TO_SIZE)
    assert second_view(image, view, wrong, SETTINGS) is not None
    assert second_view(image, view, wrong[:14], SETTINGS) is None
    assert second_view(image, view, np.zeros((0, 4)), SETTINGS) is None
    for switch in ({"second_look": False}, {"normalize": False}):
        assert second_view(image, view, wrong, replace(SETTINGS, **switch)) is None
    # The view is as long as may be already.
    short = replace(SETTINGS, max_size=500)
    assert second_view(image, view, wrong, short) is None


def test_settings_of_a_checkpoint():
    module = "deepacc_d2.images.transforms."
    lab = [
        {"_target_": module + "ResizeToChromosomes", "chromosome_size": 40, "max_size": 832},
        {"_target_": module + "NormalizeTone"},
    ]
    assert ViewSettings.from_augmentations(lab) == ViewSettings(40, 832, True, True, 455)
    fit = [{"_target_": module + "ResizeToFit", "max_size": 448}]
    assert ViewSettings.from_augmentations(fit) == ViewSettings(0.088 * 448, 448, False, True, 448)
    edge = [{"_target_": module + "ResizeShortestEdge", "min_size": 800, "max_size": 1067}]
    view = ViewSettings.from_augmentations(edge, normalize=False)
    assert view == ViewSettings(0.088 * 1067, 1067, False, False, 1067)
    assert ResizeShortestEdge(800, 1067).max_size == view.max_size
    with pytest.raises(ConfigError, match="test_augmentations have no"):
        ViewSettings.from_augmentations([lab[1]])


@pytest.mark.parametrize(
    "wrong", [{"chromosome_size": 4}, {"max_size": 16}, {"max_size": 99999}, {"fit_size": 1}]
)
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(ConfigError, match="a view needs"):
        ViewSettings(**wrong)


def test_other_arrays_are_refused():
    for wrong in (np.zeros((4, 4)), np.zeros((4, 4, 3), np.uint8), np.zeros((0, 4), np.uint8)):
        with pytest.raises(ConfigError, match="use as_gray"):
            make_view(wrong, SETTINGS)


@settings(max_examples=120, deadline=None)
@given(
    height=st.integers(1, 300),
    width=st.integers(1, 300),
    kind=st.sampled_from(["noise", "smooth", "blobs", "constant", "gradient", "bilevel"]),
    inverted=st.booleans(),
    seed=st.integers(0, 999),
    normalize=st.booleans(),
)
def test_any_image_has_a_view_and_a_way_back(  # noqa: PLR0917
    height, width, kind, inverted, seed, normalize
):
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (height, width)).astype(np.float32)
    if kind == "smooth":
        image = cv2.GaussianBlur(image, (0, 0), 3)
    elif kind == "constant":
        image[:] = rng.integers(0, 256)
    elif kind == "gradient":
        image[:] = np.linspace(0, 255, width)
    elif kind == "bilevel":
        image = (image > 250) * np.float32(255)
    elif kind == "blobs":
        image[:] = 230
        for x, y in rng.integers(0, 300, (30, 2)):
            cv2.ellipse(image, (int(x), int(y)), (12, 4), float(x + y), 0, 360, 60.0, -1)
    pixels = image.astype(np.uint8)
    view = make_view(255 - pixels if inverted else pixels, ViewSettings(40, 400, True, normalize))
    assert view.image.dtype == np.uint8
    assert max(view.image.shape) <= 400
    x0, y0, x1, y1 = view.crop
    assert 0 <= x0 < x1 <= width
    assert 0 <= y0 < y1 <= height
    # Boxes there by the nominal zoom and back by to_original: rounding of the sides is all.
    box = np.array([x0, y0, x1, y1], dtype=float)
    there = (box - [x0, y0, x0, y0]) * view.zoom
    np.testing.assert_allclose(view.to_original(there)[0], box, atol=1e-9 + _allowed(view, box))


def _allowed(view: View, box: np.ndarray) -> float:
    """Half a pixel of the view, in pixels of the image as the view's own sides tell it."""
    height, width = view.image.shape
    pixel = max((box[2] - box[0]) / width, (box[3] - box[1]) / height)
    return max(box[2] - box[0], box[3] - box[1]) if min(height, width) == 1 else 0.51 * pixel
