"""An augmentation that condenses chromosomes further: shorter, thicker, chromatids apart.

How far chromosomes are condensed depends on how long a culture was under Colcemid, and on the
laboratory's way of spreading. Long exposure makes them short and thick, and opens the two sister
chromatids, which then lie side by side or, held by the centromere, as an X or a V. A laboratory's
own pictures show one degree of it. This draws others, from isolated real chromosomes.

Where bands have run together, little but the length and the place of the centromere sets classes
apart. So chromatids open about the real centromere, which is looked for where the class has it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from detectron2.data import transforms as T
from numpy.typing import NDArray

from deepacc_d2.chromosomes import CLASSES
from deepacc_d2.data.augment.crowding import Cutout, Placed, PlacingTransform, isolated
from deepacc_d2.data.augment.degrade import LEAST_BLUR
from deepacc_d2.data.bands import POINTS, way_up
from deepacc_d2.errors import ConfigError
from deepacc_d2.method import check_shares

# Standard deviations along the axis over those across that a chromosome with a clear axis has at
# least. In others the chromatids cannot be told apart.
LEAST_ELONGATION = 1.3
# Bands run together by a blur of at most this standard deviation, in pixels.
MOST_BLUR = 1.6
# In cells whose bands are hardly seen, darkness is averaged along the axis over so many standard
# deviations, in pixels; share of the cells, and samples of the average.
MOST_FADED, FADED_SHARE, FADED_SAMPLES = 9.0, 0.3, 9
# Darkness, in gray levels, from which a pixel is of the body and not of its pale rim.
FAINT = 12.0
# Width of one chromatid over that of the chromosome before they opened.
CHROMATID = 0.62
# An open chromatid's end lies at most about as far from its sister's, in widths.
MOST_SPREAD = 1.5
# The middle of a body, which its rim does not reach, in widths to either side of the axis.
CORE = 0.36


@dataclass(frozen=True)
class Condensed(Placed):
    """A chromosome that is shortened and widened in its place.

    Attributes:
        length: factor along its axis.
        width: factor across.
        apart: distance of the chromatids' axes over the chromosome's width, at the centromere; 0
            if they are closed.
        spread: what the distance grows by over half a length, on the side of the axis's beginning
            and on that of its end, over the chromosome's width.
        centromere: its place along the axis, -1 at one end and 1 at the other.
        blur: standard deviation, in pixels, by which neighboring bands run together.
        faded: the same along the axis alone, so that the outline stays; 0 for none.
    """

    length: float
    width: float
    apart: float
    spread: tuple[float, float]
    centromere: float
    blur: float
    faded: float = 0.0

    def changed(self, patch: NDArray[np.float32]) -> NDArray[np.float32]:
        """Draws the chromosome of a patch (h, w) anew, into a square about its middle."""
        axis = _axis(patch)
        if self.blur >= LEAST_BLUR:
            patch = np.asarray(cv2.GaussianBlur(patch, (0, 0), self.blur), dtype=np.float32)
        height, width = patch.shape
        wide = axis.width * (self.width + self.apart + 2 * max(self.spread))
        side = int(np.ceil(np.hypot(height, width) + wide)) + 2
        xs = np.arange(side, dtype=np.float32) - (side - 1) / 2
        right, down = np.meshgrid(xs, xs)
        cos, sin = axis.direction
        # From the square to the chromosome's own frame: along its axis and across.
        along = (right * cos + down * sin) / self.length
        across = down * cos - right * sin - axis.bend * (along**2 - axis.reach**2 / 3)

        def sampled(source: NDArray[np.float32], across: NDArray[np.float32], shift: float) -> Any:
            at = along + shift
            turned = across + axis.bend * (at**2 - axis.reach**2 / 3)
            map_x = axis.middle[0] + at * cos - turned * sin
            map_y = axis.middle[1] + at * sin + turned * cos
            maps = (map_x.astype(np.float32), map_y.astype(np.float32))
            return np.asarray(cv2.remap(source, *maps, cv2.INTER_LINEAR), dtype=np.float32)

        def looked_up(across: NDArray[np.float32]) -> NDArray[np.float32]:
            plain: NDArray[np.float32] = sampled(patch, across, 0.0)
            if self.faded == 0:
                return plain
            body = (patch > FAINT).astype(np.float32)
            total, inside = np.zeros_like(plain), np.zeros_like(plain)
            for at in np.linspace(-2, 2, FADED_SAMPLES):
                weight = float(np.exp(-0.5 * at**2))
                total += weight * sampled(patch, across, at * self.faded)
                inside += weight * sampled(body, across, at * self.faded)
            # A mean over the body alone, so that tips stay as dark as the rest.
            mean = total / np.maximum(inside, 1e-6)
            return np.asarray(mean * sampled(body, across, 0.0), dtype=np.float32)

        if self.apart + max(self.spread) == 0:
            return looked_up(across / self.width)
        from_centromere = along / max(axis.reach, 1) - self.centromere
        spread = np.where(from_centromere < 0, *self.spread)
        offset = axis.width * (self.apart + spread * np.abs(from_centromere)) / 2
        narrow = CHROMATID * self.width
        # Each chromatid has all the bands, across its own width.
        pair = [looked_up((across - sign * offset) / narrow) for sign in (-1, 1)]
        return np.asarray(np.maximum(*pair), dtype=np.float32)


@dataclass(frozen=True)
class Axis:
    """A parabola through a chromosome.

    Attributes:
        middle: x, y of its center of darkness in the patch, in pixels.
        direction: cosine and sine of the angle of its axis.
        bend: of the parabola, in 1 / pixel.
        reach: half its length, in pixels.
        width: full width, in pixels.
        elongation: standard deviation along the axis over that across.
    """

    middle: tuple[float, float]
    direction: tuple[float, float]
    bend: float
    reach: float
    width: float
    elongation: float

    def frame(
        self, x: NDArray[np.integer], y: NDArray[np.integer]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Returns where points of the patch are along the axis and across it, in pixels."""
        cos, sin = self.direction
        right, down = x - self.middle[0], y - self.middle[1]
        along = right * cos + down * sin
        across = down * cos - right * sin - self.bend * (along**2 - self.reach**2 / 3)
        return along, across


