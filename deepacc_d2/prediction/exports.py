"""Karyograms that a laboratory's system exports next to their metaphases: not images to analyze.

Systems write the metaphase as ``X.A.tif`` and the karyogram cut from it as ``X.K.tif``, or with
another separator, or none. Only a pair in one folder shows that; a karyogram without its metaphase
is told by how its chromosomes stand (:mod:`deepacc_d2.karyotype.fitness`).
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

# X.A and X.K, X_meta and X_karyo: a separator, and a word of either.
_METAPHASE = r"a|m|met|meta|metaphase"
_KARYOGRAM = r"k|kar|karyo|karyogram|karyotype"
_WORDS = re.compile(rf"(.+)[._\- ](?:({_METAPHASE})|({_KARYOGRAM}))", re.IGNORECASE)
# 0012A and 0012K.
_LETTER = re.compile(r"(.*[0-9])([A-Za-z])")


def exported_karyograms(paths: Sequence[Path]) -> dict[Path, Path]:
    """Finds the karyograms among images that have the metaphase of the same name next to them.

    >>> found = exported_karyograms([Path("7.A.tif"), Path("7.K.tif"), Path("8.K.tif")])
    >>> [(str(karyogram), str(metaphase)) for karyogram, metaphase in found.items()]
    [('7.K.tif', '7.A.tif')]

    Returns:
        The metaphase of each.
    """
    plain = {(path.parent, path.stem.casefold()): path for path in paths}
    metaphases: dict[tuple[Path, str], Path] = {}
    karyograms: list[tuple[tuple[Path, str], Path]] = []
    lettered: dict[tuple[Path, str], dict[str, Path]] = defaultdict(dict)
    for path in paths:
        if words := _WORDS.fullmatch(path.stem):
            key = (path.parent, words[1].casefold())
            if words[3]:
                karyograms.append((key, path))
            else:
                metaphases.setdefault(key, path)
        elif letter := _LETTER.fullmatch(path.stem):
            lettered[path.parent, letter[1].casefold()][letter[2].casefold()] = path
    found = {
        path: partner
        for key, path in karyograms
        if (partner := metaphases.get(key) or plain.get(key)) is not None
    }
    # Where there are more letters, as in 12A, 12B, ... 12K, they number cells.
    found |= {own["k"]: own["a"] for own in lettered.values() if own.keys() == {"a", "k"}}
    return found


def skipped_line(karyogram: Path, metaphase: Path) -> str:
    """Returns why a picture is skipped."""
    return f"it is the karyogram of {metaphase.name}, not a metaphase: skipped"
