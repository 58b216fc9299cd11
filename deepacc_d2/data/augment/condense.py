"""An augmentation that condenses chromosomes further: shorter, thicker, chromatids apart.

How far chromosomes are condensed depends on how long a culture was under Colcemid, and on the
laboratory's way of spreading. Long exposure makes them short and thick, and opens the two sister
chromatids, which then lie side by side or as an X. A laboratory's own pictures show one degree of
it. This draws others, from isolated real chromosomes.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from detectron2.data import transforms as T
from numpy.typing import NDArray

from deepacc_d2.data.augment.crowding import Cutout, Placed, PlacingTransform, isolated
from deepacc_d2.data.augment.degrade import LEAST_BLUR
from deepacc_d2.errors import ConfigError
from deepacc_d2.method import check_shares

# Standard deviations along the axis over those across that a chromosome with a clear axis has at
# least. In others the chromatids cannot be told apart.
LEAST_ELONGATION = 1.5
# Bands run together by a blur of at most this standard deviation, in pixels.
MOST_BLUR = 1.6
# Width of one chromatid over that of the chromosome before they opened.
CHROMATID = 0.62


@dataclass(frozen=True)
class Condensed(Placed):
    """A chromosome that is shortened and widened in its place.

    Attributes:
        length: factor along its axis.
        width: factor across.
        apart: distance of the chromatids' axes over the chromosome's width, at the centromere; 0
            if they are closed.
        spread: what the distance grows by towards each end, over the chromosome's width.
        centromere: its place along the axis, -1 at one end and 1 at the other.
        blur: standard deviation, in pixels, by which neighboring bands run together.
    """

    length: float
    width: float
    apart: float
    spread: float
    centromere: float
    blur: float

    def changed(self, patch: NDArray[np.float32]) -> NDArray[np.float32]:
        """Draws the chromosome of a patch (h, w) anew, into a square about its middle."""
        axis = _axis(patch)
        if self.blur >= LEAST_BLUR:
            patch = np.asarray(cv2.GaussianBlur(patch, (0, 0), self.blur), dtype=np.float32)
        height, width = patch.shape
        wide = axis.width * (self.width + self.apart + self.spread)
        side = int(np.ceil(np.hypot(height, width) + wide)) + 2
        xs = np.arange(side, dtype=np.float32) - (side - 1) / 2
        right, down = np.meshgrid(xs, xs)
        cos, sin = axis.direction
        # From the square to the chromosome's own frame: along its axis and across.
        along = (right * cos + down * sin) / self.length
        across = down * cos - right * sin - axis.bend * (along**2 - axis.reach**2 / 3)

        def looked_up(across: NDArray[np.float32]) -> NDArray[np.float32]:
            turned = across + axis.bend * (along**2 - axis.reach**2 / 3)
            map_x = axis.middle[0] + along * cos - turned * sin
            map_y = axis.middle[1] + along * sin + turned * cos
            return np.asarray(
                cv2.remap(
                    patch, map_x.astype(np.float32), map_y.astype(np.float32), cv2.INTER_LINEAR
                ),
                dtype=np.float32,
            )

        if self.apart + self.spread == 0:
            return looked_up(across / self.width)
        from_centromere = np.abs(along / max(axis.reach, 1) - self.centromere)
        offset = axis.width * (self.apart + self.spread * from_centromere) / 2
        narrow = CHROMATID * self.width
        # Each chromatid has all the bands, across its own width.
        pair = [looked_up((across - sign * offset) / narrow) for sign in (-1, 1)]
        return np.asarray(np.maximum(*pair), dtype=np.float32)


@dataclass(frozen=True)
class _Axis:
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


def _axis(patch: NDArray[np.float32]) -> _Axis:
    """Fits the axis of a chromosome's darkness (h, w)."""
    rows, columns = np.nonzero(patch > 0)
    if len(rows) < 3:
        middle = ((patch.shape[1] - 1) / 2, (patch.shape[0] - 1) / 2)
        return _Axis(middle, (1.0, 0.0), 0.0, 1.0, 1.0, 1.0)
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
    return _Axis(
        (float(middle[0]), float(middle[1])),
        (float(cos), float(sin)),
        bend,
        reach,
        # Not from the deviation: an S-shaped one is not as wide as it strays from the parabola.
        len(rows) / (2 * reach),
        float(np.sqrt(values[1])) / deviation,
    )


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
        self, length: float = 0.55, width: float = 1.6, opened: float = 0.5, prob: float = 0.35
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

    def get_transform(self, image: np.ndarray, boxes: np.ndarray) -> T.Transform:
        """Draws the chromosomes of an image (H, W) with boxes (G, 4) anew."""
        if self._rand_range() >= self.prob or boxes is None or len(boxes) == 0:
            return T.NoOpTransform()
        rng = np.random.default_rng(int(self._rand_range(0, 2**31)))
        dark = np.maximum(PlacingTransform.darkness(image), 0)
        cutouts = isolated(image, np.asarray(boxes, dtype=np.float64))
        length = rng.uniform(self.length, 1)
        width = rng.uniform(1, self.width)
        apart = rng.uniform(0.3, 0.6) if rng.random() < self.opened else 0.0
        blur = rng.uniform(0, MOST_BLUR)
        placed = [self._condensed(rng, c, dark, (length, width, apart, blur)) for c in cutouts]
        return PlacingTransform(image, placed) if placed else T.NoOpTransform()

    def _condensed(
        self,
        rng: np.random.Generator,
        cutout: Cutout,
        dark: NDArray[np.float32],
        cell: tuple[float, float, float, float],
    ) -> Condensed:
        """Draws one chromosome's share of the cell's length, width, opening and blur."""
        length, width, apart, blur = cell
        x, y = cutout.corner
        height, wide = cutout.mask.shape
        patch = np.where(cutout.mask > 0, dark[y : y + height, x : x + wide], 0)
        axis = _axis(patch.astype(np.float32))
        open_here = apart > 0 and axis.elongation >= LEAST_ELONGATION and rng.random() < 0.9
        return Condensed(
            cutout,
            center=(x + axis.middle[0] + 0.5, y + axis.middle[1] + 0.5),
            additive=False,
            length=float(np.clip(length * rng.uniform(0.93, 1.07), 0.3, 1.1)),
            width=float(width * rng.uniform(0.95, 1.05)),
            apart=float(apart * rng.uniform(0.2, 1.0)) if open_here else 0.0,
            spread=float(apart * rng.uniform(0.0, 1.0)) if open_here else 0.0,
            centromere=float(rng.uniform(-0.9, 0.9)),
            blur=float(blur),
        )
