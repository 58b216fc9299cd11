"""A share of some cells, with the interval that so few cells leave open."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

Z_95 = 1.959963984540054


@dataclass(frozen=True)
class Share:
    """A share of some cells, with its Wilson interval of 95 percent.

    Attributes:
        hits: how many.
        total: of how many.
    """

    hits: int
    total: int

    @property
    def value(self) -> float:
        """0 to 1, NaN of none."""
        return self.hits / self.total if self.total else math.nan

    @property
    def interval(self) -> tuple[float, float]:
        """Lower and upper end (Wilson 1927); NaN of none."""
        if not self.total:
            return math.nan, math.nan
        n, p, z = self.total, self.value, Z_95
        center = (p + z**2 / (2 * n)) / (1 + z**2 / n)
        half = z / (1 + z**2 / n) * math.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
        return max(0.0, center - half), min(1.0, center + half)

    def __str__(self) -> str:
        """Such as ``14 of 20, 70.0 % (48.1 to 85.5)``."""
        if not self.total:
            return "none"
        low, high = (100 * end for end in self.interval)
        return f"{self.hits} of {self.total}, {100 * self.value:.1f} % ({low:.1f} to {high:.1f})"

    def to_dict(self) -> dict[str, Any]:
        """Returns plain values, None for NaN."""
        low, high = (None if math.isnan(v) else v for v in self.interval)
        value = None if math.isnan(self.value) else self.value
        return {"hits": self.hits, "total": self.total, "share": value, "low": low, "high": high}
