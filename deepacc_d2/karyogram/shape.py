"""Where a chromosome lies in its image, for those who go on with it: outline and rotation."""

from __future__ import annotations

import math
from typing import Any

import cv2
import numpy as np

from deepacc_d2.karyogram.cut import Cut

# Corners are thinned out until the outline is off by so many pixels.
_OFF = 0.7


def outline_of(cut: Cut) -> tuple[tuple[float, float], ...]:
    """Returns image points (x, y) around a cut's largest part; empty if nothing was cut."""
    if cut.whole or not cut.mask.any():
        return ()
    found: Any = cv2.findContours(
        cut.mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE
    )[0]
    largest = max(found, key=cv2.contourArea)
    points = cv2.approxPolyDP(largest, _OFF, closed=True).reshape(-1, 2)
    return tuple((float(x) + cut.x, float(y) + cut.y) for x, y in points)


def rotation_of(p_arm: tuple[float, float]) -> float:
    """Returns by how many degrees a chromosome is turned clockwise from upright, -180 to 180.

    Args:
        p_arm: (x, y), from the q towards the p telomere, y down.
    """
    return math.degrees(math.atan2(p_arm[0], -p_arm[1]))
