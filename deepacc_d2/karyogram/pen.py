"""Draws text, lines and strips in the units of a page."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.image import AxesImage

from deepacc_d2 import palette
from deepacc_d2.karyogram.layout import Place
from deepacc_d2.karyogram.strip import Strip


@dataclass(frozen=True)
class Pen:
    """Draws in page units on axes.

    Attributes:
        axes: with x from 0 to PAGE_WIDTH and y down.
        points: of text for one page unit.
        interpolation: of images: resampled for pixels, embedded as they are for vector formats.
    """

    axes: Axes
    points: float
    interpolation: str

    def text(
        self, x: float, y: float, text: str, size: float, color: str = palette.INK, **style: str
    ) -> None:
        """Writes a text of a height in page units; ``style`` as in matplotlib."""
        write(self.axes, (x, y), text, size * self.points, color, **style)

    def line(self, x0: float, x1: float, y: float, color: str, width: float) -> None:
        """Draws a level line."""
        self.axes.plot([x0, x1], [y, y], color=color, lw=width * self.points, solid_capstyle="butt")


def write(
    axes: Axes,
    at: tuple[float, float],
    text: str,
    size: float,
    color: str = palette.INK,
    **style: str,
) -> None:
    """Writes a text as it is: no mathematics, no font but the one shipped with matplotlib."""
    font = {"fontfamily": "DejaVu Sans", **style}
    axes.text(*at, text, fontsize=size, color=color, parse_math=False, **font)  # type: ignore[arg-type]


def draw_strip(pen: Pen, strip: Strip, place: Place) -> None:
    """Draws a strip at its place."""
    image = _Gray(pen.axes, cmap="gray", interpolation=pen.interpolation, zorder=2, resample=True)
    image.set_data(strip.pixels())
    image.set_clim(0, 255)
    image.set_extent((place.x0, place.x1, place.y1, place.y0))
    image.set_clip_path(pen.axes.patch)
    pen.axes.add_image(image)


class _Gray(AxesImage):
    """A gray image that is embedded in SVG as one, not in four channels."""

    def make_image(self, renderer: Any, magnification: float = 1.0, unsampled: bool = False) -> Any:
        image, x, y, transform = super().make_image(renderer, magnification, unsampled)
        # Of the vector formats SVG alone counts rows from the top.
        if unsampled and renderer.flipy() and image is not None:
            image = np.ascontiguousarray(image[..., 0])
        return image, x, y, transform
