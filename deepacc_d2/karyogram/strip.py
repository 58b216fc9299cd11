"""A chromosome as a karyogram shows it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deepacc_d2.cell import Pose


@dataclass(frozen=True, eq=False)
class Strip:
    """One chromosome, upright.

    Attributes:
        name: class name that it is shown under.
        placed: whether it has a class; else it is unidentified or left out.
        dark: float32 (L, W), 0 white to 1 black, p arm up.
        zoom: strip pixels for one image pixel.
        centromere: its place along the strip, 0 (top) to 1 (bottom).
        polarity_confidence: probability, 0.5 to 1, that the p arm is up.
        cut: False if no background was found and the plain crop is shown.
        doubts: why it may be wrong, of :data:`deepacc_d2.karyogram.doubt.REASONS`.
        pose: how the chromosome lies in the image.
        unidentified: it is a chromosome without a class; False for one that is left out.
        derivative: a person called it a derivative of its class.
        outline: image points (x, y) around its pixels; empty where nothing was cut.
    """

    name: str
    placed: bool
    dark: NDArray[np.float32]
    zoom: float
    centromere: float
    polarity_confidence: float
    cut: bool
    pose: Pose | None = None
    unidentified: bool = False
    doubts: tuple[str, ...] = ()
    derivative: bool = False
    outline: tuple[tuple[float, float], ...] = ()

    @property
    def length(self) -> float:
        """Length in image pixels."""
        return self.dark.shape[0] / self.zoom

    @property
    def width(self) -> float:
        """Width in image pixels."""
        return self.dark.shape[1] / self.zoom

    def pixels(self) -> NDArray[np.uint8]:
        """Returns the strip as a picture, uint8 (L, W), dark on white."""
        return np.rint(255 * (1 - np.clip(self.dark, 0, 1))).astype(np.uint8)
