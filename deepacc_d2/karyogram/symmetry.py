"""The axis of a short chromosome, by its mirror symmetry.

The longest path through a body that is little longer than wide runs from corner to corner, or along
one chromatid and over to the other. But its two chromatids are mirror images of each other, and the
axis is what they are mirrored at. Points are complex numbers x + iy, y down.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Axis = NDArray[np.complex128]

# Directions in a half circle that are tried first; then those between next to the best.
_ANGLES = 15
_FINER = (-2 / 3, -1 / 3, 1 / 3, 2 / 3)
# Pixels of the square that a body is looked at in, about; what is larger is shrunk.
_SIDE = 27
# The axis may be so far from the middle of the outline, in shares of the body's width.
_OFF_CENTER = 0.12
# What the logarithm of length over width counts, against a correlation of mirror images.
_ELONGATION = 0.5
# The outline counts so much against the darkness within it.
_OUTLINE = 0.35


@dataclass(frozen=True)
class MirrorAxis:
    """A straight axis.

    Attributes:
        middle: a point of it.
        direction: unit vector along it.
        reach: distance from the middle to the farther tip.
        half_width: of the body across it.
        score: see :func:`mirror_score`.
    """

    middle: complex
    direction: complex
    reach: float
    half_width: float
    score: float

    def points(self) -> Axis:
        """Returns points about a pixel apart, reaching well beyond both tips."""
        reach = self.reach + 0.5 * self.half_width + 3
        line = self.middle + self.direction * np.linspace(-reach, reach, int(2 * reach) + 2)
        return line.astype(np.complex128)


def mirror_axis(body: NDArray[np.bool_], dark: NDArray[np.float32]) -> MirrorAxis:
    """Finds the straight line that a body's two chromatids are mirrored at.

    Args:
        body: bool (h, w), not empty, with what is between chromatids.
        dark: float32 (h, w), darkness.
    """
    ys, xs = np.nonzero(body)
    points = xs + 1j * ys
    center = complex(points.mean())
    points -= center
    radius = float(np.abs(points).max()) + 1.5
    step = max(2 * radius / _SIDE, 0.75)
    picture = np.stack([dark * body, body], axis=2).astype(np.float32)
    if step > 1.2:
        picture = np.asarray(cv2.GaussianBlur(picture, (0, 0), 0.5 * step), np.float32)
    view = _View(picture, points, center, radius, step)
    unit = np.pi / _ANGLES
    best = max((view.judge(n * unit) for n in range(_ANGLES)), key=lambda found: found.score)
    angle = float(np.angle(best.direction))
    finer = [view.judge(angle + share * unit) for share in _FINER]
    return max([best, *finer], key=lambda found: found.score)


@dataclass(frozen=True, eq=False)
class _View:
    """A body that is looked at from all sides.

    Attributes:
        picture: float32 (h, w, 2), darkness and body.
        points: complex (N,), its pixels from the center.
        center: of them.
        radius: of what is looked at, in pixels.
        step: from one pixel looked at to the next.
    """

    picture: NDArray[np.float32]
    points: Axis
    center: complex
    radius: float
    step: float

    def judge(self, angle: float) -> MirrorAxis:
        """Returns the best axis of a direction, in radians."""
        direction = complex(np.exp(1j * angle))
        turned = self.points * np.conj(direction)
        along, across = np.sort(turned.real), np.sort(turned.imag)
        skipped = len(along) // 50
        length = float(along[-1 - skipped // 2] - along[skipped // 2]) + 1
        left, right = float(across[skipped]), float(across[-1 - skipped])
        width = right - left + 1
        side = int(np.ceil(self.radius / self.step))
        at = np.arange(-side, side + 1) * self.step
        grid = self.center + direction * (at[:, None] + 1j * at[None, :])
        seen: Any = cv2.remap(
            self.picture,
            grid.real.astype(np.float32),
            grid.imag.astype(np.float32),
            cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_CONSTANT,
        )
        most = max(1, round(2 * _OFF_CENTER * width / self.step))
        middle = round((left + right) / self.step)
        shifts = range(middle - most, middle + most + 1)
        fit, shift = max((_mirrored(seen, shift), shift) for shift in shifts)
        return MirrorAxis(
            middle=self.center + direction * 0.5j * shift * self.step,
            direction=direction,
            reach=float(max(-along[0], along[-1])),
            half_width=width / 2,
            score=fit + _elongation(length, width),
        )


def mirror_score(strip: NDArray[np.float32], length: float, width: float) -> float:
    """Returns the score of an axis by what was read along it.

    Args:
        strip: (L, W, 2) darkness and body, the axis down the middle.
        length, width: of the body along it.
    """
    return _mirrored(strip, 0) + _elongation(length, width)


def _elongation(length: float, width: float) -> float:
    return _ELONGATION * float(np.log(max(length, 1.0) / max(width, 1.0)))


def _mirrored(seen: NDArray[np.float32], shift: int) -> float:
    """Returns how well a picture fits its mirror image, 1 at most.

    Args:
        seen: (L, W, 2) darkness and body, the axis down the middle.
        shift: columns by which the mirror image is moved, twice the mirror's.
    """
    width = seen.shape[1]
    if abs(shift) >= width // 2:
        return -1.0
    part = seen[:, max(shift, 0) : width + min(shift, 0)]
    dark, body = part[..., 0], part[..., 1]
    either = np.maximum(body, body[:, ::-1])
    total = float(either.sum())
    if total < 1:
        return -1.0
    level = (dark - float((dark * either).sum()) / total) * either
    inside = float((level * level[:, ::-1]).sum()) / max(float((level**2).sum()), 1e-9)
    outline = float(np.minimum(body, body[:, ::-1]).sum()) / total
    return (1 - _OUTLINE) * inside + _OUTLINE * (2 * outline - 1)
