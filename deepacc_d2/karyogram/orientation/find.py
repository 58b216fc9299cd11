"""Turns the strips of a cell, by the included network or, without it, by the ideogram."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from deepacc_d2.cell import Pose
from deepacc_d2.chromosomes import class_index
from deepacc_d2.karyogram.orientation.strips import of_straights, tip_rows
from deepacc_d2.karyogram.polarity import Polarity, find_polarity
from deepacc_d2.karyogram.straighten import Straight

if TYPE_CHECKING:
    from deepacc_d2.karyogram.orientation.network import PolarityNet

SHIPPED = Path(__file__).resolve().parents[2] / "weights" / "polarity.ckpt"
"""The included network; where it is missing, strips are compared with the ideogram."""

# Bodies of fewer rows than this have no arms to tell apart.
_LEAST_ROWS = 4


def turn(straights: Sequence[Straight], names: Sequence[str | None]) -> list[Polarity]:
    """Decides by the included network, or without it by the ideogram; see find_polarities."""
    # Torch is slow to import: only when there is a network and something to turn.
    if not straights or not SHIPPED.is_file():
        return find_polarities(straights, names, None)
    from deepacc_d2.karyogram.orientation.weights import shipped_network

    return find_polarities(straights, names, shipped_network())


def find_polarities(
    straights: Sequence[Straight],
    names: Sequence[str | None],
    network: PolarityNet | None,
    *,
    together: bool = True,
) -> list[Polarity]:
    """Decides which way up each strip goes and where its centromere is.


    Args:
        straights: of one cell.
        names: the class of each, None where it is not known.
        network: None compares with the ideogram instead; then a strip of unknown class stays as
            it is, at even odds.
        together: weigh a network's answers about the copies of one class together.
    """
    if network is None:
        return [_compared(s, name) for s, name in zip(straights, names, strict=True)]
    from deepacc_d2.karyogram.orientation.fit import answer

    if not straights:
        return []
    classes = [-1 if name is None else class_index(name) for name in names]
    found = answer(network, of_straights(straights, classes), together=together)
    polarities = []
    for number, straight in enumerate(straights):
        first, last = tip_rows(straight)
        if last - first < _LEAST_ROWS or not straight.mask.any():
            polarities.append(Polarity(False, 0.5, 0.5, 0.0, "network"))
            continue
        odds, place = float(found.odds[number]), float(found.centromere[number])
        flip = odds < 0
        polarities.append(
            Polarity(
                flip=flip,
                confidence=float(1 / (1 + np.exp(-abs(odds)))),
                centromere=1 - place if flip else place,
                centromere_confidence=float(found.sure[number]),
                method="network",
            )
        )
    return polarities


def _compared(straight: Straight, name: str | None) -> Polarity:
    if name is None:
        return Polarity(False, 0.5, 0.5)
    return find_polarity(straight, name)


def strip_place(straight: Straight, polarity: Polarity) -> float:
    """Returns the centromere's place along the turned strip, its rims included, 0 to 1."""
    first, last = tip_rows(straight)
    rows = straight.mask.shape[0]
    if polarity.flip:
        first, last = rows - last, rows - first
    return (first + polarity.centromere * (last - first)) / max(rows, 1)


def pose_of(straight: Straight, polarity: Polarity) -> Pose:
    """Returns how a straightened chromosome lies in its image."""
    first, last = tip_rows(straight)
    axis = straight.axis[first:last]
    if polarity.flip:
        axis = axis[::-1]
    place = polarity.centromere * (len(axis) - 1)
    low = min(int(place), max(len(axis) - 2, 0))
    high = min(low + 1, len(axis) - 1)
    point = complex(axis[low] + (place - low) * (axis[high] - axis[low]))
    arm = complex(axis[0] - axis[-1])
    unit = arm / abs(arm) if abs(arm) > 0 else -1j
    return Pose(
        p_arm=(unit.real, unit.imag),
        probability=polarity.confidence,
        centromere=(point.real, point.imag),
        share=polarity.centromere,
        centromere_confidence=polarity.centromere_confidence,
        method=polarity.method,
    )
