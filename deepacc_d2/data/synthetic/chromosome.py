"""One synthetic chromosome: its bent axis, its outline and its optical density.

Coordinates are complex numbers x + iy in image pixels, y down; ``s`` runs along the axis in pixels
from the p telomere (0) to the q telomere (``length``), ``t`` across it. Optical density (OD) is
the natural logarithm of background over intensity.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from deepacc_d2.data.synthetic.config import Style
from deepacc_d2.ideogram import ACROCENTRIC, Ideogram

# How dark a stain is, from 0 (the light bands' OD) to 1 (the dark bands').
STAIN_LEVEL = {
    "gneg": 0.0,
    "gpos25": 0.32,
    "gpos50": 0.58,
    "gpos75": 0.82,
    "gpos100": 1.0,
    "acen": 0.55,
    "gvar": 0.75,
    "stalk": -0.35,
}
# Heterochromatin that G-banding leaves pale, and satellites.
PALE_GVAR = {"9": 0.15, "13": 0.3, "14": 0.3, "15": 0.3, "21": 0.3, "22": 0.3, "3": 0.5}
_STEP = 0.5  # px, sampling of the profiles along s
_MARGIN = 4.0  # px, profiles reach this far beyond the telomeres


@dataclass(frozen=True)
class Heteromorphism:
    """Inherited lengths of one homolog, the same in all cells of a case.

    Attributes:
        short_arm: factor on the short arm of an acrocentric chromosome.
        variable: factor on its variable heterochromatin (``gvar``).
    """

    short_arm: float
    variable: float


def draw_heteromorphism(rng: np.random.Generator) -> Heteromorphism:
    """Draws one homolog's polymorphic lengths."""
    return Heteromorphism(
        short_arm=float(rng.uniform(0.55, 1.0)), variable=float(rng.lognormal(-0.1, 0.22))
    )


@dataclass(frozen=True, eq=False)
class Chromosome:
    """Geometry and stain of one chromosome, before it is placed.

    Attributes:
        name: class name.
        axis: complex (K,), points at equal distances along the medial axis, centered at 0.
        length: of the axis.
        half_width: of a chromatid pair away from constrictions.
        reach: how far its pixels lie from the axis at most.
        centromere: its s.
        width_profile: float32 (S,), half width at s = -4, -3.5, ... length + 4.
        gap_profile: float32 (S,), half the gap between open chromatids, 0 where they touch; None if
            they are closed all along.
        shift_profile: float32 (S,), t of the body's middle, which makes its two rims uneven.
        density_profile: float32 (S, 2), OD at the same places of the two sister chromatids.
    """

    name: str
    axis: np.ndarray
    length: float
    half_width: float
    reach: float
    centromere: float
    width_profile: np.ndarray
    gap_profile: np.ndarray | None
    shift_profile: np.ndarray
    density_profile: np.ndarray


@dataclass(frozen=True, eq=False)
class Patch:
    """A rendered chromosome.

    Attributes:
        x, y: image position of the patch's first pixel.
        density: float32 (h, w), OD.
        mask: bool (h, w), the chromosome's pixels.
    """

    x: int
    y: int
    density: np.ndarray
    mask: np.ndarray


