"""What the network is shown of an image: its spread, at the size and tone that training had.

Laboratories' pictures differ in magnification, field, background and polarity. A view undoes that
and knows the way back: boxes found on it return to the image's own pixels. Images are uint8 (H, W),
boxes XYXY.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from deepacc_d2.errors import ConfigError
from deepacc_d2.images.gray import Gray
from deepacc_d2.images.spread import Spread, find_spread, is_inverted, normalize_tone

# Of a Tseng image's longest side: the median square root of a chromosome's box area. A network
# trained on images fitted into m pixels has seen chromosomes of this times m.
CHROMOSOME_SHARE = 0.088
# The field is cut to the spread only where that saves this much of it.
CROP_BELOW = 0.7
# Around the spread, in chromosome sizes.
MARGIN = 1.5
# Median square root of the area of a detector's boxes over the chromosome size of their view, where
# that is right: trained boxes are a little tighter than annotators'. Measured on validation images.
BOX_TO_SIZE = 0.97
# A second look is taken where boxes say a size that is off by more than this, and by no more than
# this much at once.
WRONG_SIZE = 0.07
MAX_CORRECTION = 2.0
# Fewer boxes say nothing about the size.
MIN_BOXES = 15


@dataclass(frozen=True)
class ViewSettings:
    """How images are brought to what a network was trained on.

    >>> settings = ViewSettings(normalize=False, fit_size=64)
    >>> view = make_view(np.full((100, 200), 255, np.uint8), settings)
    >>> view.image.shape, view.zoom
    ((32, 64), 0.32)

    Attributes:
        chromosome_size: median square root of a chromosome's box area in the view, in pixels.
        max_size: the view's longest side is never longer, in pixels.
        tone: even the background and set the depth of the chromosomes.
        normalize: find the spread; otherwise the whole image is fitted into ``fit_size``, its
            gray levels untouched.
        fit_size: longest side of the view of an image that is not normalized or has no spread, in
            pixels: in which a picture that its spread fills has chromosomes of the right size.
        second_look: where the detector's boxes say another size than was assumed, zoom by what
            they say and detect again, once.
    """

    chromosome_size: float = 40.0
    max_size: int = 1024
    tone: bool = True
    normalize: bool = True
    fit_size: int = 512
    second_look: bool = True

    def __post_init__(self) -> None:
        if not 8 <= self.chromosome_size <= self.max_size or not 32 <= self.max_size <= 16384:
            raise ConfigError(
                "a view needs 8 <= chromosome_size <= max_size and 32 <= max_size <= 16384, not "
                f"{self.chromosome_size}, {self.max_size}"
            )
        if not 32 <= self.fit_size <= 16384:
            raise ConfigError(f"a view needs 32 <= fit_size <= 16384, not {self.fit_size}")

    @classmethod
    def from_augmentations(
        cls, augmentations: Sequence[Mapping[str, Any]], *, normalize: bool = True
    ) -> ViewSettings:
        """Returns the settings that show a network what it was tested on.

        Args:
            augmentations: a checkpoint's ``test_augmentations``, nodes with ``_target_``.
            normalize: see the class.

        Raises:
            ConfigError: nothing in them gives a size.
        """
        tone = False
        size: dict[str, Any] = {}
        for node in augmentations:
            name = str(node.get("_target_", "")).rsplit(".", 1)[-1]
            if name == "NormalizeTone":
                tone = True
            elif name == "ResizeToChromosomes":
                longest = int(node.get("max_size", 1024))
                size = {"chromosome_size": float(node["chromosome_size"]), "max_size": longest}
            elif name in ("ResizeToFit", "ResizeShortestEdge"):
                longest = int(node["max_size"])
                chromosome = max(8.0, CHROMOSOME_SHARE * longest)
                size = {"chromosome_size": chromosome, "max_size": longest}
        if not size:
            raise ConfigError(
                "the checkpoint's test_augmentations have no ResizeToChromosomes, ResizeToFit or "
                "ResizeShortestEdge: give the chromosome size"
            )
        fit = min(round(size["chromosome_size"] / CHROMOSOME_SHARE), size["max_size"])
        return cls(**size, tone=tone, normalize=normalize, fit_size=fit)


@dataclass(frozen=True)
class View:
    """An image as the network is shown it.

    Attributes:
        image: uint8 (h, w).
        zoom: pixels of the view for one of the image.
        crop: XYXY in pixels of the image: what of it the view shows.
        inverted: the image has light chromosomes on a dark background.
        normalized: a spread was found and brought to size.
        note: one sentence on what was done.
    """

    image: Gray
    zoom: float
    crop: tuple[int, int, int, int]
    inverted: bool
    normalized: bool
    note: str

    def facts(self) -> dict[str, Any]:
        """Returns what was done to the image, as plain values."""
        return {
            "zoom": round(self.zoom, 4),
            "crop": [int(v) for v in self.crop],
            "inverted": bool(self.inverted),
            "normalized": bool(self.normalized),
            "note": self.note,
        }

    def to_original(self, boxes: ArrayLike) -> NDArray[np.float64]:
        """Returns boxes (N, 4) of the view in pixels of the image, float64."""
        array = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
        height, width = self.image.shape
        x0, y0, x1, y1 = self.crop
        scale = np.array([(x1 - x0) / width, (y1 - y0) / height])
        return array * np.tile(scale, 2) + np.array([x0, y0, x0, y0], dtype=np.float64)


def make_view(gray: Gray, settings: ViewSettings) -> View:
    """Shows the network an image.

    For an image that its spread fills, the view equals, pixel by pixel, that of the augmentations
    ``ResizeToChromosomes`` and ``NormalizeTone`` without jitter.

    Args:
        gray: uint8 (H, W), at least one pixel.
        settings: of the network.

    Raises:
        ConfigError: another type or shape.
    """
    if gray.dtype != np.uint8 or gray.ndim != 2 or 0 in gray.shape:
        raise ConfigError(
            f"a view is made of uint8 (H, W), not of {gray.dtype} {gray.shape}: use as_gray"
        )
    height, width = gray.shape
    crop = (0, 0, width, height)
    if not settings.normalize:
        zoom = min(settings.fit_size, settings.max_size) / max(height, width)
        note = f"not normalized; the whole image zoomed {zoom:.2f} times"
        return View(_resize(gray, zoom), zoom, crop, is_inverted(gray), False, note)
    spread = find_spread(gray)
    if spread is None:
        zoom = min(settings.fit_size, settings.max_size) / max(height, width)
        said = [f"no spread found; the whole image zoomed {zoom:.2f} times"]
    else:
        crop = _crop(spread, width, height)
        wanted = settings.chromosome_size / spread.chromosome_size
        zoom = min(wanted, _largest_zoom(crop, settings))
        x0, y0, x1, y1 = spread.box
        said = [f"spread found at {x0},{y0}-{x1},{y1}; zoomed {zoom:.2f} times"]
        if zoom < 0.95 * wanted:
            said.append(f"{wanted:.2f} would pass {settings.max_size} pixels")
        if crop != (0, 0, width, height):
            said.append("cut to {},{}-{},{}".format(*crop))
        if spread.others:
            what = "another spread" if spread.others == 1 else f"{spread.others} other spreads"
            said.append(f"{what} in the field")
    inverted = is_inverted(gray)
    if inverted and settings.tone:
        said.append("light on dark inverted")
    image = _show(gray, crop, zoom, settings)
    return View(image, zoom, crop, inverted, spread is not None, "; ".join(said))


def plain_view(gray: Gray, shown: Gray) -> View:
    """Returns the view that a whole image is, resized by something else than :func:`make_view`.

    Args:
        gray: uint8 (H, W), the image.
        shown: uint8 (h, w), all of it.
    """
    height, width = gray.shape
    zoom = float(np.sqrt(shown.size / gray.size))
    note = f"as training tests; the whole image zoomed {zoom:.2f} times"
    return View(shown, zoom, (0, 0, width, height), is_inverted(gray), False, note)


def second_view(
    gray: Gray, view: View, boxes: NDArray[np.floating], settings: ViewSettings
) -> View | None:
    """Shows the network an image again, at the size that its boxes suggest.

    Args:
        gray: uint8 (H, W), the image.
        view: the first one of it.
        boxes: (N, 4) XYXY in pixels of that view, those that are surely chromosomes.
        settings: of the network.

    Returns:
        A view of at least what the first one showed; None where that was right, where no size is
        told, or where the view may not become larger.
    """
    if not (settings.second_look and settings.normalize) or len(boxes) < MIN_BOXES:
        return None
    wrong = typical_size(boxes) / settings.chromosome_size
    wrong = float(np.clip(wrong, 1 / MAX_CORRECTION, MAX_CORRECTION))
    wanted = view.zoom / wrong
    # Of chromosomes larger than was thought the spread's rim may have been cut off.
    height, width = gray.shape
    margin = MARGIN * settings.chromosome_size / wanted
    around = view.to_original([[*boxes[:, :2].min(axis=0), *boxes[:, 2:].max(axis=0)]])[0]
    x0, y0 = (max(0, int(v - margin)) for v in around[:2])
    x1, y1 = (int(np.ceil(v + margin)) for v in around[2:])
    crop = (
        min(view.crop[0], x0),
        min(view.crop[1], y0),
        max(view.crop[2], min(width, x1)),
        max(view.crop[3], min(height, y1)),
    )
    zoom = min(wanted, _largest_zoom(crop, settings))
    if abs(np.log(zoom / view.zoom)) <= np.log(1 + WRONG_SIZE):
        return None
    note = f"{view.note}; second look, zoomed {zoom:.2f} times, by the size of the boxes"
    image = _show(gray, crop, zoom, settings)
    return View(image, zoom, crop, view.inverted, True, note)


def typical_size(boxes: NDArray[np.floating]) -> float:
    """Returns the chromosome size in a view that a detector's boxes (N, 4) in it give; N >= 1."""
    sides = (boxes[:, 2:] - boxes[:, :2]).astype(np.float64)
    return float(np.median(np.sqrt(sides.prod(axis=1)))) / BOX_TO_SIZE