def _axis(patch: NDArray[np.float32]) -> Axis:
    """Fits the axis of a chromosome's darkness (h, w)."""
    rows, columns = np.nonzero(patch > 0)
    if len(rows) < 3:
        middle = ((patch.shape[1] - 1) / 2, (patch.shape[0] - 1) / 2)
        return Axis(middle, (1.0, 0.0), 0.0, 1.0, 1.0, 1.0)
    points = np.stack([columns, rows]).astype(np.float64)
    middle = points.mean(axis=1)
    centered = points - middle[:, None]
    values, vectors = np.linalg.eigh(np.cov(centered) + 1e-6 * np.eye(2))
    cos, sin = vectors[:, 1]
    along = centered[0] * cos + centered[1] * sin
    across = centered[1] * cos - centered[0] * sin
    # Uniform along its length, whose standard deviation is that over the root of 12.
    reach = float(np.sqrt(3 * values[1]))
    square = along**2 - (along**2).mean()
    bend = float((square * across).sum() / max((square**2).sum(), 1e-6))
    rest = across - bend * square
    deviation = float(np.sqrt((rest**2).mean())) or 0.5
    return Axis(
        (float(middle[0]), float(middle[1])),
        (float(cos), float(sin)),
        bend,
        reach,
        # Not from the deviation: an S-shaped one is not as wide as it strays from the parabola.
        len(rows) / (2 * reach),
        float(np.sqrt(values[1])) / deviation,
    )


def find_centromere(patch: NDArray[np.float32], axis: Axis, name: str) -> float:
    """Finds the centromere of a chromosome of a class, by its bands and its constriction.

    Args:
        patch: its darkness (h, w), 0 outside.
        axis: of it.
        name: class name, ``1`` .. ``22``, ``X`` or ``Y``.

    Returns:
        Its place along the axis, -1 at the beginning and 1 at the end.
    """
    rows, columns = np.nonzero(patch > 0)
    along, across = axis.frame(columns, rows)
    position = np.rint(along - along.min()).astype(int)
    width = np.bincount(position).astype(np.float64)
    core = np.abs(across) <= CORE * axis.width + 0.5
    count = np.bincount(position[core], minlength=len(width))
    total = np.bincount(position[core], weights=patch[rows, columns][core], minlength=len(width))
    known = np.flatnonzero(count)
    if len(known) < 2:
        return 0.0
    places = np.linspace(0, len(width) - 1, POINTS)
    bands = np.interp(places, known, total[known] / count[known])
    scaled = np.interp(places, np.arange(len(width)), width / np.median(width))
    log_odds, place = way_up(bands, scaled, name)
    share = 1 - place if log_odds > 0 else place
    tip = along.min() + share * (along.max() - along.min())
    return float(tip / max(axis.reach, 1))


