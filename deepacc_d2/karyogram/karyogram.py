"""A cell's karyogram: strips cut, straightened and turned, in the order of a page."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from deepacc_d2.cell import DERIVATIVE, UNIDENTIFIED, Cell, Chromosome
from deepacc_d2.chromosomes import CLASSES
from deepacc_d2.images.rings import Ring
from deepacc_d2.karyogram.band_level import BandLevel, estimate_band_level
from deepacc_d2.karyogram.cut import Cut, cut_cell
from deepacc_d2.karyogram.heading import Heading, heading_of
from deepacc_d2.karyogram.layout import Layout, lay_out
from deepacc_d2.karyogram.orientation.find import pose_of, strip_place, turn
from deepacc_d2.karyogram.polarity import Polarity
from deepacc_d2.karyogram.shape import outline_of
from deepacc_d2.karyogram.straighten import Straight, straighten, trimmed
from deepacc_d2.karyogram.strip import Strip

# Strips are read so that a chromosome has about this many strip pixels (square root of its box's
# area): fine enough for a page of 1600 pixels and for print.
STRIP_SIZE = 150.0
_MIN_ZOOM, _MAX_ZOOM = 0.1, 6.0


@dataclass(frozen=True, eq=False)
class Karyogram:
    """A karyogram, laid out; see :func:`build_karyogram`.

    Attributes:
        cell: what it shows.
        strips: one for each of ``cell.chromosomes``, in their order.
        layout: where everything is on the page.
        heading: what stands at its head.
        pixel_size: micrometers of an image pixel, for the scale bar; None if not known.
        band_level: estimated; None where too few chromosomes are seen well.
    """

    cell: Cell
    strips: tuple[Strip, ...]
    layout: Layout
    heading: Heading
    pixel_size: float | None = None
    band_level: BandLevel | None = None

    def save(self, path: str | Path) -> None:
        """Writes the karyogram in the format that the suffix names, the same bytes each time.

        Args:
            path: ends in ``.png`` (1600 pixels wide), ``.svg`` or ``.pdf`` (vector, the strips
                embedded as images, text as text).

        Raises:
            ConfigError: another suffix.
            OSError: the file cannot be written.
        """
        from deepacc_d2.karyogram.draw import save_karyogram

        save_karyogram(self, path)


def build_karyogram(
    gray: NDArray[np.uint8],
    cell: Cell,
    *,
    turned: Collection[int] = (),
    outlines: Mapping[int, Sequence[Ring]] | None = None,
    align: str = "centromere",
    pixel_size: float | None = None,
) -> Karyogram:
    """Cuts, straightens and turns a cell's chromosomes and lays them out.

    >>> page = np.full((90, 120), 255, np.uint8)
    >>> empty = Cell("a", "a.png", 120, 90, [], karyotype="", karyotype_by_box="", confidence=0.0)
    >>> build_karyogram(page, empty).strips
    ()

    Args:
        gray: uint8 (H, W), the image whose pixels the boxes are in, dark on light or the reverse.
        cell: what was found in it; a cell without chromosomes gives a page of empty places.
        turned: indices of chromosomes that a person turned over against what is found here.
        outlines: by index of a chromosome, those that a person drew, instead of the chromosome's
            mask; see :func:`deepacc_d2.karyogram.cut.cut_cell`.
        align: ``centromere``: those of a row are on one level; ``line``: chromosomes stand on it.
        pixel_size: micrometers of an image pixel, for a scale bar; none is drawn if not given.

    Raises:
        ConfigError: ``align`` is neither.
        ValueError: ``gray`` is not uint8 (H, W).
    """
    if gray.ndim != 2 or gray.dtype != np.uint8 or not gray.size:
        raise ValueError(f"a karyogram needs uint8 (H, W) pixels, not {gray.dtype} {gray.shape}")
    boxes = [chromosome.box for chromosome in cell.chromosomes]
    zoom = strip_zoom(boxes)
    cuts = cut_cell(gray, boxes, {**outlines_of(cell), **(outlines or {})})
    pieces = zip(cell.chromosomes, cuts, strict=True)
    strips = make_strips([(c, cut, n in turned) for n, (c, cut) in enumerate(pieces)], zoom)
    counts = cell.counts() if cell.chromosomes else np.zeros(len(CLASSES), np.int64)
    level = None if cell.unfit else estimate_band_level(strips)
    heading = heading_of(cell, () if level is None else (str(level),))
    layout = lay_out(strips, counts, align=align, header=heading.height)
    return Karyogram(cell, tuple(strips), layout, heading, pixel_size, level)


def outlines_of(cell: Cell) -> dict[int, Sequence[Ring]]:
    """Returns the masks of a cell's chromosomes by their index, as far as they have one."""
    return {n: c.mask.rings for n, c in enumerate(cell.chromosomes) if c.mask is not None}


def make_strips(pieces: Sequence[tuple[Chromosome, Cut, bool]], zoom: float) -> list[Strip]:
    """Straightens the chromosomes of one cell and turns their p arms up, all at once.

    Args:
        pieces: chromosome, cut and ``turned`` of each; the last says that a person turned it over
            against what is found here, which then is certain.
        zoom: strip pixels for an image pixel.
    """
    straights = [straighten(cut, zoom) for _, cut, _ in pieces]
    polarities = turn(straights, [_class_of(chromosome) for chromosome, _, _ in pieces])
    return [
        _turned_strip(chromosome, straight, polarity, cut, turned=turned)
        for (chromosome, cut, turned), straight, polarity in zip(
            pieces, straights, polarities, strict=True
        )
    ]


def _class_of(chromosome: Chromosome) -> str | None:
    """Returns the class that a chromosome is turned as, None for an unidentified one."""
    return None if chromosome.assigned == UNIDENTIFIED else chromosome.name


def _turned_strip(
    chromosome: Chromosome, straight: Straight, polarity: Polarity, cut: Cut, *, turned: bool
) -> Strip:
    """Returns a strip as it is shown; see :func:`make_strips`."""
    if turned:
        polarity = replace(
            polarity,
            flip=not polarity.flip,
            confidence=1.0,
            centromere=1 - polarity.centromere,
            method="person",
        )
    step = -1 if polarity.flip else 1
    return Strip(
        name=chromosome.name,
        placed=chromosome.placed,
        unidentified=chromosome.assigned == UNIDENTIFIED,
        dark=np.ascontiguousarray(trimmed(straight)[::step, ::step]),
        zoom=straight.zoom,
        centromere=strip_place(straight, polarity),
        polarity_confidence=polarity.confidence,
        cut=not cut.whole,
        pose=pose_of(straight, polarity),
        doubts=straight.doubts,
        derivative=DERIVATIVE in chromosome.flags,
        outline=outline_of(cut),
    )


def strip_zoom(boxes: list[tuple[float, float, float, float]]) -> float:
    """Returns strip pixels for an image pixel that suit the boxes' median size."""
    if not boxes:
        return 1.0
    sides = np.asarray(boxes, np.float64)
    area = np.clip(sides[:, 2] - sides[:, 0], 1, None) * np.clip(sides[:, 3] - sides[:, 1], 1, None)
    size = float(np.nanmedian(np.sqrt(area)))
    return float(np.clip(STRIP_SIZE / max(size, 1.0), _MIN_ZOOM, _MAX_ZOOM))
