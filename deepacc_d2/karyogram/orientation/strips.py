"""Straightened chromosomes brought to one size, as the polarity network sees them.

A strip is read from tip to tip and across its body, so that neither length nor thickness changes
its size; how slim the chromosome is goes along as a number. N strips of (LENGTH, WIDTH) pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from deepacc_d2.karyogram.straighten import Straight

LENGTH, WIDTH = 128, 24

# The strip reaches this many median body widths across.
_REACH = 1.5


@dataclass(frozen=True, eq=False)
class Strips:
    """N strips of one size.

    Attributes:
        dark: uint8 (N, LENGTH, WIDTH), 0 background to 255 black, one tip first.
        body: uint8 (N, LENGTH, WIDTH), 255 in the chromosome.
        slimness: float32 (N,), length over width.
        classes: int64 (N,), class index, or -1 where it is not known.
        cells: int64 (N,), number of the cell.
        up: float32 (N,), probability that the p arm comes first; NaN where it is not known.
        centromere: float32 (N,), its place from the first tip, 0 to 1; NaN where not known.
        apart: bool (N,), nothing else touches it.
    """

    dark: NDArray[np.uint8]
    body: NDArray[np.uint8]
    slimness: NDArray[np.float32]
    classes: NDArray[np.int64]
    cells: NDArray[np.int64]
    up: NDArray[np.float32]
    centromere: NDArray[np.float32]
    apart: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.classes)

    def __getitem__(self, rows: Any) -> Strips:
        return Strips(**{f.name: getattr(self, f.name)[rows] for f in fields(self)})

    def replace(self, **changed: Any) -> Strips:
        """Returns the same strips with other values of some attributes."""
        return Strips(**{f.name: changed.get(f.name, getattr(self, f.name)) for f in fields(self)})

    @staticmethod
    def join(parts: Sequence[Strips]) -> Strips:
        """Returns all strips of several."""
        return Strips(
            **{f.name: np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(Strips)}
        )


def tip_rows(straight: Straight) -> tuple[int, int]:
    """Returns the first row of the body and the one after its last; all rows if it has none."""
    rows = np.flatnonzero(straight.mask.any(axis=1))
    return (int(rows[0]), int(rows[-1]) + 1) if len(rows) else (0, straight.mask.shape[0])


def _usual_width(mask: NDArray[np.bool_]) -> float:
    """Returns how many columns most rows of a strip (L, W) reach over, chromatids apart or not."""
    filled = mask[mask.any(axis=1)]
    if not len(filled):
        return 1.0
    return float(np.median(filled.shape[1] - filled.argmax(1) - filled[:, ::-1].argmax(1)))


def to_size(straight: Straight) -> tuple[NDArray[np.uint8], NDArray[np.uint8], float]:
    """Brings a strip to the network's size.

    Returns:
        darkness and body, uint8 (LENGTH, WIDTH), and length over width.
    """
    first, last = tip_rows(straight)
    width = _usual_width(straight.mask[first:last])
    half = 0.5 * _REACH * max(width, 1.0)
    middle = (straight.mask.shape[1] - 1) / 2
    step_x, step_y = 2 * half / WIDTH, (last - first) / LENGTH
    # Pixel centers onto pixel centers; what is shrunk is blurred before.
    matrix = np.array(
        [[step_x, 0, middle - half + 0.5 * step_x], [0, step_y, first + 0.5 * step_y - 0.5]]
    )
    out = []
    for image in (straight.dark, straight.mask.astype(np.float32)):
        sigma_x, sigma_y = (0.5 * np.sqrt(max(s**2 - 1, 0)) + 1e-3 for s in (step_x, step_y))
        soft: Any = image.astype(np.float32)
        if max(step_x, step_y) > 1.2:
            soft = cv2.GaussianBlur(soft, (0, 0), sigmaX=sigma_x, sigmaY=sigma_y)
        read: Any = cv2.warpAffine(
            soft,
            matrix,
            (WIDTH, LENGTH),
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_CONSTANT,
        )
        out.append(np.clip(255 * read + 0.5, 0, 255).astype(np.uint8))
    return out[0], out[1], float((last - first) / max(width, 1.0))


def of_straights(
    straights: Sequence[Straight],
    classes: Sequence[int],
    *,
    cell: int = 0,
    up: Sequence[float] | None = None,
    centromere: Sequence[float] | None = None,
    apart: Sequence[bool] | None = None,
) -> Strips:
    """Brings the strips of a cell to one size.

    Args:
        straights: N of them.
        classes: N class indices, -1 where one is not known.
        cell: number of the cell.
        up, centromere, apart: see :class:`Strips`; not known, not known, all by default.
    """
    count = len(straights)
    dark = np.zeros((count, LENGTH, WIDTH), np.uint8)
    body = np.zeros((count, LENGTH, WIDTH), np.uint8)
    slimness = np.ones(count, np.float32)
    for number, straight in enumerate(straights):
        dark[number], body[number], slimness[number] = to_size(straight)
    unknown = np.full(count, np.nan, np.float32)
    return Strips(
        dark=dark,
        body=body,
        slimness=slimness,
        classes=np.asarray(classes, np.int64).reshape(count),
        cells=np.full(count, cell, np.int64),
        up=unknown if up is None else np.asarray(up, np.float32),
        centromere=unknown if centromere is None else np.asarray(centromere, np.float32),
        apart=np.ones(count, bool) if apart is None else np.asarray(apart, bool),
    )
