"""How well the estimated band level of drawn cells is, whose bands are known.

    python tests/benchmarks/band_level.py [--cells 12] [--tables FOLDER]

Each cell has the 46 chromosomes of a male, apart from each other, drawn from an ideogram in the
style of a random staining batch. FOLDER may hold other ideograms, as the npm package ideogram
(CC0-1.0) has them in dist/data/bands/native; see FILES. Chromosomes of more bands are drawn longer,
as they are in nature. Prints a line for each cell: bands of its table, the bands that are left to
see after the blur, and what was estimated.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy import ndimage, signal

from deepacc_d2.cell import Cell, Chromosome
from deepacc_d2.chromosomes import CLASSES
from deepacc_d2.data.synthetic.chromosome import (
    PALE_GVAR,
    STAIN_LEVEL,
    Heteromorphism,
    draw_chromosome,
    render,
)
from deepacc_d2.data.synthetic.config import Style, SyntheticConfig, batch_style
from deepacc_d2.ideogram import Band, Ideogram, load_ideograms
from deepacc_d2.karyogram import build_karyogram
from deepacc_d2.karyogram.band_level import count_bands

FILES = {
    400: "homo-sapiens-400.json",
    550: "homo-sapiens-550.json",
    850: "homo-sapiens-GCF_000001405.26.json",
}


def read_table(path: Path) -> dict[str, Ideogram]:
    """Returns the ideograms of a table of the npm package."""
    found: dict[str, list[Band]] = {}
    for line in json.loads(path.read_text())["chrBands"]:
        name, arm, band, start, stop, begin, end, stain, *density = line.split()
        kind = stain + (density[0] if stain == "gpos" and density else "")
        own = Band(name, arm, band, int(begin), int(end), int(float(start)), int(float(stop)), kind)
        found.setdefault(name, []).append(own)
    first = found["1"][-1].iscn_stop
    made = {}
    for name in CLASSES:
        bands = found[name]
        edges = np.array([b.iscn_start for b in bands] + [bands[-1].iscn_stop], float)
        num_p = sum(b.arm == "p" for b in bands)
        made[name] = Ideogram(
            name,
            tuple(bands),
            edges / edges[-1],
            float(edges[num_p] / edges[-1]),
            bands[-1].iscn_stop / first,
        )
    return made


def left_to_see(ideograms: dict[str, Ideogram], style: Style) -> int:
    """Returns the bands of a haploid set that a drawing's blur leaves, without any noise.

    A band counts if it differs from its neighbors by a twentieth of what stains can differ by.
    """
    total = 0
    for name, ideogram in ideograms.items():
        length = style.length * ideogram.length
        at = np.arange(0, length, 0.1)
        place = np.searchsorted(ideogram.edges * length, at, side="right") - 1
        stains = [b.stain for b in ideogram.bands]
        pale = PALE_GVAR.get(name, STAIN_LEVEL["gvar"])
        levels = np.array([pale if s == "gvar" else STAIN_LEVEL[s] for s in stains])
        sigma = np.hypot(style.band_blur, style.blur)
        profile = ndimage.gaussian_filter1d(levels[place], sigma / 0.1, mode="nearest")
        dark, _ = signal.find_peaks(np.pad(profile, 1, constant_values=-9), prominence=0.05)
        light, _ = signal.find_peaks(np.pad(-profile, 1, constant_values=-9), prominence=0.05)
        total += len(dark) + len(light)
    return total


def drawn_cell(
    ideograms: dict[str, Ideogram], style: Style, rng: np.random.Generator
) -> tuple[np.ndarray, Cell]:
    """Returns the picture of a cell, each chromosome in a place of its own, and its boxes."""
    names = [*(name for name in CLASSES[:22] for _ in range(2)), "X", "Y"]
    side = int(style.length * 1.3) + 20
    density = np.zeros((7 * side, 7 * side), np.float32)
    chromosomes = []
    for n, name in enumerate(names):
        own = draw_chromosome(rng, ideograms[name], style, Heteromorphism(0.8, 1.0))
        x, y = (n % 7 + 0.5) * side, (n // 7 + 0.5) * side
        patch = render(rng, own, style, complex(x, y))
        h, w = patch.density.shape
        density[patch.y : patch.y + h, patch.x : patch.x + w] += patch.density
        ys, xs = np.nonzero(patch.mask)
        box = (patch.x + xs.min(), patch.y + ys.min(), patch.x + xs.max(), patch.y + ys.max())
        k = CLASSES.index(name)
        chromosomes.append(Chromosome(tuple(map(float, box)), np.eye(25)[k], k, k, 1.0))
    noise = rng.normal(0, style.noise, density.shape)
    gray = np.clip(250 * np.exp(-density) + noise, 0, 255).astype(np.uint8)
    return gray, Cell("drawn", "", *gray.shape[::-1], chromosomes, "46,XY", "46,XY", 1.0)


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--cells", type=int, default=12)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--tables", type=Path)
    options = parser.parse_args()
    tables = {550: load_ideograms()}
    if options.tables:
        tables |= {level: read_table(options.tables / file) for level, file in FILES.items()}
    config = SyntheticConfig(seed=options.seed, num_batches=options.cells)
    print("table, stretch, bands of it, left to see, estimated, low, high")
    pairs = []
    for level in sorted(tables):
        for cell in range(options.cells):
            rng = np.random.default_rng([options.seed, level, cell])
            style = batch_style(config, cell)
            stretch = float(rng.uniform(0.8, 1.2)) * level / 550
            style = replace(style, length=style.length * stretch)
            seen = left_to_see(tables[level], style)
            found = build_karyogram(*drawn_cell(tables[level], style, rng))
            counted = sum(count_bands(s) for s in found.strips)
            told = found.band_level
            total = sum(len(i.bands) for i in tables[level].values())
            pairs.append((level, total, seen, counted, told.bands, told.low <= seen <= told.high))
            print(level, f"{stretch:.2f}", total, seen, counted, told.bands, told.low, told.high,
                  flush=True)  # fmt: skip
    seen, told = np.array([p[2] for p in pairs]), np.array([p[4] for p in pairs])
    ratio = told / seen
    inside = np.mean([p[5] for p in pairs])
    print(f"estimate over what is left to see: median {np.median(ratio):.3f}, standard deviation "
          f"{ratio.std():.3f}; within the range told {inside:.0%}")  # fmt: skip


if __name__ == "__main__":
    main()
