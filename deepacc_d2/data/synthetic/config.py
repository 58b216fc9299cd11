"""What a synthetic data set is made of: options, and the look that a batch of slides shares."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass

import numpy as np

from deepacc_d2.errors import ConfigError

GENERATOR_VERSION = 2
"""Raised whenever the same options draw other pixels, so that old data sets are made anew."""

# Independent random streams: a stream's number is the first key of its SeedSequence, so that no
# image depends on how many others are drawn, in which order, or by how many processes.
STREAM_BATCH, STREAM_CASE, STREAM_CELL = 1, 2, 3

MOST = {
    **dict.fromkeys(("size_variation", "abnormality_rate", "loss_rate", "overlap_rate"), 1),
    **dict.fromkeys(("open_rate", "faded_rate"), 1),
    "condensation": 4,
    **dict.fromkeys(("nucleus_rate", "debris_rate", "box_margin"), 20),
}
"""The largest value of options that may be from 0 to it."""


@dataclass(frozen=True)
class SyntheticConfig:
    """Options of the generator; two equal configs draw identical pixels.

    >>> SyntheticConfig(seed=1).digest() == SyntheticConfig(seed=1).digest()
    True
    >>> SyntheticConfig(overlap_rate=2)
    Traceback (most recent call last):
    deepacc_d2.errors.ConfigError: synthetic overlap_rate must be in 0..1, not 2

    Attributes:
        cells_per_case: metaphases (images) of one case.
        num_batches: staining batches; case ``c`` belongs to batch ``c % num_batches``.
        size: median image width and height in pixels; chromosomes scale with it.
        size_variation: 1 spreads image sizes as crops of real slides are, 0 fixes them to ``size``.
        abnormality_rate: probability that a case has a numerical abnormality.
        loss_rate: probability that a single cell has lost one random chromosome.
        condensation: factor on how much batches differ in how far chromosomes are condensed; 1 is
            what one laboratory's slides show, 3 makes some half as long again as others.
        open_rate: share of the batches whose sister chromatids lie apart, as after long Colcemid.
        faded_rate: share of the batches whose bands are hardly seen.
        overlap_rate: share of the chromosomes that are laid across others on purpose.
        nucleus_rate: mean number of interphase nuclei in an image.
        debris_rate: factor on the amount of dust and debris; 0 is a clean slide.
        box_margin: pixels by which boxes are widened on all sides; 0 keeps them tight to the mask,
            about 6 at the default size is what the annotators of Tseng et al. 2023 left.
        seed: of everything.
    """

    cells_per_case: int = 4
    num_batches: int = 12
    size: tuple[int, int] = (704, 685)
    size_variation: float = 1.0
    abnormality_rate: float = 0.1
    loss_rate: float = 0.03
    condensation: float = 1.0
    open_rate: float = 0.0
    faded_rate: float = 0.0
    overlap_rate: float = 0.3
    nucleus_rate: float = 0.6
    debris_rate: float = 1.0
    box_margin: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        """Checks every option.

        Raises:
            ConfigError: an option is out of its range.
        """
        object.__setattr__(self, "size", tuple(int(side) for side in self.size))
        for name in ("cells_per_case", "num_batches"):
            if getattr(self, name) < 1:
                raise ConfigError(f"synthetic {name} must be at least 1, not {getattr(self, name)}")
        if len(self.size) != 2 or not all(192 <= side <= 4096 for side in self.size):
            raise ConfigError(
                f"synthetic size must be two sides of 192..4096 px (width, height), not {self.size}"
            )
        if max(self.size) > 3 * min(self.size):
            raise ConfigError(f"synthetic size {self.size} is too narrow: keep the ratio below 3")
        for name, upper in MOST.items():
            if not 0 <= getattr(self, name) <= upper:
                raise ConfigError(
                    f"synthetic {name} must be in 0..{upper}, not {getattr(self, name)}"
                )
        if self.seed < 0:
            raise ConfigError(f"synthetic seed must not be negative, not {self.seed}")

    @property
    def scale(self) -> float:
        """Size of a chromosome relative to the default 704x685 image."""
        return float(np.sqrt(self.size[0] * self.size[1] / (704 * 685)))

    def digest(self) -> str:
        """Returns a SHA-256 over all options and the generator's version."""
        options = {"generator": GENERATOR_VERSION, **dataclasses.asdict(self)}
        return hashlib.sha256(json.dumps(options, sort_keys=True).encode()).hexdigest()

    def rng(self, stream: int, *key: int) -> np.random.Generator:
        """Returns the random generator of one batch, case or cell."""
        return np.random.default_rng(np.random.SeedSequence([self.seed, stream, *key]))

    def batch_of(self, case: int) -> int:
        """Returns the staining batch of a case."""
        return case % self.num_batches


