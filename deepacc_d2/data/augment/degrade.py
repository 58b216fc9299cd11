"""Augmentations that make one laboratory's picture look like another's.

Condensation makes chromosomes thicker or thinner at one length, focus and sharpening change their
edges, cameras add noise and archives compress. Images are uint8 (H, W) with dark chromosomes on a
light background, as :class:`~deepacc_d2.images.transforms.NormalizeTone` leaves them.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
from detectron2.data import transforms as T

from deepacc_d2.data.synthetic.slide import add_nucleus
from deepacc_d2.errors import ConfigError
from deepacc_d2.images.transforms import CV2ResizeTransform
from deepacc_d2.method import check_shares

LEAST_BLUR = 0.3
"""Standard deviation, in pixels, of a blur that can just be seen."""


class PixelTransform(T.Transform):
    """Changes pixels by a function of the image; geometry is unchanged."""

    def __init__(self, change: Callable[[np.ndarray], np.ndarray]) -> None:
        super().__init__()
        self.change = change

    def apply_image(self, img: np.ndarray) -> np.ndarray:
        """Changes an image (H, W)."""
        return self.change(np.ascontiguousarray(img))

    def apply_coords(self, coords: np.ndarray) -> np.ndarray:
        """Leaves points alone."""
        return coords

    def inverse(self) -> T.Transform:
        """Pixels do not come back; the geometry's inverse is no change."""
        return T.NoOpTransform()


SIZE_ON_SLIDE = 63.0
"""Median square root of a chromosome's box area, in pixels of a drawn slide at scale 1."""


class RandomStretch(T.Augmentation):
    """Stretches one axis of the image against the other, its area unchanged.

    With random flips and transpositions, and chromosomes in all directions, it sets length and
    width apart.

    Args:
        largest: greatest ratio of an axis's factor to 1; drawn log-uniformly.
    """

    def __init__(self, largest: float = 1.12) -> None:
        super().__init__()
        if not 1 <= largest < 2:
            raise ConfigError(f"largest={largest}: a stretch must be in [1, 2)")
        self.largest = largest

    def get_transform(self, image: np.ndarray) -> T.Transform:
        """Draws the transform of an image (H, W)."""
        height, width = image.shape[:2]
        factor = self.largest ** self._rand_range(-1, 1)
        new = max(1, round(height * factor)), max(1, round(width / factor))
        return CV2ResizeTransform(height, width, *new)


class RandomThickness(T.Augmentation):
    """Makes chromosomes thicker or thinner, as more or less condensation would at one length.

    Args:
        most: largest share of the picture that is replaced by one whose dark parts are a pixel
            wider, or narrower, on every side.
        prob: share of images that it is done to.
    """

    def __init__(self, most: float = 0.6, prob: float = 0.5) -> None:
        super().__init__()
        check_shares(most=most)
        check_shares(prob=prob)
        self.most, self.prob = most, prob

    def get_transform(self, image: np.ndarray) -> T.Transform:
        """Draws the transform."""
        if self._rand_range() >= self.prob:
            return T.NoOpTransform()
        amount = self.most * self._rand_range(-1, 1)
        kernel = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))

        def change(img: np.ndarray) -> np.ndarray:
            # Eroding light is widening dark.
            other = cv2.erode(img, kernel) if amount > 0 else cv2.dilate(img, kernel)
            return cv2.addWeighted(img, 1 - abs(amount), other, abs(amount), 0)

        return PixelTransform(change)


class RandomNuclei(T.Augmentation):
    """Lays interphase nuclei over the picture, so that their edges cross chromosomes.

    Stain absorbs: where a nucleus covers a chromosome, their optical densities add up, and the
    bands show through. Boxes stay as they are.

    Args:
        chromosome_size: median square root of a chromosome's box area, in pixels. A nucleus has
            0.8 to 2 times that as its radius.
        most: nuclei that are drawn at most.
        dark: largest optical density of a nucleus.
        prob: share of images that it is done to.
    """

    def __init__(
        self, chromosome_size: float, most: int = 3, dark: float = 0.7, prob: float = 0.25
    ) -> None:
        super().__init__()
        check_shares(prob=prob)
        if chromosome_size < 8 or most < 1 or dark <= 0:
            raise ConfigError(
                "nuclei need chromosome_size >= 8, most >= 1 and dark > 0, not "
                f"{chromosome_size}, {most}, {dark}"
            )
        self.chromosome_size, self.most, self.dark, self.prob = chromosome_size, most, dark, prob

    def get_transform(self, image: np.ndarray) -> T.Transform:
        """Draws the nuclei of an image (H, W)."""
        if self._rand_range() >= self.prob:
            return T.NoOpTransform()
        height, width = image.shape[:2]
        rng = np.random.default_rng(int(self._rand_range(0, 2**31)))
        density = np.zeros((height, width), dtype=np.float32)
        for _ in range(rng.integers(1, self.most + 1)):
            add_nucleus(
                rng,
                density,
                complex(rng.uniform(0, width), rng.uniform(0, height)),
                self.chromosome_size * rng.uniform(0.8, 2.0),
                dark=self.dark * rng.uniform(0.4, 1.0),
                scale=self.chromosome_size / SIZE_ON_SLIDE,
            )
        light = np.exp(-density)

        def under_nuclei(img: np.ndarray) -> np.ndarray:
            return np.rint(img * light).astype(np.uint8)

        return PixelTransform(under_nuclei)


