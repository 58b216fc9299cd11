"""Instance masks: which pixels in and around a box are its chromosome, also under crossings.

Unlike Detectron2's mask head this one looks at the pixels themselves, at the scale of the
detector's input, and not only at pooled features: a chromosome is a dozen pixels wide, so that half
a pixel along its edge is a tenth of it. The box says which of two crossing chromosomes is meant.

Shapes: N boxes of an image (H, W), S x S pixels of a window, C channels of a feature map.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import roi_align

from deepacc_d2.errors import ConfigError

WHITE, RANGE = 240.0, 200.0
"""Gray level of the background, and from it to the darkest chromosomes."""
SIDES = (64, 96, 128, 160, 192)
"""Sides of windows; a larger box is shown shrunk."""
CONTEXT = 12.0
"""Pixels around a box that a window shows at least."""
_REACH = 8.0  # pixels over which the distance to the box's sides is given


class Windows(NamedTuple):
    """Square parts of an image, all of one size.

    Attributes:
        rows: (n,) int64, the boxes that they are around.
        areas: (n, 4) XYXY in pixels of the image, what each shows.
        side: S.
    """

    rows: Tensor
    areas: Tensor
    side: int


def windows(boxes: Tensor) -> list[Windows]:
    """Returns a window around each box, grouped by size.

    Args:
        boxes: (N, 4) XYXY in pixels of the detector's input.
    """
    extent = (boxes[:, 2:] - boxes[:, :2]).amax(dim=1).clamp(min=1) + 2 * CONTEXT
    center = (boxes[:, :2] + boxes[:, 2:]) / 2
    sides = torch.as_tensor(SIDES, dtype=boxes.dtype, device=boxes.device)
    places = torch.bucketize(extent, sides).clamp(max=len(SIDES) - 1)
    found = []
    for place, side in enumerate(SIDES):
        rows = (places == place).nonzero()[:, 0]
        if not len(rows):
            continue
        # One pixel of a window is one of the image, unless the box is too large for that.
        shown = extent[rows].clamp(min=side)[:, None]
        corner = center[rows] - shown / 2
        corner = torch.where(shown > side, corner, corner.round())
        found.append(Windows(rows, torch.cat([corner, corner + shown], dim=1), side))
    return found


def cut_windows(image: Tensor, areas: Tensor, side: int) -> Tensor:
    """Returns what windows show of an image (1, 1, H, W), (n, 1, S, S), zero outside of it.

    Args:
        image: float32.
        areas: (n, 4) XYXY in its pixels.
        side: S.
    """
    rois = torch.cat([areas.new_zeros(len(areas), 1), areas], dim=1)
    return roi_align(image, rois, side, spatial_scale=1.0, sampling_ratio=1, aligned=True)


def show(images: Tensor, areas: Tensor, side: int) -> Tensor:
    """Returns the darkness (n, 1, S, S) in windows, 0 for background and 1 for the darkest.

    Args:
        images: (1, 1, H, W) gray levels; outside of it is background.
        areas: (n, 4), see :class:`Windows`.
        side: S.
    """
    return cut_windows((WHITE - images.float()) / RANGE, areas, side)


def _block(inputs: int, outputs: int, stride: int = 1, dilation: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(
            inputs, outputs, 3, stride=stride, padding=dilation, dilation=dilation, bias=False
        ),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


class InstanceMasks(nn.Module):
    """A small U-Net over a window around each box.

    It sees the detector's input and its boxes, and none of its features: so the masks of one
    detector are as good for another one that is shown images in the same way.

    Args:
        width: channels at the window's own resolution, twice as many at half of it, four times as
            many below.

    Raises:
        ConfigError: a width below 1.
    """

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        if width < 1:
            raise ConfigError(f"instance masks need width >= 1, not {width}")
        a, b, c = width, 2 * width, 4 * width
        self.fine = nn.Sequential(_block(3, a), _block(a, a))
        self.middle = nn.Sequential(_block(a, b, stride=2), _block(b, b))
        self.coarse = nn.Sequential(_block(b, c, stride=2), _block(c, c))
        self.deep = nn.Sequential(
            _block(c, c, stride=2), _block(c, c, dilation=2), _block(c, c, dilation=4), _block(c, c)
        )
        self.up_coarse, self.up_middle = _block(c, c), _block(b, b)
        self.up_fine = _block(a, a)
        self.to_middle, self.to_fine = nn.Conv2d(c, b, 1), nn.Conv2d(b, a, 1)
        self.out = nn.Conv2d(a, 1, 1)

    def forward(self, images: Tensor, boxes: Tensor, areas: Tensor, side: int) -> Tensor:
        """Returns logits (n, S, S) that a window's pixel is its chromosome's.

        Args:
            images: (1, 1, H, W) float gray levels of the detector's input.
            boxes: (n, 4) XYXY in its pixels.
            areas: (n, 4), see :class:`Windows`.
            side: S.
        """
        return self.of_pixels(show(images, areas, side), boxes, areas)

    def of_pixels(self, pixels: Tensor, boxes: Tensor, areas: Tensor) -> Tensor:
        """Returns logits (n, S, S) for windows that are cut out already.

        Args:
            pixels: (n, 1, S, S) of :func:`show`.
            boxes: see :meth:`forward`.
            areas: see there.
        """
        inside = place_of(boxes, areas, pixels.shape[-1])
        # Stains differ in depth: darkness is also given relative to that of the chromosome itself.
        own = pixels.clamp(min=0) * (inside > 0)
        depth = own.square().sum((1, 2, 3)) / own.sum((1, 2, 3)).clamp(min=1e-3)
        relative = pixels / depth.clamp(min=0.05)[:, None, None, None]
        seen = torch.cat([pixels, relative.clamp(-1, 4), inside], dim=1)
        fine = self.fine(seen.contiguous(memory_format=torch.channels_last))
        middle = self.middle(fine)
        coarse = self.coarse(middle)
        coarse = self.up_coarse(coarse + _double(self.deep(coarse)))
        middle = self.up_middle(middle + _double(self.to_middle(coarse)))
        fine = self.up_fine(fine + _double(self.to_fine(middle)))
        logits: Tensor = self.out(fine)[:, 0].float()
        return logits


def _double(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)


def place_of(boxes: Tensor, areas: Tensor, side: int) -> Tensor:
    """Returns how far inside its box each pixel is, (n, 1, S, S), from -1 to 1."""
    scale = side / (areas[:, 2] - areas[:, 0])
    at = torch.arange(side, device=boxes.device, dtype=boxes.dtype) + 0.5
    local = (boxes - areas[:, [0, 1, 0, 1]]) * scale[:, None]
    x = torch.minimum(at - local[:, :1], local[:, 2:3] - at)
    y = torch.minimum(at - local[:, 1:2], local[:, 3:] - at)
    near = torch.minimum(x[:, None, :], y[:, :, None]) / scale[:, None, None]
    return (near / _REACH).clamp(-1, 1)[:, None]
