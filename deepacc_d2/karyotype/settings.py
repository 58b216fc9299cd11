"""The numbers that turn class probabilities into a karyotype, as they are stored."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from deepacc_d2.errors import DataError

DOUBTS = (
    "expected_wrong",
    "doubtful_share",
    "least_margins",
    "off_46",
    "prior_cost",
    "answers_differ",
    "unidentified",
)
"""What a cell's confidence is computed from, each larger where the cell is worse.

``expected_wrong``: log of 0.1 plus the boxes expected to be wrong. ``doubtful_share``: of the
chromosomes, below ``low_confidence``. ``least_margins``: less the inverse hyperbolic sine of the
mean of the five smallest log-odds of a box's answer against its next best one. The others are
log(1 + n) of: how far the number of chromosomes is from 46, what the counts cost by the prior,
boxes on which the two answers differ, unidentified chromosomes.
"""

_AT_LEAST_ZERO = ("prior_strength", "cell_b")
_SHARES = (
    *("low_confidence", "low_cell_confidence", "touching", "unidentified"),
    *("most_doubtful", "second_spread", "page_aligned"),
)


@dataclass(frozen=True)
class KaryotypeSettings:
    """What :func:`deepacc_d2.karyotype.interpret.interpret` goes by.

    >>> settings = KaryotypeSettings(prior_strength=0.5)
    >>> KaryotypeSettings.from_dict(settings.to_dict()) == settings
    True

    ``make karyotype`` fits the first two and ``cell_weights`` on validation images; the defaults
    are for a network that nobody has fitted them for. docs/KARYOTYPE.md says how the thresholds
    were chosen.

    Attributes:
        temperature: that class probabilities are softened by, above 0; 1 leaves them.
        prior_strength: factor of the copy-number prior, 0 or more; 0 leaves each box its own
            class, infinity forces the 46 of a normal cell.
        loss_factor: that a lost copy costs more than a gained one by the prior, 1 or more.
        cell_a: offset of the cell confidence's log-odds where there are no ``cell_weights``.
        cell_b: slope of the same, 0 or more.
        low_confidence: a chromosome below this probability is flagged. 0.8: beyond one wrong in
            five, looking at the chromosome again is worth the while.
        low_cell_confidence: a cell below this probability is flagged.
        touching: boxes of which the smaller is in the other by more than this share are
            flagged. 0.25: the boxes of chromosomes side by side overlap less, unless they touch.
        few_chromosomes: a cell with fewer is unfit. 35: ISCN's lower end of what is near to
            diploid.
        unidentified: the class of a chromosome cannot be determined if its most probable class has
            less than this share of all 24.
        most_doubtful: a cell is unfit if more than this share of its chromosomes are of low
            confidence.
        size_factor: a cell is unfit if its chromosomes were shown to the network more than this
            many times larger or smaller than in training, at least 1.
        second_spread: a cell is unfit if its chromosomes are in two groups far apart, of which
            the smaller has more than this share of them.
        page_aligned: a picture is taken for a karyogram's page if this share of the chromosomes
            stand in rows.
        cell_weights: offset of the cell confidence's log-odds and a weight of each of
            :data:`DOUBTS`, 0 or more; empty where nobody has fitted them.

    Raises:
        DataError: a value is out of its range.
    """

    temperature: float = 1.0
    prior_strength: float = 0.5
    loss_factor: float = 1.0
    cell_a: float = 0.0
    cell_b: float = 1.0
    low_confidence: float = 0.8
    low_cell_confidence: float = 0.5
    touching: float = 0.25
    few_chromosomes: int = 35
    unidentified: float = 0.25
    most_doubtful: float = 0.5
    size_factor: float = 1.6
    second_spread: float = 0.2
    page_aligned: float = 0.7
    cell_weights: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        _check_weights(self.cell_weights)
        for field in fields(self):
            if field.name == "cell_weights":
                continue
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
        for name in ("size_factor", "loss_factor"):
            if getattr(self, name) < 1:
                raise DataError(f"karyotype setting {name}={getattr(self, name)}: give 1 or more")
        if self.few_chromosomes != int(self.few_chromosomes) or self.few_chromosomes < 0:
            raise DataError(
                f"karyotype setting few_chromosomes={self.few_chromosomes}: give a whole number"
            )

    def to_dict(self) -> dict[str, Any]:
        """Returns plain values that JSON can hold.

        An infinite strength is the text ``inf``; the weights are a mapping by name, or None.
        """
        content: dict[str, Any] = {field.name: getattr(self, field.name) for field in fields(self)}
        names = ("offset", *DOUBTS)
        weights = self.cell_weights
        content["cell_weights"] = dict(zip(names, weights, strict=True)) if weights else None
        if math.isinf(self.prior_strength):
            content["prior_strength"] = "inf"
        return content

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> KaryotypeSettings:
        """Makes settings of :meth:`to_dict`; what is missing gets its default.

        Settings of before there were weights have ``cell_a`` and ``cell_b``, and mean the same.

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
        values["cell_weights"] = _read_weights(values.get("cell_weights"))
        return cls(**values)


def _read_weights(given: Any) -> tuple[float, ...]:
    """Returns weights that are given by name.

    Raises:
        DataError: they are not those of :data:`DOUBTS`.
    """
    if not given:
        return ()
    names = ("offset", *DOUBTS)
    if not isinstance(given, Mapping) or set(given) != set(names):
        raise DataError(
            f"karyotype setting cell_weights: expected {', '.join(names)}: they are of another "
            "version"
        )
    return tuple(given[name] for name in names)


def _check_weights(weights: tuple[float, ...]) -> None:
    """Checks that weights are none, or an offset and one of at least 0 for each doubt.

    Raises:
        DataError: they are something else.
    """
    if not weights:
        return
    plain = all(isinstance(w, (int, float)) and not isinstance(w, bool) for w in weights)
    if len(weights) != 1 + len(DOUBTS) or not plain or not all(map(math.isfinite, weights)):
        raise DataError(
            f"karyotype setting cell_weights={weights!r}: give {1 + len(DOUBTS)} numbers"
        )
    if min(weights[1:]) < 0:
        raise DataError(f"karyotype setting cell_weights={weights!r}: give weights of 0 or more")
