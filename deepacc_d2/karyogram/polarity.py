"""Which end of a straightened chromosome is its short arm, and where its centromere is.

Both ways up, the strip's profile of darkness is compared with the ideogram's bands of its class,
blurred to what a metaphase shows, over small stretches of either arm; and the strip's width with
the constriction that a centromere makes at its place. The better way up is taken.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from deepacc_d2.data.bands import POINTS, Profile, way_up
from deepacc_d2.karyogram.straighten import Straight


@dataclass(frozen=True)
class Polarity:
    """How a strip is to be shown.

    Attributes:
        flip: whether the strip must be turned by 180 degrees to have its p arm up.
        confidence: probability, 0.5 to 1, that this is right.
        centromere: position of the centromere along the strip *after* turning, from 0 (top, p
            telomere) to 1 (bottom), tips of the body.
        centromere_confidence: probability, 0 to 1, that it is within a twentieth of the length of
            that; None where it was not estimated.
        method: ``network`` or ``ideogram``, who said so.
    """

    flip: bool
    confidence: float
    centromere: float
    centromere_confidence: float | None = None
    method: str = "ideogram"


def find_polarity(straight: Straight, name: str) -> Polarity:
    """Decides which way up a strip of a class goes; see the module.

    Args:
        straight: the strip.
        name: class name, ``1`` .. ``22``, ``X`` or ``Y``.
    """
    log_odds, place = way_up(*profiles(straight), name)
    return Polarity(log_odds > 0, float(1 / (1 + np.exp(-abs(log_odds)))), place)


def profiles(straight: Straight) -> tuple[Profile, Profile]:
    """Returns mean darkness and width along a strip, each (POINTS,), from tip to tip.

    Darkness is the mean over the middle of the body, which its rim does not reach; width is in
    units of its median.
    """
    mask = straight.mask
    rows = np.flatnonzero(mask.any(axis=1))
    if len(rows) < 2:
        return np.zeros(POINTS), np.ones(POINTS)
    dark = straight.dark[rows[0] : rows[-1] + 1].astype(np.float64)
    inside = mask[rows[0] : rows[-1] + 1]
    width = inside.sum(axis=1).astype(np.float64)
    columns = np.arange(mask.shape[1])
    middle = (inside * columns).sum(axis=1) / np.maximum(width, 1)
    core = inside & (np.abs(columns - middle[:, None]) <= 0.36 * np.median(width) + 0.5)
    total = core.sum(axis=1)
    mean = (dark * core).sum(axis=1) / np.maximum(total, 1)
    known = total > 0
    places = np.arange(len(mean))
    mean = np.interp(places, places[known], mean[known])
    at = np.linspace(0, len(mean) - 1, POINTS)
    scaled = width / max(float(np.median(width)), 1.0)
    return np.interp(at, places, mean), np.interp(at, places, scaled)
