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

BLUE, ORANGE, GREEN = GROUP_COLORS["A"], GROUP_COLORS["B"], GROUP_COLORS["C"]
"""Of two or three things, or of one."""

RIGHT, WRONG, MISSED, SPURIOUS = "#2ca02c", "#ff7f0e", "#1f77ff", "#e6194b"
"""Of a detection: its class is the true one, it is another; not found; nothing there."""
RESCUED = "#1b9e3f"
"""Right by the inference branch alone."""

ALARM, DOUBT, TOUCH = "#c8102e", "#e69f00", "#9a6fb0"
"""Marks: what must be looked at, what is not sure, what touches another."""

INK, LINE, DARK, SOFT, MUTED, PALE = (
    *("#1a1a1a", "#333333", "#444444", "#555555", "#6f6f6f", "#777777"),
)
"""Grays of text and lines, from the darkest."""
UNSURE, HELD, LIGHT, RULE, GRID, FAINT = (
    *("#8c8c8c", "#999999", "#bbbbbb", "#cccccc", "#dddddd", "#eeeeee"),
)
"""Grays of what stays in the background, from the darkest."""