class RandomFocus(T.Augmentation):
    """Blurs, or sharpens as imaging software does.

    Args:
        blur: largest standard deviation of the blur, in pixels.
        sharpen: largest share of the detail that is added once more.
        prob: share of images that either is done to.
    """

    def __init__(self, blur: float = 1.1, sharpen: float = 1.0, prob: float = 0.4) -> None:
        super().__init__()
        check_shares(prob=prob)
        if blur < LEAST_BLUR or sharpen < 0:
            raise ConfigError(
                f"blur={blur}, sharpen={sharpen}: give a blur of {LEAST_BLUR} pixels or more, "
                "and a share of detail that is not negative"
            )
        self.blur, self.sharpen, self.prob = blur, sharpen, prob

    def get_transform(self, image: np.ndarray) -> T.Transform:
        """Draws the transform."""
        drawn = self._rand_range()
        if drawn >= self.prob:
            return T.NoOpTransform()
        amount = self._rand_range()
        if drawn < self.prob / 2:
            sigma = LEAST_BLUR + amount * (self.blur - LEAST_BLUR)
            return PixelTransform(lambda img: cv2.GaussianBlur(img, (0, 0), sigma))
        gain = amount * self.sharpen

        def sharpened(img: np.ndarray) -> np.ndarray:
            return cv2.addWeighted(img, 1 + gain, cv2.GaussianBlur(img, (0, 0), 1.5), -gain, 0)

        return PixelTransform(sharpened)


class RandomNoise(T.Augmentation):
    """Adds a camera's noise.

    Args:
        most: largest standard deviation, in gray levels.
        prob: share of images that it is done to.
    """

    def __init__(self, most: float = 10.0, prob: float = 0.3) -> None:
        super().__init__()
        check_shares(prob=prob)
        if most < 0:
            raise ConfigError(f"most={most}: noise is not negative")
        self.most, self.prob = most, prob

    def get_transform(self, image: np.ndarray) -> T.Transform:
        """Draws the noise of an image (H, W)."""
        if self._rand_range() >= self.prob:
            return T.NoOpTransform()
        sigma = self.most * self._rand_range()
        noise = np.random.standard_normal(image.shape[:2]).astype(np.float32) * sigma  # noqa: NPY002

        def noisy(img: np.ndarray) -> np.ndarray:
            return np.clip(np.rint(img + noise), 0, 255).astype(np.uint8)

        return PixelTransform(noisy)


class RandomJpeg(T.Augmentation):
    """Compresses as an archive does.

    Args:
        lowest: least JPEG quality; drawn uniformly up to 95.
        prob: share of images that it is done to.
    """

    def __init__(self, lowest: int = 40, prob: float = 0.2) -> None:
        super().__init__()
        check_shares(prob=prob)
        if not 1 <= lowest <= 95:
            raise ConfigError(f"lowest={lowest}: a JPEG quality here is 1 to 95")
        self.lowest, self.prob = lowest, prob

    def get_transform(self, image: np.ndarray) -> T.Transform:
        """Draws the quality."""
        if self._rand_range() >= self.prob:
            return T.NoOpTransform()
        quality = int(self._rand_range(self.lowest, 96))

        def compressed(img: np.ndarray) -> np.ndarray:
            _, data = cv2.imencode(".jpg", img, [cv2.IMWRITE_JPEG_QUALITY, quality])
            return np.asarray(cv2.imdecode(data, cv2.IMREAD_GRAYSCALE), dtype=np.uint8)

        return PixelTransform(compressed)
