"""The network that says of a strip how likely its p arm comes first, and where its centromere is.

By construction, a strip that is turned over gets the turned answer, and mirroring it left to right
changes nothing: ``score(strip) = f(strip) - f(turned strip)``, each f the mean over both mirror
images. B strips, L places along them, T = L / 2 places of the answer.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from deepacc_d2.chromosomes import NUM_CLASSES
from deepacc_d2.karyogram.orientation.strips import LENGTH

PLACES = LENGTH // 2
"""Places along a strip among which the centromere is sought."""

UNKNOWN = NUM_CLASSES
"""The class index of a chromosome of unknown class."""


class _Block(nn.Module):
    """A residual dilated convolution along the strip, scaled and shifted by the class."""

    def __init__(self, width: int, dilation: int, known: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(width, width, 5, padding=2 * dilation, dilation=dilation)
        self.norm = nn.GroupNorm(8, width)
        self.film = nn.Linear(known, 2 * width)
        nn.init.zeros_(self.film.weight)
        nn.init.zeros_(self.film.bias)

    def forward(self, x: Tensor, known: Tensor) -> Tensor:
        scale, shift = self.film(known)[..., None].chunk(2, dim=1)
        return x + functional.silu(self.norm(self.conv(x)) * (1 + scale) + shift)


class PolarityNet(nn.Module):
    """See the module.

    Args:
        width: channels along the strip, a multiple of 8.
        known: size of the embedding of class and slimness.
    """

    temperature: Tensor
    heat_temperature: Tensor
    extent: Tensor

    def __init__(self, width: int = 64, known: int = 32) -> None:
        super().__init__()
        self.classes = nn.Embedding(NUM_CLASSES + 1, known)
        self.slimness = nn.Linear(1, known)
        self.across = nn.Sequential(  # (B, 2, 24, L) to (B, width, 1, L / 2)
            nn.Conv2d(2, 16, 5, stride=2, padding=2),
            nn.GroupNorm(4, 16),
            nn.SiLU(),
            nn.Conv2d(16, 32, 3, stride=(2, 1), padding=1),
            nn.GroupNorm(4, 32),
            nn.SiLU(),
            nn.Conv2d(32, width, (6, 3), padding=(0, 1)),
        )
        self.profiles = nn.Conv1d(2, width, 9, stride=2, padding=4)
        # Distances from both tips: a convolution does not know where it is.
        self.place = nn.Parameter(torch.zeros(width, PLACES))
        self.blocks = nn.ModuleList(_Block(width, d, known) for d in (1, 2, 4, 8, 1, 4))
        self.heat = nn.Conv1d(width, 1, 5, padding=2)
        self.score = nn.Sequential(
            nn.Linear(3 * width, width), nn.SiLU(), nn.Dropout(0.1), nn.Linear(width, 1)
        )
        # Divide what the network says; fitted afterwards on chromosomes that it did not see.
        self.register_buffer("temperature", torch.ones(()))
        self.register_buffer("heat_temperature", torch.ones(()))
        # Share of a strip's length that it is shown in, see :func:`shown`.
        self.register_buffer("extent", torch.ones(()))

    def read(self, strip: Tensor, profiles: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
        """Returns how well each strip fits p arm first (B,), and its centromere's logits (B, T)."""
        x = self.across(strip).squeeze(2) + self.profiles(profiles) + self.place
        for block in self.blocks:
            x = block(x, known)
        heat = self.heat(x).squeeze(1)
        # The arms apart: what is before the centromere, at it, and after it.
        at = heat.softmax(1)
        after = at.cumsum(1) - 0.5 * at
        before = 1 - after
        total = x @ torch.stack([before, at, after], dim=2)
        total = total / torch.stack([before.sum(1), at.sum(1), after.sum(1)], 1)[:, None].clamp(1)
        return self.score(total.flatten(1)).squeeze(1), heat

    def forward(
        self, strip: Tensor, slimness: Tensor, classes: Tensor, *, mirror: bool = True
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Reads strips both ways up.

        Args:
            strip: (B, 2, WIDTH, L) darkness and body, see :func:`prepare`.
            slimness: (B,) length over width.
            classes: (B,) class indices, :data:`UNKNOWN` allowed.
            mirror: average over both mirror images; in training, one of them is enough.

        Returns:
            Log-odds (B,) that the p arm comes first; centromere logits (B, T), counted along the
            strip as it is, if it does and if it does not.
        """
        known = self.classes(classes) + self.slimness(torch.log(slimness.clamp(0.2, 30))[:, None])
        views = [strip, strip.flip(3)]
        if mirror:
            views += [strip.flip(2), strip.flip(2).flip(3)]
        # Row by row, so that the sum over a mirrored row is the same sum.
        straight, turned = profiles(strip), profiles(strip).flip(2)
        along = [straight, turned, straight, turned][: len(views)]
        fit, heat = self.read(torch.cat(views), torch.cat(along), known.repeat(len(views), 1))
        fits = fit.unflatten(0, (len(views), -1))
        heats = heat.unflatten(0, (len(views), -1))
        first, second = fits[0::2].mean(0), fits[1::2].mean(0)
        return first - second, heats[0::2].mean(0), heats[1::2].mean(0).flip(1)


def profiles(strip: Tensor) -> Tensor:
    """Returns mean darkness of the body and its width (B, 2, L) along prepared strips."""
    dark, body = strip[:, 0], strip[:, 1]
    width = body.mean(1)
    return torch.stack([(dark * body).mean(1) / width.clamp(min=0.05), 2 * width - 1], dim=1)


def prepare(dark: Tensor, body: Tensor) -> Tensor:
    """Scales darkness to the chromosome's own mean and spread, so that stain depth is no matter.

    Args:
        dark: (B, L, WIDTH), any scale, larger is darker.
        body: (B, L, WIDTH), 0 to 1.

    Returns:
        float32 (B, 2, WIDTH, L).
    """
    total = body.sum((1, 2)).clamp(min=1.0)[:, None, None]
    mean = (dark * body).sum((1, 2), keepdim=True) / total
    spread = (((dark - mean) ** 2 * body).sum((1, 2), keepdim=True) / total).sqrt()
    level = ((dark - mean) / spread.clamp(min=1e-3)).clamp(-3, 3) * body
    return torch.stack([level, body], dim=1).transpose(2, 3).contiguous()


def shown(strip: Tensor, extent: Tensor) -> Tensor:
    """Shrinks strips lengthwise about their middles, so that both tips have a margin.

    Args:
        strip: (B, 2, WIDTH, L), see :func:`prepare`.
        extent: the share of L that a strip takes then, up to 1.

    Returns:
        The same, zero in the margins.
    """
    if extent == 1:
        return strip
    at = (torch.arange(strip.shape[3]) + 0.5) * 2 / strip.shape[3] - 1
    across = (torch.arange(strip.shape[2]) + 0.5) * 2 / strip.shape[2] - 1
    grid = torch.stack(torch.meshgrid(at / extent, across, indexing="xy"), dim=2)
    grid = grid.expand(len(strip), -1, -1, -1)
    return functional.grid_sample(strip, grid, align_corners=False)


def shown_place(place: Tensor, extent: Tensor) -> Tensor:
    """Returns where places along strips (0 to 1) come to be when the strips are shown."""
    return 0.5 + (place - 0.5) * extent


def own_place(place: Tensor, extent: Tensor) -> Tensor:
    """Returns where shown places are along the strips themselves, 0 to 1."""
    return (0.5 + (place - 0.5) / extent).clamp(0, 1)
