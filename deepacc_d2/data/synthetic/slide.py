"""Everything on a synthetic slide but the chromosomes: nuclei, debris, light, noise."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np

from deepacc_d2.data.synthetic.config import Style


def draw_nuclei(
    rng: np.random.Generator, size: tuple[int, int], scale: float, rate: float
) -> list[tuple[complex, float]]:
    """Draws (center, radius) of interphase nuclei, in pixels, mostly near the image's rim."""
    w, h = size
    nuclei = []
    for _ in range(rng.poisson(rate)):
        radius = scale * float(np.clip(rng.lognormal(4.25, 0.33), 38, 170))
        angle = rng.uniform(0, 2 * np.pi)
        distance = rng.uniform(0.75, 1.1)
        # Large nuclei are farther out, so that the crop cuts them and not the spread.
        push = 0.6 * (radius - 60 * scale)
        x = w / 2 + (w / 2 * distance + push) * np.cos(angle)
        y = h / 2 + (h / 2 * distance + push) * np.sin(angle)
        nuclei.append((complex(x, y), radius))
    return nuclei


def _texture(rng: np.random.Generator, side: int, grain: float) -> np.ndarray:
    """Smooth noise (side, side) of unit standard deviation with details of ``grain`` pixels."""
    coarse = max(int(side / grain), 4)
    noise = rng.standard_normal((coarse, coarse), dtype=np.float32)
    enlarged: np.ndarray = cv2.resize(noise, (side, side), interpolation=cv2.INTER_CUBIC)
    return enlarged


def add_patch(canvas: np.ndarray, patch: np.ndarray, x: int, y: int) -> None:
    """Adds a patch to the canvas, cropped to it."""
    h, w = canvas.shape
    x0, y0 = max(x, 0), max(y, 0)
    x1, y1 = min(x + patch.shape[1], w), min(y + patch.shape[0], h)
    if x0 < x1 and y0 < y1:
        canvas[y0:y1, x0:x1] += patch[y0 - y : y1 - y, x0 - x : x1 - x]


def add_nucleus(
    rng: np.random.Generator,
    canvas: np.ndarray,
    center: complex,
    radius: float,
    *,
    dark: float,
    scale: float,
) -> None:
    """Adds an interphase nucleus: a smooth disc with grainy chromatin, or a decaying cell.

    Args:
        rng: of the nucleus.
        canvas: float32 (H, W), optical density; added to in place.
        center: in pixels.
        radius: in pixels.
        dark: optical density of the darkest bands, which the nucleus stays under.
        scale: image scale relative to 704x685.
    """
    reach = int(1.3 * radius) + 3
    side = 2 * reach + 1
    grid = np.arange(-reach, reach + 1, dtype=np.float32)
    r = np.hypot(grid[None, :], grid[:, None])
    angle = cv2.phase(
        np.broadcast_to(grid[None, :], (side, side)).copy(),
        np.broadcast_to(grid[:, None], (side, side)).copy(),
    )
    decaying = rng.random() < 0.22 and radius < 80 * scale
    border = np.full((side, side), radius, np.float32)
    for order in (2, 3, 4):
        amplitude = radius * rng.normal(0, 0.04 if not decaying else 0.06)
        border += np.float32(amplitude) * np.cos(order * angle + np.float32(rng.uniform(0, 6.3)))
    if decaying:
        border += 0.06 * radius * _texture(rng, side, 5)
    edge = np.clip((border - r) / 2.5 + 0.5, 0, 1)
    level = dark * rng.uniform(0.5, 1.0)
    chromatin = 1 + 0.16 * _texture(rng, side, 1.8) + 0.10 * _texture(rng, side, 8)
    chromatin -= 0.16 * np.minimum(r / radius, 1) ** 4
    if decaying:
        chromatin += 0.35 * _texture(rng, side, 14)
        chromatin -= 0.4 * np.clip((r - 0.7 * border) / (0.3 * radius), 0, 1)
    for _ in range(rng.integers(0, 4)):  # nucleoli or chromocenters
        spot = rng.uniform(-0.5, 0.5, 2) * radius
        extent = radius * rng.uniform(0.07, 0.16)
        distance = (grid[None, :] - spot[0]) ** 2 + (grid[:, None] - spot[1]) ** 2
        chromatin += 0.3 * np.exp(-distance / (2 * extent**2))
    patch = (level * edge * np.maximum(chromatin, 0.15)).astype(np.float32)
    add_patch(canvas, patch, round(center.real) - reach, round(center.imag) - reach)


