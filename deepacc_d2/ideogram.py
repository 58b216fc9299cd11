"""The human ideogram at 550 bands: band positions and stains, from the CSV beside this module.

Positions are relative to the chromosome's own ISCN length: 0 at the p telomere, 1 at the q
telomere. See README.md in this folder for the source of the table.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from deepacc_d2.chromosomes import CLASSES
from deepacc_d2.errors import DataError

IDEOGRAM_CSV = Path(__file__).with_name("ideogram_hg38_550.csv")

ACROCENTRIC: frozenset[str] = frozenset({"13", "14", "15", "21", "22"})
"""Chromosomes whose short arm is a stalk with a satellite."""


@dataclass(frozen=True)
class Band:
    """One band of the table.

    Attributes:
        chromosome: class name, ``1``..``22``, ``X``, ``Y``.
        arm: ``p`` or ``q``.
        name: band number within the arm, for example ``11.2``.
        start_bp, stop_bp: GRCh38 base pairs, 1-based, inclusive.
        iscn_start, iscn_stop: ISCN drawing units from the p telomere.
        stain: ``gneg``, ``gpos25`` .. ``gpos100``, ``acen``, ``gvar`` or ``stalk``.
    """

    chromosome: str
    arm: str
    name: str
    start_bp: int
    stop_bp: int
    iscn_start: int
    iscn_stop: int
    stain: str


@dataclass(frozen=True, eq=False)
class Ideogram:
    """One chromosome of the ideogram.

    Attributes:
        name: class name.
        bands: its B bands, from the p telomere to the q telomere.
        edges: float64 (B + 1,), band borders from 0 (p telomere) to 1 (q telomere).
        centromere: position of the p/q border in the same units.
        length: ISCN length relative to chromosome 1.
    """

    name: str
    bands: tuple[Band, ...]
    edges: np.ndarray
    centromere: float
    length: float


@lru_cache(maxsize=1)
def load_bands(path: Path = IDEOGRAM_CSV) -> tuple[Band, ...]:
    """Reads the band table.

    Raises:
        DataError: the file is missing or a row cannot be read.
    """
    try:
        with path.open(encoding="utf-8", newline="") as stream:
            rows = csv.DictReader(line for line in stream if not line.startswith("#"))
            return tuple(
                Band(
                    chromosome=row["chromosome"],
                    arm=row["arm"],
                    name=row["band"],
                    start_bp=int(row["start_bp"]),
                    stop_bp=int(row["stop_bp"]),
                    iscn_start=int(row["iscn_start"]),
                    iscn_stop=int(row["iscn_stop"]),
                    stain=row["stain"],
                )
                for row in rows
            )
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise DataError(f"cannot read the ideogram table {path}: {error}; reinstall it") from error


@lru_cache(maxsize=1)
def load_ideograms() -> dict[str, Ideogram]:
    """Returns the 24 ideograms by class name, in class order.

    >>> ideograms = load_ideograms()
    >>> len(ideograms), ideograms["1"].bands[0].name, round(float(ideograms["21"].length), 2)
    (24, '36.3', 0.21)
    """
    by_name: dict[str, list[Band]] = {name: [] for name in CLASSES}
    for band in load_bands():
        by_name[band.chromosome].append(band)
    reference = by_name["1"][-1].iscn_stop
    ideograms = {}
    for name, bands in by_name.items():
        starts = np.array([band.iscn_start for band in bands], dtype=np.float64)
        stops = np.array([band.iscn_stop for band in bands], dtype=np.float64)
        # Some ISCN positions leave a gap between two bands; each band gets half of it.
        edges = np.concatenate([starts[:1], (stops[:-1] + starts[1:]) / 2, stops[-1:]])
        edges = (edges - edges[0]) / (edges[-1] - edges[0])
        num_p = sum(band.arm == "p" for band in bands)
        ideograms[name] = Ideogram(
            name=name,
            bands=tuple(bands),
            edges=edges,
            centromere=float(edges[num_p]),
            length=float((stops[-1] - starts[0]) / reference),
        )
    return ideograms