@dataclass(frozen=True)
class Style:
    """The look of a slide; lengths in pixels of a 704x685 image, natural optical densities (OD).

    Attributes:
        length: chromosome 1 from tip to tip.
        width: of a chromatid pair away from the centromere.
        curl: factor on how much chromosomes bend.
        constriction: relative narrowing at the centromere.
        gap: loss of OD between the sister chromatids.
        apart: gap between the sister chromatids at the centromere, in widths of the pair.
        spread: what the gap grows by towards a tip at most, in widths of the pair; 0 is closed.
        lobes: 0 for round tips, 1 for tips that show both chromatids.
        rim: OD of the dark line that refraction draws along the outline.
        light, dark: OD of G-negative and of the darkest bands.
        band_blur: standard deviation of the band profile's blur along the axis.
        band_jitter: log standard deviation of single bands' OD from cell to cell.
        mottle: relative standard deviation of the stain's lumps along each chromatid.
        blur: standard deviation of the optical blur.
        halo: strength of the bright rim that a scanner's sharpening leaves.
        grain: relative standard deviation of the chromatin's texture.
        background: gray level of the empty slide; above 255 the scanner clips to white.
        haze: relative standard deviation of the empty slide's texture.
        tilt: relative strength of uneven illumination.
        noise: standard deviation of the sensor's noise, gray levels.
        dirt: factor on debris.
        jpeg_quality: of the stored file.
    """

    length: float
    width: float
    curl: float
    constriction: float
    gap: float
    apart: float
    spread: float
    lobes: float
    rim: float
    light: float
    dark: float
    band_blur: float
    band_jitter: float
    mottle: float
    blur: float
    halo: float
    grain: float
    background: float
    haze: float
    tilt: float
    noise: float
    dirt: float
    jpeg_quality: int


def batch_style(config: SyntheticConfig, batch: int) -> Style:
    """Draws the look that all cells of a batch share."""
    rng = config.rng(STREAM_BATCH, batch)
    # Condensation shortens and thickens at once; what is left is spread by the hypotonic treatment.
    condensed = float(np.clip(config.condensation * rng.normal(0, 1), -5, 5))
    # A stream of its own, so that closed chromosomes are drawn as they were without this option.
    opening = config.rng(STREAM_BATCH, batch, 1)
    opened = opening.random() < config.open_rate
    fading = config.rng(STREAM_BATCH, batch, 2)
    contrast = fading.uniform(0.03, 0.4) if fading.random() < config.faded_rate else 1.0
    clipped = rng.random() < 0.6
    light = float(np.clip(rng.lognormal(np.log(0.40), 0.22), 0.29, 0.66))
    return Style(
        length=167 * float(np.exp(-0.085 * condensed + rng.normal(0, 0.06))),
        width=17.2 * float(np.exp(0.065 * condensed + rng.normal(0, 0.07))),
        curl=rng.uniform(0.55, 1.35) * float(np.exp(-0.25 * condensed)),
        constriction=float(np.clip(0.22 + 0.06 * condensed + rng.normal(0, 0.05), 0.08, 0.36)),
        gap=float(np.clip(rng.normal(0.17 + 0.06 * condensed, 0.09), 0.0, 0.42)),
        apart=opening.uniform(0.0, 0.25) if opened else 0.0,
        spread=opening.uniform(0.3, 1.3) if opened else 0.0,
        lobes=float(np.clip(rng.normal(0.2 + 0.2 * condensed, 0.15), 0.0, 0.75)),
        rim=float(np.clip(rng.normal(0.05, 0.05), 0.0, 0.2)),
        light=light,
        dark=light + contrast * float(np.clip(rng.normal(0.76, 0.25), 0.34, 1.4)),
        band_blur=rng.uniform(1.6, 2.7),
        band_jitter=rng.uniform(0.08, 0.2),
        mottle=rng.uniform(0.08, 0.24),
        blur=rng.uniform(0.75, 1.55),
        halo=float(rng.choice([0.0, 0.0, rng.uniform(0.1, 0.3), rng.uniform(0.4, 0.8)])),
        grain=rng.uniform(0.05, 0.14),
        background=rng.uniform(252, 264) if clipped else rng.uniform(226, 249),
        haze=rng.uniform(0.0, 0.006) if clipped else rng.uniform(0.003, 0.014),
        tilt=rng.uniform(0.0, 0.012) if clipped else rng.uniform(0.005, 0.05),
        noise=rng.uniform(0.4, 1.2) if clipped else rng.uniform(0.8, 2.4),
        dirt=float(rng.lognormal(-0.1, 0.7)),
        jpeg_quality=int(rng.integers(82, 97)),
    )


def cell_style(style: Style, rng: np.random.Generator) -> Style:
    """Draws one cell's look: its batch's, with a small jitter."""

    def vary(value: float, spread: float) -> float:
        return value * float(np.exp(rng.normal(0, spread)))

    condensed = rng.normal(0, 0.055)
    return dataclasses.replace(
        style,
        length=style.length * float(np.exp(-condensed)),
        width=vary(style.width * float(np.exp(0.7 * condensed)), 0.02),
        curl=vary(style.curl, 0.15),
        constriction=vary(style.constriction, 0.08),
        gap=vary(style.gap, 0.1),
        light=vary(style.light, 0.04),
        dark=vary(style.dark, 0.04),
        blur=vary(style.blur, 0.08),
        tilt=vary(style.tilt, 0.2),
        background=style.background + rng.normal(0, 1.2),
    )