def add_debris(rng: np.random.Generator, canvas: np.ndarray, amount: float, scale: float) -> None:
    """Adds specks of dust, stain crystals, and faint blobs that are out of focus."""
    h, w = canvas.shape
    for _ in range(rng.poisson(7 * amount)):  # specks, some in groups
        x, y = rng.uniform(0, w), rng.uniform(0, h)
        group = 1 if rng.random() < 0.75 else int(rng.integers(3, 12))
        darkness = rng.uniform(0.25, 1.5)
        for _ in range(group):
            radius = scale * float(np.clip(rng.lognormal(0.25, 0.45), 0.6, 4.5))
            reach = int(2.5 * radius) + 2
            grid = np.arange(-reach, reach + 1, dtype=np.float32)
            turn = np.exp(1j * rng.uniform(0, np.pi))
            along = grid[None, :] * turn.real + grid[:, None] * turn.imag
            across = grid[:, None] * turn.real - grid[None, :] * turn.imag
            shape = np.hypot(along / rng.uniform(1.0, 2.2), across)
            speck = darkness * rng.uniform(0.6, 1.2) * np.clip(radius - shape + 0.5, 0, 1)
            dx, dy = rng.normal(0, 5.5 * scale, 2) if group > 1 else (0.0, 0.0)
            add_patch(canvas, speck.astype(np.float32), int(x + dx) - reach, int(y + dy) - reach)
    for _ in range(rng.poisson(1.5 * amount)):  # out of focus
        radius = scale * rng.uniform(5, 22)
        reach = int(2.6 * radius)
        grid = np.arange(-reach, reach + 1, dtype=np.float32)
        bump = np.exp(-(grid[None, :] ** 2 + grid[:, None] ** 2) / np.float32(2 * radius**2))
        patch = bump * np.maximum(1 + 0.5 * _texture(rng, 2 * reach + 1, radius), 0)
        patch *= rng.uniform(0.015, 0.07)
        add_patch(canvas, patch, int(rng.uniform(0, w)) - reach, int(rng.uniform(0, h)) - reach)


def add_grain(rng: np.random.Generator, density: np.ndarray, style: Style, scale: float) -> None:
    """Multiplies the OD by the chromatin's texture, in place."""
    h, w = density.shape
    cell = 1.8 * scale
    coarse = rng.standard_normal((int(h / cell) + 1, int(w / cell) + 1), dtype=np.float32)
    noise: np.ndarray = cv2.resize(coarse, (w, h), interpolation=cv2.INTER_LINEAR)
    noise *= np.float32(1.5 * style.grain)
    noise += 1
    density *= noise


def expose(rng: np.random.Generator, density: np.ndarray, style: Style, scale: float) -> np.ndarray:
    """Turns optical density into the image of a scanner.

    Transmission is the exponential of minus the density, with a knee where chromosomes overlap and
    some stray light; then come uneven light, optical blur, sharpening, noise and clipping.

    Args:
        rng: of the exposure.
        density: float32 (H, W).
        style: the cell's look.
        scale: image scale relative to 704x685.

    Returns:
        uint8 (H, W).
    """
    h, w = density.shape
    knee = np.float32(2.1)
    stray = np.float32(0.06)
    image: Any = cv2.exp(-knee * np.tanh(density / knee)) * (1 - stray) + stray
    coarse = rng.standard_normal((int(h / 3 / scale) + 1, int(w / 3 / scale) + 1), dtype=np.float32)
    haze = cv2.resize(coarse, (w, h), interpolation=cv2.INTER_LINEAR)
    image *= 1 + np.float32(1.5 * style.haze) * haze
    image = cv2.GaussianBlur(image, (0, 0), max(style.blur * scale, 0.3))
    if style.halo > 0:
        wide = cv2.GaussianBlur(image, (0, 0), 2.4 * max(style.blur * scale, 0.5))
        image = cv2.addWeighted(image, 1 + style.halo, wide, -style.halo, 0)
    light = rng.standard_normal((3, 3), dtype=np.float32) * np.float32(style.tilt)
    image *= style.background * (1 + cv2.resize(light, (w, h), interpolation=cv2.INTER_CUBIC))
    noise = rng.standard_normal((h, w), dtype=np.float32)
    image += cv2.GaussianBlur(noise, (0, 0), 0.6) * np.float32(style.noise * 1.9)
    exposed: np.ndarray = np.clip(np.rint(image), 0, 255).astype(np.uint8)
    return exposed
