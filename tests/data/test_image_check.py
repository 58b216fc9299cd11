from __future__ import annotations

import hashlib

import cv2
import numpy as np
import pytest

from deepacc_d2.data.image_check import gray_statistics, inspect_image
from deepacc_d2.errors import DataError


def test_facts_and_statistics_agree_with_numpy(source):
    paths = [source.image("a.png"), source.image("b.jpg", size=(30, 20))]
    facts = [inspect_image(path) for path in paths]
    assert [(f.width, f.height) for f in facts] == [(64, 48), (30, 20)]
    assert facts[0].sha256 == hashlib.sha256(paths[0].read_bytes()).hexdigest()
    pixels = np.concatenate([cv2.imread(str(p), cv2.IMREAD_GRAYSCALE).ravel() for p in paths])
    assert gray_statistics(facts) == pytest.approx((pixels.mean(), pixels.std()))


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".bmp", ".tif"])
@pytest.mark.parametrize("share", [0.05, 0.4, 0.9])
def test_truncated_image_is_refused(source, suffix, share):
    path = source.image(f"a{suffix}")
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(DataError, match=r"truncated|damaged|is no JPEG"):
        inspect_image(path)


def test_zero_bytes_text_and_missing_are_refused(source):
    with pytest.raises(DataError, match="is empty"):
        inspect_image(source.text("a.jpg", ""))
    with pytest.raises(DataError, match="is no JPEG"):
        inspect_image(source.text("b.jpg", "<html>404</html>"))
    with pytest.raises(DataError, match="cannot be read"):
        inspect_image(source.root / "c.jpg")


def test_statistics_of_nothing_are_refused():
    with pytest.raises(DataError, match="train split is empty"):
        gray_statistics([])
