"""The numbers that turn class probabilities into a karyotype, as they are stored."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from deepacc_d2.errors import DataError

_AT_LEAST_ZERO = ("prior_strength", "cell_b")
_SHARES = ("low_confidence", "low_cell_confidence", "touching")


@dataclass(frozen=True)
class KaryotypeSettings:
    """What :func:`deepacc_d2.karyotype.interpret.interpret` goes by.

    ``make karyotype`` fits the first four on validation images; the defaults are for a network
    that nobody has fitted them for.

    Attributes:
        temperature: that class probabilities are softened by, above 0; 1 leaves them.
        prior_strength: factor of the copy-number prior, 0 or more; 0 leaves each box its own
            class, infinity forces the 46 of a normal cell.
        cell_a: offset of the cell confidence's log-odds.
        cell_b: slope of the same, 0 or more.
        low_confidence: a chromosome below this probability is flagged. 0.8: beyond one wrong in
            five, looking at the chromosome again is worth the while.
        low_cell_confidence: a cell below this probability is flagged.
        touching: boxes of which the smaller lies in the other by more than this share are
            flagged. 0.25: the boxes of chromosomes side by side overlap less, unless they touch.
        few_chromosomes: a cell with fewer is flagged as incomplete. 35: ISCN's lower end of what
            is near to diploid.

    Raises:
        DataError: a value is out of its range.
    """

    temperature: float = 1.0
    prior_strength: float = 0.5
    cell_a: float = 0.0
    cell_b: float = 1.0
    low_confidence: float = 0.8
    low_cell_confidence: float = 0.5
    touching: float = 0.25
    few_chromosomes: int = 35

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or math.isnan(value):
                raise DataError(f"karyotype setting {field.name}={value!r} is no number")
            if math.isinf(value) and field.name != "prior_strength":
                raise DataError(f"karyotype setting {field.name}={value}: give a finite number")
        if self.temperature <= 0:
            raise DataError(f"karyotype setting temperature={self.temperature}: give more than 0")
        for name in _AT_LEAST_ZERO:
            if getattr(self, name) < 0:
                raise DataError(f"karyotype setting {name}={getattr(self, name)}: give 0 or more")
        for name in _SHARES:
            if not 0 <= getattr(self, name) <= 1:
                raise DataError(f"karyotype setting {name}={getattr(self, name)}: give 0 to 1")
        if self.few_chromosomes != int(self.few_chromosomes) or self.few_chromosomes < 0:
            raise DataError(
                f"karyotype setting few_chromosomes={self.few_chromosomes}: give a whole number"
            )

    def to_dict(self) -> dict[str, Any]:
        """Returns plain values that JSON can hold; an infinite strength is the text ``inf``."""
        content = asdict(self)
        if math.isinf(self.prior_strength):
            content["prior_strength"] = "inf"
        return content

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> KaryotypeSettings:
        """Makes settings of :meth:`to_dict`; what is missing gets its default.

        Raises:
            DataError: it is no mapping, has an unknown name, or a value out of its range.
        """
        if not isinstance(content, Mapping):
            raise DataError("karyotype settings are no mapping of names to numbers")
        unknown = sorted({str(name) for name in content} - {field.name for field in fields(cls)})
        if unknown:
            raise DataError(
                f"karyotype settings have unknown {', '.join(unknown)}: they are of another version"
            )
        values = dict(content)
        if values.get("prior_strength") == "inf":
            values["prior_strength"] = math.inf
        return cls(**values)
