"""What differs between laboratories, done to strips: condensation, stain, blur, cut, bend.

All is done to a batch at a time: B strips of (L, W) pixels, darkness and body, 0 to 1.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional


def augment(
    dark: Tensor, body: Tensor, centromere: Tensor, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Changes strips at random.

    Args:
        dark, body: float32 (B, L, W), 0 to 1.
        centromere: (B,) places from the first tip, 0 to 1, NaN where not known.
        generator: of the random numbers.

    Returns:
        The same, changed.
    """
    dark, body, centromere = _bend(dark, body, centromere, generator)
    dark, body = _blur(dark, body, generator)
    dark = _sharpen(dark, body, generator)
    body = _recut(body, generator)
    dark, body = _cross(dark, body, generator)
    dark = _stain(dark, body, generator)
    return dark, body, centromere


def _uniform(low: float, high: float, *shape: int, generator: torch.Generator) -> Tensor:
    return low + (high - low) * torch.rand(*shape, generator=generator)


def _maybe(share: float, count: int, generator: torch.Generator) -> Tensor:
    return (torch.rand(count, generator=generator) < share).float()


def _wave(count: int, length: int, generator: torch.Generator) -> Tensor:
    """Returns slow random curves (count, length), about -1 to 1, zero at both ends."""
    at = torch.linspace(0, math.pi, length)
    weight = torch.randn(count, 3, generator=generator) / torch.tensor([1.0, 2.0, 3.0])
    return weight @ torch.stack([torch.sin(k * at) for k in (1, 2, 3)])