def _largest_zoom(crop: tuple[int, int, int, int], settings: ViewSettings) -> float:
    return settings.max_size / max(crop[2] - crop[0], crop[3] - crop[1])


def _show(gray: Gray, crop: tuple[int, int, int, int], zoom: float, settings: ViewSettings) -> Gray:
    """Cuts, zooms, and sets the tone."""
    image = _resize(gray[crop[1] : crop[3], crop[0] : crop[2]], zoom)
    return normalize_tone(image) if settings.tone else image


def _crop(spread: Spread, width: int, height: int) -> tuple[int, int, int, int]:
    """Returns XYXY of what to show: the spread with a margin, or all where that is most of it."""
    margin = MARGIN * spread.chromosome_size
    x0, y0 = (max(0, int(v - margin)) for v in spread.box[:2])
    x1 = min(width, int(np.ceil(spread.box[2] + margin)))
    y1 = min(height, int(np.ceil(spread.box[3] + margin)))
    if (x1 - x0) * (y1 - y0) < CROP_BELOW * width * height:
        return x0, y0, x1, y1
    return 0, 0, width, height


def _resize(gray: Gray, zoom: float) -> Gray:
    """Resizes as :class:`deepacc_d2.images.transforms.CV2ResizeTransform` does."""
    height, width = gray.shape
    new = max(1, round(height * zoom)), max(1, round(width * zoom))
    if new == (height, width):
        return np.ascontiguousarray(gray)
    shrink = new[0] * new[1] < height * width
    method = cv2.INTER_AREA if shrink else cv2.INTER_LINEAR
    resized = cv2.resize(np.ascontiguousarray(gray), new[::-1], interpolation=method)
    return np.asarray(resized, dtype=np.uint8)
