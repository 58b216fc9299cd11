"""Colors that all pictures share."""

from __future__ import annotations

GROUP_COLORS: dict[str, str] = {
    "A": "#0072b2",
    "B": "#d55e00",
    "C": "#009e73",
    "D": "#cc79a7",
    "E": "#a67c00",
    "F": "#56b4e9",
    "G": "#6a3d9a",
}
"""A color per Denver group, which color-blind readers can tell apart (after Okabe and Ito)."""
