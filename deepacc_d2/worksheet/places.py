"""Where a cell is on its slide: by a table, by the image's tags, or by the file's name."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deepacc_d2.errors import ConfigError
from deepacc_d2.images.resolution import read_scale

NAME_PATTERN = (
    r"(?P<slide>.+?)[ _-]+x[ =]?(?P<x>-?\d+(?:[.,]\d+)?)[ _-]*y[ =]?(?P<y>-?\d+(?:[.,]\d+)?)(?!\w)"
)
"""Of file names such as ``slide3_x12.5_y103.2.tif``; case does not matter."""


@dataclass(frozen=True)
class Spot:
    """Where a cell is.

    Attributes:
        slide: name of the slide; empty if not known.
        coordinates: on the slide, as they were given; empty if not known.
        level: what a person did with the cell, see :data:`deepacc_d2.worksheet.tables.LEVELS`;
            empty if not known.
        reviewer: who did it; empty if not known.
    """

    slide: str = ""
    coordinates: str = ""
    level: str = ""
    reviewer: str = ""


def name_pattern(text: str | None) -> re.Pattern[str]:
    """Returns a pattern of file names.

    Args:
        text: a regular expression with the groups ``slide``, ``x`` and ``y`` or some of them;
            :data:`NAME_PATTERN` if not given.

    Raises:
        ConfigError: it is none, or has other groups or none of these.
    """
    if text is None:
        return re.compile(NAME_PATTERN, re.IGNORECASE)
    try:
        pattern = re.compile(text, re.IGNORECASE)
    except re.error as error:
        raise ConfigError(f"name_pattern {text[:60]!r} is no regular expression: {error}") from None
    groups = set(pattern.groupindex)
    if not groups or not groups <= {"slide", "x", "y"}:
        raise ConfigError(
            f"name_pattern {text[:60]!r} needs groups named slide, x and y: (?P<slide>...)"
        )
    return pattern


def spot_of(path: str, row: Mapping[str, str] | None, pattern: re.Pattern[str]) -> Spot:
    """Returns where a cell is: by its row of a table, else its image's tags, else its name.

    Args:
        path: of the image; empty if it has none.
        row: of :func:`deepacc_d2.worksheet.tables.read_cells`.
        pattern: of file names.
    """
    told: dict[str, Any] = dict(row or {})
    match = pattern.match(Path(path).stem) if path else None
    named = {k: v for k, v in match.groupdict().items() if v} if match else {}
    slide = told.get("slide") or named.get("slide", "")
    coordinates = told.get("coordinates", "")
    if not coordinates and path:
        coordinates = read_scale(path).position
    if not coordinates and {"x", "y"} & named.keys():
        coordinates = f"{named.get('x', '?')}, {named.get('y', '?')}"
    return Spot(slide, coordinates, told.get("level", ""), told.get("reviewer", ""))