class RandomCondensation(T.Augmentation):
    """Condenses the isolated chromosomes of an image, all to a like degree.

    After :class:`~deepacc_d2.images.transforms.NormalizeTone`, on which the threshold rests.

    Args:
        length: least factor of the length; drawn up to 1.
        width: largest factor of the width; drawn from 1.
        opened: share of the images condensed whose chromatids are apart.
        prob: share of images that it is done to.
    """

    def __init__(
        self, length: float = 0.55, width: float = 1.6, opened: float = 0.6, prob: float = 0.35
    ) -> None:
        super().__init__()
        check_shares(opened=opened)
        check_shares(prob=prob)
        if not 0.3 <= length <= 1 <= width <= 3:
            raise ConfigError(
                f"length={length}, width={width}: condensation needs 0.3 <= length <= 1 and "
                "1 <= width <= 3"
            )
        self.length, self.width, self.opened, self.prob = length, width, opened, prob

    def __call__(self, aug_input: T.AugInput) -> T.Transform:
        """Changes the input in place. Of its ``classes`` (G,), if it has them, centromeres follow.

        Without them, chromatids open about any place.
        """
        classes = getattr(aug_input, "classes", None)
        transform = self.get_transform(aug_input.image, aug_input.boxes, classes)
        aug_input.transform(transform)
        return transform

    def get_transform(
        self, image: np.ndarray, boxes: np.ndarray, classes: np.ndarray | None = None
    ) -> T.Transform:
        """Draws the chromosomes of an image (H, W) with boxes (G, 4) anew."""
        if self._rand_range() >= self.prob or boxes is None or len(boxes) == 0:
            return T.NoOpTransform()
        rng = np.random.default_rng(int(self._rand_range(0, 2**31)))
        dark = np.maximum(PlacingTransform.darkness(image), 0)
        cutouts = isolated(image, np.asarray(boxes, dtype=np.float64))
        opened = rng.random() < self.opened
        cell = _Cell(
            length=rng.uniform(self.length, 1),
            width=rng.uniform(1, self.width),
            apart=rng.uniform(0.0, 0.6) if opened else 0.0,
            spread=rng.uniform(0.0, MOST_SPREAD) if opened else 0.0,
            blur=rng.uniform(0, MOST_BLUR),
            faded=rng.uniform(1.0, MOST_FADED) if rng.random() < FADED_SHARE else 0.0,
        )
        names = [None if classes is None else CLASSES[classes[c.row]] for c in cutouts]
        placed = [_condensed(rng, c, dark, cell, n) for c, n in zip(cutouts, names, strict=True)]
        return PlacingTransform(image, placed) if placed else T.NoOpTransform()


@dataclass(frozen=True)
class _Cell:
    """How far the chromosomes of a cell are condensed; see :class:`Condensed`."""

    length: float
    width: float
    apart: float
    spread: float
    blur: float
    faded: float


def _condensed(
    rng: np.random.Generator,
    cutout: Cutout,
    dark: NDArray[np.float32],
    cell: _Cell,
    name: str | None,
) -> Condensed:
    """Draws one chromosome's share of what the cell has."""
    x, y = cutout.corner
    height, wide = cutout.mask.shape
    patch = np.where(cutout.mask > 0, dark[y : y + height, x : x + wide], 0).astype(np.float32)
    axis = _axis(patch)
    opened = cell.apart + cell.spread > 0
    opened = opened and axis.elongation >= LEAST_ELONGATION and rng.random() < 0.9
    if opened and name is not None:
        centromere = find_centromere(patch, axis, name)
    else:
        centromere = rng.uniform(-0.9, 0.9)
    # Either arm opens by itself.
    arms = cell.spread * rng.uniform(0.0, 1.0, 2) if opened else (0.0, 0.0)
    return Condensed(
        cutout,
        center=(x + axis.middle[0] + 0.5, y + axis.middle[1] + 0.5),
        additive=False,
        length=float(np.clip(cell.length * rng.uniform(0.93, 1.07), 0.3, 1.1)),
        width=float(cell.width * rng.uniform(0.95, 1.05)),
        apart=float(cell.apart * rng.uniform(0.2, 1.0)) if opened else 0.0,
        spread=(float(arms[0]), float(arms[1])),
        centromere=float(centromere),
        blur=float(cell.blur),
        faded=float(cell.faded),
    )
