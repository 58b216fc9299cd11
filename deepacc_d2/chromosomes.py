"""The 24 classes of human chromosomes: order, Denver groups and the names they go by.

Class indices are contiguous, 0..23, in the order 1..22, X, Y; COCO category ids are the index
plus one, 1..24. The Denver groups (Denver Conference 1960) sort the classes by size and
centromere position: A 1-3, B 4-5, C 6-12 and X, D 13-15, E 16-18, F 19-20, G 21-22 and Y.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np

from deepacc_d2.errors import ConfigError, DataError

CLASSES: tuple[str, ...] = (*(str(n) for n in range(1, 23)), "X", "Y")
NUM_CLASSES: int = len(CLASSES)

DENVER_GROUPS: dict[str, tuple[str, ...]] = {
    "A": ("1", "2", "3"),
    "B": ("4", "5"),
    "C": ("6", "7", "8", "9", "10", "11", "12", "X"),
    "D": ("13", "14", "15"),
    "E": ("16", "17", "18"),
    "F": ("19", "20"),
    "G": ("21", "22", "Y"),
}

GROUP_OF: dict[str, str] = {name: group for group, names in DENVER_GROUPS.items() for name in names}

_INDEX = {name: index for index, name in enumerate(CLASSES)}
_AUTOSOME = re.compile(r"([A-G])?0*([1-9][0-9]?)")


class UnknownClassError(DataError):
    """A label that names none of the 24 classes."""


def class_index(label: str | int) -> int:
    """Returns the class index (0..23) of a label in any convention met in public data.

    Accepted: ``1``..``22``, ``X``, ``Y`` (with an optional ``chr`` prefix and leading zeros),
    group-prefixed names (``A1`` .. ``G22``, as Tseng et al. 2023 write them), and the numbers
    ``23`` (X) and ``24`` (Y) that LabelMe and YOLO sets use. Case and outer spaces are ignored.

    >>> [class_index(label) for label in ("chr01", "G21", "X", 24)]
    [0, 20, 22, 23]

    Raises:
        UnknownClassError: the label is none of these, or its group letter contradicts its number.
    """
    text = str(label).strip().upper()
    if text.startswith("CHR"):
        # Only behind the prefix: the minus of LabelMe's stray label -1 is no separator.
        text = text[3:].lstrip(" _-")
    if text in ("X", "CX"):
        return _INDEX["X"]
    if text in ("Y", "GY"):
        return _INDEX["Y"]
    match = _AUTOSOME.fullmatch(text)
    if match:
        number = int(match[2])
        if 1 <= number <= NUM_CLASSES:
            group = match[1]
            if group is None or GROUP_OF[CLASSES[number - 1]] == group:
                return number - 1
    raise UnknownClassError(
        f"unknown chromosome class {label!r}: expected 1..22, X, Y, A1..G22 or 23/24"
    )


def category_id(label: str | int) -> int:
    """Returns the COCO category id (1..24) of a label; see :func:`class_index`."""
    return class_index(label) + 1


def denver_name(index: int) -> str:
    """Returns the group-prefixed name of a class index, for example ``C6``; X and Y stay bare."""
    name = CLASSES[index]
    return name if name in ("X", "Y") else f"{GROUP_OF[name]}{name}"


def denver_order() -> list[int]:
    """Returns all class indices group by group (X after 12, Y after 22), for tables and plots."""
    return [_INDEX[name] for names in DENVER_GROUPS.values() for name in names]


def adjacency_matrix(groups: Mapping[str, Sequence[str]] = DENVER_GROUPS) -> np.ndarray:
    """Returns which classes share a group: bool (24, 24), symmetric, with a false diagonal.

    Args:
        groups: class names by group; must name every class exactly once.

    Raises:
        ConfigError: the groups leave a class out, or name one twice.
    """
    named = [name for names in groups.values() for name in names]
    if sorted(named) != sorted(CLASSES):
        missing = sorted(set(CLASSES) - set(named))
        extra = sorted({n for n in named if named.count(n) > 1 or n not in _INDEX})
        raise ConfigError(f"groups must name each class once: missing {missing}, wrong {extra}")
    group_of = np.empty(NUM_CLASSES, dtype=np.int64)
    for number, names in enumerate(groups.values()):
        group_of[[_INDEX[name] for name in names]] = number
    adjacency: np.ndarray = group_of[:, None] == group_of[None, :]
    np.fill_diagonal(adjacency, val=False)
    return adjacency


def coco_categories() -> list[dict[str, int | str]]:
    """Returns the COCO ``categories`` list: ids 1..24, with the Denver group as supercategory."""
    return [
        {"id": index + 1, "name": name, "supercategory": GROUP_OF[name]}
        for index, name in enumerate(CLASSES)
    ]
