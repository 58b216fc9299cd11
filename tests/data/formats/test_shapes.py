from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask

from deepacc_d2.data.formats.shapes import (
    circle,
    embedded_mask,
    enclosing,
    mask_bounds,
    outlines,
    rle_of,
    rotated,
    union,
)


@given(
    center=st.tuples(st.floats(-50, 900), st.floats(-50, 900)),
    size=st.tuples(st.floats(1, 300), st.floats(1, 300)),
    degrees=st.floats(-720, 720),
)
def test_rotated_is_opencvs_rotated_rectangle(center, size, degrees):
    (x, y), (w, h) = center, size
    polygon = rotated((x - w / 2, y - h / 2, x + w / 2, y + h / 2), degrees)
    corners = cv2.boxPoints((center, size, degrees))
    expected = (*corners.min(axis=0), *corners.max(axis=0))
    assert enclosing([polygon]) == pytest.approx(expected, abs=0.01)


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 40), st.integers(1, 40), st.floats(0, 1))
def test_sound_masks_of_the_reference_library_pass(seed, height, width, share):
    pixels = (np.random.default_rng(seed).random((height, width)) < share).astype(np.uint8)
    rle = mask.encode(np.asfortranarray(pixels))
    text = rle["counts"].decode()
    assert rle_of({"size": [height, width], "counts": text}) == {
        "size": [height, width],
        "counts": text,
    }
    assert rle_of({"size": [height + 1, width], "counts": text}) is None
    assert rle_of({"size": [height, width], "counts": text + "1"}) is None


def test_bounds_and_outlines_of_a_mask():
    pixels = np.zeros((20, 30), dtype=np.uint8)
    assert mask_bounds(pixels) is None
    cv2.ellipse(pixels, (14, 9), (10, 5), 20, 0, 360, 1, -1)
    x, y, w, h = cv2.boundingRect(pixels)
    assert mask_bounds(pixels) == (x, y, x + w, y + h)
    (outline,) = outlines(pixels, 100, 200)
    assert enclosing([outline]) == (100 + x, 200 + y, 100 + x + w, 200 + y + h)


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 12), st.integers(1, 12))
def test_outlines_enclose_the_pixels_of_a_mask(seed, height, width):
    pixels = np.random.default_rng(seed).integers(0, 2, (height, width), dtype=np.uint8)
    polygons = outlines(pixels)
    drawn = np.zeros_like(pixels, dtype=bool)
    if polygons:
        rles = mask.frPyObjects(polygons, height, width)
        drawn = mask.decode(mask.merge(rles)).astype(bool)
    found, _ = cv2.findContours(pixels, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    without_holes = cv2.drawContours(pixels.copy(), found, -1, 1, cv2.FILLED)
    assert np.array_equal(drawn, without_holes > 0)


def test_a_circle_has_its_area():
    points = np.reshape(circle((5, 6), 10), (-1, 2)).astype(np.float32)
    assert cv2.contourArea(points) == pytest.approx(np.pi * 100, rel=0.01)


def test_damaged_embedded_masks_are_none():
    for text in (None, "", "%%%", "aGVsbG8="):
        assert embedded_mask(text) is None


def test_union():
    assert union([(1, 2, 3, 4), (0, 3, 2, 9)]) == (0, 2, 3, 9)
