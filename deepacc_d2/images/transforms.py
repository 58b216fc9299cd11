"""Augmentations for metaphase images, in Detectron2's ``Augmentation`` interface.

A metaphase has no up or down, so all eight symmetries of the square are as likely; brightness,
contrast and gamma vary with microscope, camera and staining. Images are uint8 (H, W), boxes XYXY
in pixels.
"""

from __future__ import annotations

import cv2
import numpy as np
from detectron2.data import transforms as T

from deepacc_d2.errors import ConfigError
from deepacc_d2.images.spread import find_spread, normalize_tone


class CV2ResizeTransform(T.Transform):
    """Resizes by OpenCV: area averaging to shrink, which keeps thin bands, linear to enlarge."""

    def __init__(self, height: int, width: int, new_height: int, new_width: int) -> None:
        super().__init__()
        self.size = (height, width)
        self.new_size = (new_height, new_width)

    def apply_image(self, img: np.ndarray) -> np.ndarray:
        """Resizes an image (H, W) or (H, W, C)."""
        if self.size == self.new_size:
            return img
        shrink = self.new_size[0] * self.new_size[1] < self.size[0] * self.size[1]
        method = cv2.INTER_AREA if shrink else cv2.INTER_LINEAR
        return cv2.resize(img, self.new_size[::-1], interpolation=method)

    def apply_coords(self, coords: np.ndarray) -> np.ndarray:
        """Scales points (N, 2) as x, y."""
        scale = np.array(self.new_size[::-1]) / np.array(self.size[::-1])
        return coords * scale

    def inverse(self) -> T.Transform:
        """Resizes back."""
        return CV2ResizeTransform(*self.new_size, *self.size)


class ResizeToFit(T.Augmentation):
    """Scales so that the image just fits into ``max_size`` x ``max_size``, times a random factor.

    The factor is log-uniform in ``scale``; (1, 1) at test time. Whole metaphases are crops
    around the spread, so a fixed longest side gives chromosomes a similar size.
    """

    def __init__(self, max_size: int, scale: tuple[float, float] = (1.0, 1.0)) -> None:
        super().__init__()
        if max_size < 32 or not 0 < scale[0] <= scale[1]:
            raise ConfigError(
                f"resize needs max_size >= 32 and 0 < low <= high, not {max_size}, {tuple(scale)}"
            )
        self.max_size = max_size
        self.scale = scale

    def get_transform(self, image: np.ndarray) -> T.Transform:
        """Draws the transform of an image (H, W)."""
        height, width = image.shape[:2]
        low, high = np.log(self.scale)
        factor = self.max_size / max(height, width) * np.exp(np.random.uniform(low, high))  # noqa: NPY002
        return CV2ResizeTransform(
            height, width, max(1, round(height * factor)), max(1, round(width * factor))
        )


class ResizeShortestEdge(T.Augmentation):
    """Scales the shorter side to ``min_size`` unless the longer one would pass ``max_size``.

    The rule of Detectron2 and MMDetection (``Resize`` with ``keep_ratio``), by OpenCV.
    """

    def __init__(self, min_size: int, max_size: int) -> None:
        super().__init__()
        if not 32 <= min_size <= max_size:
            raise ConfigError(
                f"resize needs 32 <= min_size <= max_size, not {min_size}, {max_size}"
            )
        self.min_size = min_size
        self.max_size = max_size

    def get_transform(self, image: np.ndarray) -> T.Transform:
        """Returns the transform of an image (H, W)."""
        height, width = image.shape[:2]
        factor = min(self.min_size / min(height, width), self.max_size / max(height, width))
        return CV2ResizeTransform(
            height, width, max(1, round(height * factor)), max(1, round(width * factor))
        )


class TransposeTransform(T.Transform):
    """Swaps rows and columns."""

    def apply_image(self, img: np.ndarray) -> np.ndarray:
        """Transposes (H, W) or (H, W, C) to (W, H) or (W, H, C)."""
        return img.swapaxes(0, 1)

    def apply_coords(self, coords: np.ndarray) -> np.ndarray:
        """Swaps x and y of points (N, 2)."""
        return coords[:, ::-1]

    def inverse(self) -> T.Transform:
        """A transposition is its own inverse."""
        return self


class RandomTranspose(T.Augmentation):
    """Transposes with a probability; with both flips it makes all eight symmetries."""

    def __init__(self, prob: float = 0.5) -> None:
        super().__init__()
        self.prob = prob

    def get_transform(self, image: np.ndarray) -> T.Transform:
        """Draws the transform."""
        return TransposeTransform() if self._rand_range() < self.prob else T.NoOpTransform()


class LookupTransform(T.Transform):
    """Maps each gray level through a table of 256 entries; geometry is unchanged."""

    def __init__(self, table: np.ndarray) -> None:
        super().__init__()
        self.table = table

    def apply_image(self, img: np.ndarray) -> np.ndarray:
        """Maps a uint8 image."""
        return cv2.LUT(np.ascontiguousarray(img), self.table)

    def apply_coords(self, coords: np.ndarray) -> np.ndarray:
        """Leaves points alone."""
        return coords

    def inverse(self) -> T.Transform:
        """Not invertible in gray levels; the geometry's inverse is no change."""
        return T.NoOpTransform()