def _bend(
    dark: Tensor, body: Tensor, centromere: Tensor, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Stretches along and across, cuts ends off or adds to them, bends the axis, mirrors."""
    count, length, width = dark.shape
    ends = 0.03 * torch.randn(count, 2, generator=generator)
    # Now and then a tip is lost to a crossing.
    lost = _uniform(0, 0.22, count, 2, generator=generator)
    ends[:, 0] += lost[:, 0] * _maybe(0.07, count, generator)
    ends[:, 1] -= lost[:, 1] * _maybe(0.07, count, generator)
    at = torch.linspace(0.5 / length, 1 - 0.5 / length, length)
    along = ends[:, :1] + (1 + ends[:, 1:] - ends[:, :1]) * at
    along = along + 0.035 * _wave(count, length, generator)
    scale = torch.exp(0.14 * torch.randn(count, generator=generator))
    sign = 1 - 2 * _maybe(0.5, count, generator)
    shift = 0.16 * _wave(count, length, generator) * _maybe(0.6, count, generator)[:, None]
    tilt = 0.05 * torch.randn(count, 1, generator=generator)
    across = torch.linspace(-1 + 1 / width, 1 - 1 / width, width)
    grid_x = (sign * scale)[:, None, None] * across + shift[:, :, None]
    grid_y = (2 * along - 1)[:, :, None] + tilt[:, :, None] * across
    grid = torch.stack([grid_x, grid_y], dim=3)
    moved = functional.grid_sample(torch.stack([dark, body], 1), grid, align_corners=False)
    # Where along the new strip the old centromere has come to be.
    place = (along < centromere.nan_to_num(0.0)[:, None]).float().mean(1)
    outside = (centromere < along[:, 0]) & (centromere > 0.02) | (centromere > along[:, -1])
    place = torch.where(outside | centromere.isnan(), torch.nan, place)
    return moved[:, 0], moved[:, 1], place


def _kernel(sigma: Tensor, reach: int) -> Tensor:
    """Returns Gaussian kernels (B, 2 reach + 1) of the standard deviations (B,)."""
    at = torch.arange(-reach, reach + 1).float()
    kernel = torch.exp(-0.5 * (at / sigma[:, None].clamp(min=0.05)) ** 2)
    return kernel / kernel.sum(1, keepdim=True)


def _convolve(image: Tensor, kernel: Tensor, dim: int) -> Tensor:
    """Convolves each (L, W) of (B, C, L, W) with its own kernel (B, K) along L (2) or W (3)."""
    count, channels, length, width = image.shape
    reach = kernel.shape[1] // 2
    shaped = kernel.repeat_interleave(channels, 0)[:, None]
    shaped = shaped[..., None] if dim == 2 else shaped[:, :, None]
    pad = (0, 0, reach, reach) if dim == 2 else (reach, reach, 0, 0)
    padded = functional.pad(image.reshape(1, count * channels, length, width), pad)
    return functional.conv2d(padded, shaped, groups=count * channels).view_as(image)


def _blur(dark: Tensor, body: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Merges bands as condensation and an unsharp image do.

    The smallest chromosomes of a small image have a pixel for seven rows of a strip.
    """
    count = len(dark)
    both = torch.stack([dark, body], 1)
    along = 9.0 * torch.rand(count, generator=generator) ** 2
    across = 2.2 * torch.rand(count, generator=generator) ** 2
    both = _convolve(both, _kernel(along, 16), 2)
    both = _convolve(both, _kernel(across, 5), 3)
    return both[:, 0], both[:, 1]


def _sharpen(dark: Tensor, body: Tensor, generator: torch.Generator) -> Tensor:
    """Sharpens some, as laboratories' programs do, rims of rings included."""
    count = len(dark)
    amount = _uniform(0, 2.0, count, 1, 1, generator=generator)
    amount = amount * _maybe(0.4, count, generator)[:, None, None]
    reach = _uniform(1.0, 5.0, count, generator=generator)
    soft = _convolve(dark[:, None], _kernel(reach, 12), 2)
    soft = _convolve(soft, _kernel(0.4 * reach, 5), 3)[:, 0]
    return (dark + amount * (dark - soft) * body).clamp(0, 1)


def _recut(body: Tensor, generator: torch.Generator) -> Tensor:
    """Puts the outline further in or out, and at times fills the waist."""
    count, _, width = body.shape
    threshold = _uniform(0.2, 0.75, count, 1, 1, generator=generator)
    cut = torch.sigmoid((body - threshold) * 8)
    across = torch.linspace(-1 + 1 / width, 1 - 1 / width, width).abs()
    inside = (across < 0.5).float() * (cut.amax(2, keepdim=True) > 0.5)
    filled = _maybe(0.1, count, generator)[:, None, None]
    return torch.maximum(cut, inside * filled)


def _cross(dark: Tensor, body: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Lays another chromosome across some."""
    count, length, width = dark.shape
    share = _maybe(0.15, count, generator)[:, None, None]
    place = torch.rand(count, 1, 1, generator=generator)
    half = _uniform(0.03, 0.12, count, 1, 1, generator=generator)
    slope = 0.15 * torch.randn(count, 1, 1, generator=generator)
    at = torch.linspace(0, 1, length)[None, :, None]
    across = torch.linspace(-1, 1, width)[None, None]
    stump = torch.sigmoid((half - (at - place - slope * across).abs()) * 120) * share
    level = _uniform(0.3, 0.8, count, 1, 1, generator=generator)
    return (dark + level * stump).clamp(max=1.0), torch.maximum(body, stump)


def _stain(dark: Tensor, body: Tensor, generator: torch.Generator) -> Tensor:
    """Changes depth and evenness of the stain, opens chromatids, adds grain."""
    count, length, width = dark.shape
    gamma = torch.exp(0.35 * torch.randn(count, 1, 1, generator=generator))
    dark = dark.clamp(0, 1) ** gamma
    across = torch.linspace(-1 + 1 / width, 1 - 1 / width, width)
    gap = _uniform(0, 0.8, count, 1, 1, generator=generator)
    gap = gap * _maybe(0.3, count, generator)[:, None, None]
    breadth = _uniform(0.1, 0.3, count, 1, 1, generator=generator)
    middle = 0.15 * _wave(count, length, generator)[:, :, None]
    dark = dark * (1 - gap * torch.exp(-(((across - middle) / breadth) ** 2)))
    # A rounder body is paler at its sides.
    dark = dark * (1 - _uniform(-0.2, 0.4, count, 1, 1, generator=generator) * across**2)
    slope = 0.12 * torch.randn(count, 1, 1, generator=generator)
    dark = dark * (1 + slope * torch.linspace(-1, 1, length)[:, None])
    dark = dark * (1 + 0.08 * _wave(count, length, generator)[:, :, None])
    # Bands of a class are not of one depth in all cells, nor are they as an ideogram draws them.
    lumps = torch.randn(count, 1, length // 5, generator=generator)
    lumps = functional.interpolate(lumps, length, mode="linear")[:, 0, :, None]
    dark = dark + _uniform(0, 0.13, count, 1, 1, generator=generator) * lumps * body
    amount = 0.06 * torch.rand(count, 1, 1, generator=generator)
    grain = amount * torch.randn(count, length, width, generator=generator)
    coarse = torch.randn(count, 1, length // 4, width // 4, generator=generator)
    coarse = functional.interpolate(coarse, (length, width), mode="bilinear")[:, 0]
    return dark + (grain + 1.2 * amount * coarse) * body
