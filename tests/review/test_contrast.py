"""Texts of the pages can be read in light and dark: WCAG's contrast of at least 4.5 to 1."""

from __future__ import annotations

import re

import pytest

from deepacc_d2.review.web.app import STATIC


def luminance(color):
    channels = [int(color[n : n + 2], 16) / 255 for n in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(a, b):
    high, low = sorted((luminance(a), luminance(b)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def themes():
    """The colors of each theme by their names."""
    blocks = re.findall(r"color-scheme: (\w+);([^}]*)}", (STATIC / "app.css").read_text())
    found = [(name, dict(re.findall(r"--([\w-]+): (#\w{6})", text))) for name, text in blocks]
    assert [name for name, _ in found] == ["light", "dark", "dark"]
    assert found[1] == found[2]  # by the system's wish, and chosen
    return dict(found)


def test_black_on_white_is_21_to_1():
    assert contrast("#000000", "#ffffff") == pytest.approx(21)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_every_text_has_enough_contrast(theme):
    colors = themes()[theme]
    pairs = [
        (text, ground)
        for text in ("ink", "pale", "accent", "alarm", "warn", "good")
        for ground in ("card", "ground")
    ]
    pairs += [("accent-ink", "accent"), ("ink", "chosen"), ("accent", "chosen")]
    low = {
        (text, ground): round(contrast(colors[text], colors[ground]), 2)
        for text, ground in pairs
        if contrast(colors[text], colors[ground]) < 4.5
    }
    assert low == {}
    for text in ("#1b1d21", "#b3122b", "#444444"):  # labels of the karyogram
        assert contrast(text, colors["paper"]) >= 4.5