class RandomTone(T.Augmentation):
    """Random brightness, contrast (about mid-gray) and gamma, by one table look-up.

    Args:
        brightness: largest shift, in gray levels.
        contrast: largest relative change of contrast.
        gamma: largest factor (or its inverse) of the exponent.
    """

    def __init__(self, brightness: float = 20, contrast: float = 0.2, gamma: float = 1.2) -> None:
        super().__init__()
        self.brightness, self.contrast, self.gamma = brightness, contrast, gamma

    def get_transform(self, image: np.ndarray) -> T.Transform:
        """Draws the table."""
        exponent = self.gamma ** self._rand_range(-1, 1)
        gain = 1 + self.contrast * self._rand_range(-1, 1)
        shift = self.brightness * self._rand_range(-1, 1)
        levels = (np.arange(256) / 255) ** exponent * 255
        table = np.clip((levels - 128) * gain + 128 + shift, 0, 255)
        return LookupTransform(np.rint(table).astype(np.uint8))


class NormalizeToneTransform(T.Transform):
    """Evens the background and spreads the gray levels; geometry is unchanged."""

    def apply_image(self, img: np.ndarray) -> np.ndarray:
        """Normalizes a uint8 image (H, W) by what it shows itself."""
        return normalize_tone(img)

    def apply_coords(self, coords: np.ndarray) -> np.ndarray:
        """Leaves points alone."""
        return coords

    def inverse(self) -> T.Transform:
        """Not invertible in gray levels; the geometry's inverse is no change."""
        return T.NoOpTransform()


class NormalizeTone(T.Augmentation):
    """Gives every image the same light background and depth of chromosomes."""

    def get_transform(self, image: np.ndarray) -> T.Transform:
        """Returns the transform of an image (H, W)."""
        return NormalizeToneTransform()


class ResizeToChromosomes(T.Augmentation):
    """Scales so that chromosomes have one size, whatever the magnification and the crop.

    The size is estimated from the pixels (:func:`deepacc_d2.images.spread.find_spread`), never from
    annotations, so that images without any are treated alike. An image in which no spread is found
    is fitted into ``max_size``.

    Args:
        chromosome_size: median square root of a chromosome's box area, in pixels.
        scale: bounds of a log-uniform random factor; (1, 1) at test time.
        max_size: the longest side may not become longer.
    """

    def __init__(
        self, chromosome_size: float, scale: tuple[float, float] = (1.0, 1.0), max_size: int = 1024
    ) -> None:
        super().__init__()
        if chromosome_size < 8 or max_size < 32 or not 0 < scale[0] <= scale[1]:
            raise ConfigError(
                "resize needs chromosome_size >= 8, max_size >= 32 and 0 < low <= high, not "
                f"{chromosome_size}, {max_size}, {tuple(scale)}"
            )
        self.chromosome_size = chromosome_size
        self.scale = scale
        self.max_size = max_size

    def get_transform(self, image: np.ndarray) -> T.Transform:
        """Draws the transform of an image (H, W)."""
        height, width = image.shape[:2]
        low, high = np.log(self.scale)
        spread = find_spread(image)
        largest = self.max_size / max(height, width)
        factor = self.chromosome_size / spread.chromosome_size if spread else largest
        factor = min(factor * np.exp(np.random.uniform(low, high)), largest)  # noqa: NPY002
        return CV2ResizeTransform(
            height, width, max(1, round(height * factor)), max(1, round(width * factor))
        )


class RandomResolution(T.Augmentation):
    """Takes detail away as a lower magnification would, without a change of size.

    Args:
        lowest: least resolution, as a share of the image's; drawn log-uniformly up to 1.
        prob: share of images that it is done to.
    """

    def __init__(self, lowest: float = 0.45, prob: float = 0.5) -> None:
        super().__init__()
        if not 0 < lowest <= 1:
            raise ConfigError(f"lowest={lowest} is no share of a resolution: 0 < lowest <= 1")
        self.lowest = lowest
        self.prob = prob

    def get_transform(self, image: np.ndarray) -> T.Transform:
        """Draws the transform."""
        if self._rand_range() >= self.prob:
            return T.NoOpTransform()
        return LowerResolutionTransform(float(np.exp(self._rand_range(np.log(self.lowest), 0))))


class LowerResolutionTransform(T.Transform):
    """Shrinks by a factor and enlarges again."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def apply_image(self, img: np.ndarray) -> np.ndarray:
        """Takes detail from an image (H, W)."""
        height, width = img.shape[:2]
        size = (max(1, round(width * self.factor)), max(1, round(height * self.factor)))
        small = cv2.resize(img, size, interpolation=cv2.INTER_AREA)
        return cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)

    def apply_coords(self, coords: np.ndarray) -> np.ndarray:
        """Leaves points alone."""
        return coords

    def inverse(self) -> T.Transform:
        """Detail does not come back; the geometry's inverse is no change."""
        return T.NoOpTransform()