def _smooth(values: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian blur of a 1-D float32 signal; sigma in samples."""
    row = cv2.GaussianBlur(values[None].astype(np.float32), (0, 0), sigma)
    smoothed: np.ndarray = row[0]
    return smoothed


def _noise(rng: np.random.Generator, count: int, sigma: float) -> np.ndarray:
    """Smooth noise of unit standard deviation; sigma in samples."""
    coarse = rng.standard_normal(count, dtype=np.float32)
    # A Gaussian of width sigma leaves 1 / (2 sqrt(pi) sigma) of white noise's variance.
    return _smooth(coarse, sigma) * np.float32(np.sqrt(2 * np.sqrt(np.pi) * max(sigma, 0.3)))


def bent_axis(
    rng: np.random.Generator, length: float, half_width: float, curl: float
) -> np.ndarray:
    """Draws a smooth medial axis with bounded curvature.

    The curvature is a sum of a gentle arc, slow noise and, at times, one sharp bend or hook; its
    radius stays above 1.1 half widths, so that the body does not fold over itself.

    Returns:
        complex (K,), points about one pixel apart, centered at their mean.
    """
    count = max(round(length), 8)
    step = length / (count - 1)
    u = np.linspace(0, 1, count)
    slimness = length / (2 * half_width)
    limit = 1 / (1.1 * half_width)
    flexible = curl * np.clip((slimness - 1.6) / 5, 0, 1.4)
    curvature = rng.normal(0, 0.55) * flexible / length * np.ones(count)
    curvature += _noise(rng, count, count / 7) * 1.1 * flexible / length
    if rng.random() < 0.5 * flexible:  # a sharp bend, often as a hook at one end
        place = rng.beta(0.9, 0.9) * 0.76 + 0.12
        angle = rng.normal(0, 1.25) * min(flexible + 0.35, 1.2)
        sigma = max(abs(angle) / (2.2 * limit * length), rng.uniform(0.05, 0.13))
        curvature += angle / (sigma * length * 2.5066) * np.exp(-0.5 * ((u - place) / sigma) ** 2)
    curvature = limit * np.tanh(curvature / limit)
    turn = np.cumsum(curvature) * step
    turn *= min(1.0, 3.6 / max(float(np.ptp(turn)), 1e-6))
    points = np.concatenate([[0], np.cumsum(np.exp(1j * turn[1:]) * step)])
    points = points * np.exp(2j * np.pi * rng.random())
    centered: np.ndarray = points - points.mean()
    return centered


def draw_chromosome(
    rng: np.random.Generator,
    ideogram: Ideogram,
    style: Style,
    variant: Heteromorphism,
    scale: float = 1.0,
) -> Chromosome:
    """Draws the length, bands, outline and axis of one chromosome of one cell.

    Args:
        rng: of this chromosome.
        ideogram: its bands.
        style: the cell's look.
        variant: the homolog's inherited lengths.
        scale: image scale relative to 704x685.
    """
    name = ideogram.name
    stains = np.array([band.stain for band in ideogram.bands])
    in_p = np.array([band.arm == "p" for band in ideogram.bands])
    widths = np.diff(ideogram.edges)
    widths = widths * np.exp(rng.normal(0, 0.05, len(widths)))
    widths[stains == "gvar"] *= variant.variable
    acrocentric = name in ACROCENTRIC
    if acrocentric:
        widths[in_p & (stains != "acen")] *= variant.short_arm
    # Condensation is uneven within a cell, but most of all between its homologs.
    unit = style.length * scale * ideogram.length * float(np.exp(rng.normal(0, 0.045)))
    edges = np.concatenate([[0.0], np.cumsum(widths)]) * unit
    length = float(edges[-1])
    centromere = float(edges[int(in_p.sum())])
    half_width = 0.5 * style.width * scale * float(np.exp(rng.normal(0, 0.03)))

    s = np.arange(-_MARGIN, length + _MARGIN + _STEP, _STEP)
    band = np.clip(np.searchsorted(edges, s, side="right") - 1, 0, len(stains) - 1)
    levels = np.array([STAIN_LEVEL[stain] for stain in stains])
    levels[stains == "gvar"] = PALE_GVAR.get(name, STAIN_LEVEL["gvar"])
    levels = levels * np.exp(rng.normal(0, style.band_jitter, len(levels)))
    level = _smooth(levels[band], style.band_blur * scale / _STEP)
    # Blurring merges fine bands into grays; stain and film restore part of their contrast.
    level = level + 0.35 * (level - _smooth(level, 6 * scale / _STEP))
    density = style.light + (style.dark - style.light) * np.clip(level, -0.4, 1.25)
    density = density * (1 + 0.05 * _noise(rng, len(s), 9 * scale / _STEP))
    # The stain has lumps that differ between the sister chromatids.
    lumps = [_noise(rng, len(s), 1.7 * scale / _STEP) for _ in range(2)]
    density = density[:, None] * (1 + style.mottle * np.stack(lumps, -1))

    width = np.full(len(s), half_width)
    width *= 1 + 0.07 * (level - 0.45) + 0.03 * _noise(rng, len(s), 3 * scale / _STEP)
    pinch = np.exp(-0.5 * ((s - centromere) / (0.32 * half_width)) ** 2)
    width *= 1 - style.constriction * rng.uniform(0.75, 1.25) * pinch
    if acrocentric:
        width *= 1 - 0.13 * np.clip((centromere - s) / (0.2 * half_width), 0, 1)
        stalk = _smooth((stains[band] == "stalk").astype(np.float32), 1.2 * scale / _STEP)
        width *= 1 - rng.uniform(0.0, 0.3) * stalk
    shift = 0.045 * half_width * _noise(rng, len(s), 2.5 * scale / _STEP)
    gap, reach = None, half_width
    if style.spread > 0:
        gap = _gap(rng, style, (s - centromere) / length, half_width)
        reach += float(gap.max())
    return Chromosome(
        name=name,
        axis=bent_axis(rng, length, reach, style.curl),
        length=length,
        half_width=half_width,
        reach=reach,
        centromere=centromere,
        width_profile=width.astype(np.float32),
        gap_profile=None if gap is None else gap.astype(np.float32),
        shift_profile=shift.astype(np.float32),
        density_profile=density.astype(np.float32),
    )


def _gap(
    rng: np.random.Generator, style: Style, from_centromere: np.ndarray, half_width: float
) -> np.ndarray:
    """Draws half the gap (S,) between the chromatids of an open chromosome.

    Args:
        rng: of this chromosome.
        style: the cell's look.
        from_centromere: (S,), along the axis, in lengths; negative on the p arm.
        half_width: of the chromatid pair.
    """
    # Either arm opens by itself, and more or less steeply away from the centromere.
    arms = style.spread * rng.uniform(0.1, 1.0, 2)
    power = rng.uniform(0.6, 1.4)
    spread = np.where(from_centromere < 0, *arms)
    apart = style.apart * rng.uniform(0.0, 1.0)
    gap: np.ndarray = half_width * (apart + spread * np.abs(2 * from_centromere) ** power)
    return gap


def _sample(profile: np.ndarray, s: np.ndarray) -> np.ndarray:
    """Values (N, ...) of a profile (S, ...) at s (N,), linearly interpolated; float32."""
    place = np.clip((s + _MARGIN) * (1 / _STEP), 0, len(profile) - 1.001)
    index = place.astype(np.intp)
    fraction = (place - index).astype(np.float32).reshape(-1, *[1] * (profile.ndim - 1))
    low = profile[index]
    value: np.ndarray = low + fraction * (profile[index + 1] - low)
    return value


def _soft_step(distance: np.ndarray) -> np.ndarray:
    """Coverage of a pixel whose center is ``distance`` px inside an edge."""
    coverage: np.ndarray = np.clip(distance + 0.5, 0, 1)
    return coverage


def _closed(
    rng: np.random.Generator, chromosome: Chromosome, style: Style, s: np.ndarray, t: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Density and coverage (N,) of pixels at (s, t) where the chromatids touch all along."""
    half = _sample(chromosome.width_profile, s)
    v = t / half
    inside = np.minimum(np.abs(v), 1)
    round_tip = 1 - np.sqrt(1 - inside**2)
    lobe_tip = 1 - np.sqrt(np.maximum(1 - (2 * inside - 1) ** 2, 0))
    radius = min(0.62 * chromosome.half_width, 0.4 * chromosome.length)
    depth = radius * ((1 - style.lobes) * round_tip + 0.55 * style.lobes * lobe_tip)
    tip = np.minimum(s - depth, chromosome.length - s - depth)
    coverage = _soft_step(half - np.abs(t)) * _soft_step(tip)

    # Bands bow a little and the sister chromatids' bands are not quite level.
    bow, slip = rng.normal(0, [0.08, 0.045]) * chromosome.half_width
    along = s + bow * (v * v) + slip * np.clip(3 * v, -1, 1)
    upper, lower = _sample(chromosome.density_profile, along).T
    density = upper + (lower - upper) * np.clip(0.5 + 1.2 * v, 0, 1)
    groove = style.gap * rng.uniform(0.5, 1.5)
    density *= 1 - groove * np.exp(-((v / 0.3) ** 2))
    density *= 1 - 0.22 * np.minimum(v * v, 1) ** 3  # the body is thinner towards its sides
    outline = np.minimum(half - np.abs(t), tip) - np.float32(1.2)
    density += style.rim * np.exp(-(outline * outline))
    return density, coverage


def _open(
    rng: np.random.Generator, chromosome: Chromosome, style: Style, s: np.ndarray, t: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Density and coverage (N,) of pixels at (s, t) where the chromatids lie apart."""
    assert chromosome.gap_profile is not None
    half = _sample(chromosome.width_profile, s)
    gap = _sample(chromosome.gap_profile, s)
    # Of one chromatid, from its own axis; closed, the two fill the pair's width.
    own = 0.5 * half + 0.1 * np.minimum(gap, half)
    v = (np.abs(t) - gap - 0.5 * half) / own
    inside = np.minimum(np.abs(v), 1)
    depth = np.minimum(own, 0.4 * chromosome.length) * (1 - np.sqrt(1 - inside**2))
    tip = np.minimum(s - depth, chromosome.length - s - depth)
    edge = own * (1 - np.abs(v))
    # Where they touch there is no edge between them.
    edge = np.where((v < 0) & (gap < 0.5), np.maximum(edge, 1), edge)
    coverage = _soft_step(edge) * _soft_step(tip)
    slip = rng.normal(0, 0.08) * chromosome.half_width
    upper, lower = _sample(chromosome.density_profile, s + slip * np.sign(t)).T
    density = np.where(t < 0, upper, lower)
    groove = style.gap * rng.uniform(0.5, 1.5)
    density *= 1 - groove * np.exp(-((t / (0.3 * half)) ** 2))
    density *= 1 - 0.22 * inside**6
    outline = np.minimum(edge, tip) - np.float32(1.2)
    density += style.rim * np.exp(-(outline * outline))
    return density, coverage


def point_at(axis: np.ndarray, fraction: float) -> complex:
    """Returns the point at a fraction of the axis' length."""
    place = fraction * (len(axis) - 1)
    index = min(int(place), len(axis) - 2)
    return complex(axis[index] + (place - index) * (axis[index + 1] - axis[index]))


def render(
    rng: np.random.Generator, chromosome: Chromosome, style: Style, center: complex
) -> Patch:
    """Renders a chromosome at a place.

    Every pixel near the axis is given the coordinates (s, t) of its nearest axis point, where the
    profiles along the axis and the cross-section are evaluated; edges are anti-aliased.

    Args:
        rng: of this chromosome.
        chromosome: geometry and stain.
        style: the cell's look.
        center: image position of the axis' mean.
    """
    axis = chromosome.axis + center
    reach = chromosome.reach + chromosome.half_width * 0.3 + 2
    x0, y0 = int(axis.real.min() - reach), int(axis.imag.min() - reach)
    w = int(axis.real.max() + reach) + 2 - x0
    h = int(axis.imag.max() + reach) + 2 - y0
    local = axis - complex(x0, y0)
    near = np.zeros((h, w), np.uint8)
    polyline = np.round(np.stack([local.real, local.imag], -1) * 16).astype(np.int32)
    cv2.polylines(near, [polyline], False, 1, int(2 * reach), cv2.LINE_8, 4)
    rows, columns = np.nonzero(near)

    coarse = local[::2] if len(local) > 24 else local
    tangent = np.gradient(coarse)
    tangent = tangent / np.abs(tangent)
    node_x, node_y = coarse.real.astype(np.float32), coarse.imag.astype(np.float32)
    x, y = columns.astype(np.float32), rows.astype(np.float32)
    # Half the squared distance less the pixel's own part. No matrix product: a BLAS may sum in
    # another order on another machine or thread count, and pixels must not depend on that.
    distance = (node_x**2 + node_y**2) * np.float32(0.5) - np.multiply.outer(x, node_x)
    distance -= np.multiply.outer(y, node_y)
    nearest = distance.argmin(1)
    offset_x = x - node_x[nearest]
    offset_y = y - node_y[nearest]
    tx = tangent.real.astype(np.float32)[nearest]
    ty = tangent.imag.astype(np.float32)[nearest]
    spacing = np.float32(chromosome.length / (len(local) - 1) * (2 if len(local) > 24 else 1))
    s = nearest.astype(np.float32) * spacing + offset_x * tx + offset_y * ty
    t = offset_y * tx - offset_x * ty - _sample(chromosome.shift_profile, s)

    shape = _closed if chromosome.gap_profile is None else _open
    density, coverage = shape(rng, chromosome, style, s, t)
    density *= coverage

    patch = np.zeros((h, w), np.float32)
    patch[rows, columns] = density
    mask = np.zeros((h, w), bool)
    mask[rows, columns] = coverage > 0.5
    return Patch(x=x0, y=y0, density=patch, mask=mask)
