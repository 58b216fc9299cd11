"""Which image goes to train, val or test: by case, or by the source's own lists."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from deepacc_d2.errors import ConfigError, DataError

SPLITS = ("train", "val", "test")


def parse_ratios(text: str) -> tuple[float, float, float]:
    """Returns the three shares of ``"3:1:1"`` as numbers that sum to 1.

    >>> parse_ratios("3:1:1")
    (0.6, 0.2, 0.2)

    Raises:
        ConfigError: not three non-negative numbers, or nothing for training.
    """
    try:
        values = [float(part) for part in text.split(":")]
    except ValueError:
        values = []
    if len(values) != 3 or min(values) < 0 or values[0] <= 0 or not np.isfinite(sum(values)):
        raise ConfigError(f"ratios {text!r}: expected train:val:test such as 3:1:1")
    total = sum(values)
    return (values[0] / total, values[1] / total, values[2] / total)


def split_by_case(
    cases: Sequence[str], ratios: Sequence[float] = (0.6, 0.2, 0.2), seed: int = 0
) -> list[str]:
    """Splits images so that no case is in two splits and the image counts follow the ratios.

    The sorted cases are permuted by ``numpy.random.default_rng(seed)``; each in turn goes whole to
    the split that lacks most images. So the result depends on nothing but the cases with their
    image counts, the ratios and the seed.

    >>> split_by_case(["a", "a", "b", "c", "d", "e"], seed=0)
    ['val', 'val', 'test', 'train', 'train', 'train']

    Args:
        cases: the case of every image, length n.
        ratios: shares of train, val and test; a share of 0 leaves the split empty.
        seed: of the permutation.

    Returns:
        ``train``, ``val`` or ``test`` for every image, length n.

    Raises:
        DataError: fewer cases than splits to fill.
    """
    sizes = Counter(cases)
    wanted = sum(share > 0 for share in ratios)
    if len(sizes) < wanted:
        raise DataError(
            f"{len(sizes)} case(s) cannot fill {wanted} case-disjoint splits: add data, set "
            "ratios such as 1:0:0, or tell cases apart with --case-regex"
        )
    ordered = sorted(sizes)
    lacking = np.asarray(ratios, dtype=np.float64) / sum(ratios) * len(cases)
    lacking[np.asarray(ratios) <= 0] = -np.inf
    split_of: dict[str, str] = {}
    for position in np.random.default_rng(seed).permutation(len(ordered)):
        case = ordered[position]
        # rounding keeps ties apart from floating-point noise; argmax takes the first of equals
        target = int(np.argmax(np.round(lacking, 9)))
        lacking[target] -= sizes[case]
        split_of[case] = SPLITS[target]
    return [split_of[case] for case in cases]


def split_officially(
    official: Sequence[str], cases: Sequence[str], ratios: Sequence[float], seed: int = 0
) -> list[str]:
    """Keeps the source's own splits and cuts a missing validation part from train, by case.

    Args:
        official: ``train``, ``val`` or ``test`` for every image, length n.
        cases: the case of every image, length n.
        ratios: shares; only val / (train + val) matters, and only where no image is in ``val``.
        seed: of the permutation of the train cases.

    Returns:
        ``train``, ``val`` or ``test`` for every image, length n.
    """
    result = list(official)
    train = [index for index, split in enumerate(official) if split == "train"]
    if "val" in official or ratios[1] <= 0 or not train:
        return result
    parts = split_by_case([cases[index] for index in train], (ratios[0], ratios[1], 0.0), seed)
    for index, part in zip(train, parts, strict=True):
        result[index] = part
    return result


def shared_cases(splits: Sequence[str], cases: Sequence[str]) -> dict[str, list[str]]:
    """Returns the cases that are in more than one split, each with its splits in order."""
    found: dict[str, set[str]] = {}
    for split, case in zip(splits, cases, strict=True):
        found.setdefault(case, set()).add(split)
    return {
        case: [split for split in SPLITS if split in where]
        for case, where in sorted(found.items())
        if len(where) > 1
    }
