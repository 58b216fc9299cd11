"""What a prior does to gains and losses: evidence from made cells, and the rule that rests on it.

Real cells with a gain are too few to choose a prior by. Into normal cells a homolog is inserted, or
a chromosome is removed from them (:mod:`deepacc_d2.data.made.cells`). A gain is *named* where the
inserted chromosome is found, its own box names it right, and the boxes by themselves count more of
its class than a normal cell has. It is *clear* where all copies of the class are found and named
right by boxes that are not flagged for low confidence. A prior may hide 1 in 20 clear gains.

Why not of the named ones: a box that is a 7 with 51 to 49 names it right too, and a prior that
never took such a box would be none. These boxes are flagged, so that a person looks at them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepacc_d2.chromosomes import CLASSES, DENVER_GROUPS, GROUP_OF
from deepacc_d2.karyotype.assignment import StrengthResult, assign
from deepacc_d2.karyotype.calibration import apply_temperature
from deepacc_d2.karyotype.counts import X, count_classes, has_gain, has_loss, is_abnormal
from deepacc_d2.karyotype.known import KnownCell, matched_rows
from deepacc_d2.karyotype.settings import KaryotypeSettings
from deepacc_d2.karyotype.share import Share

ENOUGH_CLEAR_GAINS = 100
"""With fewer clear gains made cells do not decide: of 100, 95 kept leave 88.8 to 97.8 percent."""

LEAST_KEPT = 0.95
"""Share of clear gains that have to be counted still."""


@dataclass(frozen=True, eq=False)
class Made:
    """A made cell.

    Attributes:
        cell: detections, and the truth after the change; an inserted homolog is the last.
        gain: a homolog was inserted; else a chromosome was removed.
        class_index: of it, 0..23.
    """

    cell: KnownCell
    gain: bool
    class_index: int


@dataclass(frozen=True)
class Outcome:
    """What became of one made cell.

    Attributes:
        found: an inserted homolog has a box.
        named: a named gain, see the module.
        clear: a clear gain.
        counted: copies of the class by each box itself, and by the assignment.
        true: copies of the class that there are.
        kept: copies that the assignment names right too.
    """

    found: bool
    named: bool
    clear: bool
    counted: tuple[int, int]
    true: int
    kept: int


def outcome(made: Made, settings: KaryotypeSettings) -> Outcome:
    """Follows the changed class of a made cell through both answers."""
    cell, k = made.cell, made.class_index
    calibrated = apply_temperature(cell.probabilities, settings.temperature)
    result = assign(calibrated, settings.prior_strength, settings.loss_factor)
    rows = matched_rows(cell.boxes, cell.probabilities, cell.true_boxes)
    counts = count_classes(result.by_box), count_classes(result.assigned)
    counted = int(counts[0][k]), int(counts[1][k])
    own = np.flatnonzero(cell.true_classes == k)
    # Those of the class's chromosomes that have a box.
    boxes = np.flatnonzero(np.isin(rows, own))
    sure = (result.by_box[boxes] == k) & (calibrated[boxes, k] >= settings.low_confidence)
    inserted = boxes[rows[boxes] == len(cell.true_classes) - 1] if made.gain else boxes[:0]
    right = len(inserted) == 1 and int(result.by_box[inserted[0]]) == k
    return Outcome(
        found=len(inserted) == 1,
        named=right and counted[0] >= len(own),
        clear=right and len(boxes) == len(own) and bool(sure.all()),
        counted=counted,
        true=len(own),
        kept=int((result.assigned[boxes] == k).sum()),
    )


def number_of_clear_gains(made: Sequence[Made], settings: KaryotypeSettings) -> int:
    """Returns how many made cells have a clear gain, which the prior's strength does not change."""
    return sum(outcome(each, settings).clear for each in made if each.gain)


def with_made_cells(
    tried: Sequence[StrengthResult],
    made: Sequence[Made],
    settings: KaryotypeSettings,
    *,
    bound: bool,
) -> list[StrengthResult]:
    """Adds to what each strength gave what it does to made cells.

    Args:
        tried: on real cells.
        made: cells.
        settings: temperature, and what is of low confidence.
        bound: do not allow a strength that keeps less than :data:`LEAST_KEPT` of the clear gains.
    """
    results = []
    for each in tried:
        own = replace(settings, prior_strength=each.strength, loss_factor=each.loss_factor)
        gains = [outcome(m, own) for m in made if m.gain]
        losses = [outcome(m, own) for m in made if not m.gain]
        named, clear = [g for g in gains if g.named], [g for g in gains if g.clear]
        kept = _still_counted(clear)
        results.append(
            replace(
                each,
                allowed=each.allowed and (not bound or kept.hits >= LEAST_KEPT * kept.total),
                named_gains=len(named),
                kept_named_gains=_still_counted(named).hits,
                clear_gains=kept.total,
                kept_gains=kept.hits,
                losses=len(losses),
                detected_losses=sum(n.counted[1] == n.true for n in losses),
            )
        )
    return results


def _still_counted(gains: Sequence[Outcome]) -> Share:
    return Share(sum(g.counted[1] >= g.true for g in gains), len(gains))


@dataclass(frozen=True)
class MadeScores:
    """How gains and losses of made cells are counted; each pair: by box, and by the assignment.

    Attributes:
        found: inserted homologs that have a box.
        gains, losses: made cells whose changed class has just its true number.
        gains_by_group, losses_by_group: the same by Denver group.
        named_kept, clear_kept: named and clear gains that are still counted.
        three_kept: clear gains whose every copy keeps its name.
        not_made: orders that could not be carried out.
    """

    found: Share
    gains: tuple[Share, Share]
    losses: tuple[Share, Share]
    gains_by_group: dict[str, tuple[Share, Share]]
    losses_by_group: dict[str, tuple[Share, Share]]
    named_kept: Share
    clear_kept: Share
    three_kept: Share
    not_made: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Returns plain values."""
        return {name: _plain(getattr(self, name)) for name in self.__dataclass_fields__}


def score_made(
    made: Sequence[Made], settings: KaryotypeSettings, *, not_made: int = 0
) -> MadeScores:
    """Scores made cells with settings."""
    pairs = [(m, outcome(m, settings)) for m in made]
    gains = [(m, o) for m, o in pairs if m.gain]
    losses = [(m, o) for m, o in pairs if not m.gain]
    clear = [o for _, o in gains if o.clear]
    return MadeScores(
        found=Share(sum(o.found for _, o in gains), len(gains)),
        gains=_counted(gains),
        losses=_counted(losses),
        gains_by_group=_by_group(gains),
        losses_by_group=_by_group(losses),
        named_kept=_still_counted([o for _, o in gains if o.named]),
        clear_kept=_still_counted(clear),
        three_kept=Share(sum(o.kept == o.true for o in clear), len(clear)),
        not_made=not_made,
    )


def _counted(pairs: Sequence[tuple[Made, Outcome]]) -> tuple[Share, Share]:
    first, second = (sum(o.counted[n] == o.true for _, o in pairs) for n in (0, 1))
    return Share(first, len(pairs)), Share(second, len(pairs))


def _by_group(pairs: Sequence[tuple[Made, Outcome]]) -> dict[str, tuple[Share, Share]]:
    return {
        group: _counted([t for t in pairs if GROUP_OF[CLASSES[t[0].class_index]] == group])
        for group in DENVER_GROUPS
    }


@dataclass(frozen=True)
class CellScores:
    """How cells are called as a whole; each pair: by box, and by the assignment.

    Attributes:
        named: chromosomes that have a box and are named right.
        gained: cells with a gain whose gained classes all have just their true number.
        called: cells with a gain in which any gain is counted.
        no_false_gain: cells without a gain in which none is counted.
        no_false_loss: the same of losses.
        normal: normal cells called normal.
    """

    named: tuple[Share, Share]
    gained: tuple[Share, Share]
    called: tuple[Share, Share]
    no_false_gain: tuple[Share, Share]
    no_false_loss: tuple[Share, Share]
    normal: tuple[Share, Share]

    def to_dict(self) -> dict[str, Any]:
        """Returns plain values."""
        return {name: _plain(getattr(self, name)) for name in self.__dataclass_fields__}


def score_cells(cells: Sequence[KnownCell], settings: KaryotypeSettings) -> CellScores:
    """Scores whole cells: gains that are recognized, and gains and losses that are not there."""
    hits: dict[str, list[tuple[bool, bool]]] = {name: [] for name in CellScores.__annotations__}
    for cell in cells:
        calibrated = apply_temperature(cell.probabilities, settings.temperature)
        result = assign(calibrated, settings.prior_strength, settings.loss_factor)
        answers = result.by_box, result.assigned
        counts = count_classes(answers[0]), count_classes(answers[1])
        truth = cell.counts
        labels = cell.labels
        for label, *own in zip(labels, *answers, strict=True):
            if label < len(CLASSES):
                hits["named"].append((own[0] == label, own[1] == label))
        missed = len(cell.true_classes) - int((labels < len(CLASSES)).sum())
        hits["named"] += [(False, False)] * missed
        if has_gain(truth):
            right = [count == truth for count in counts]
            more = _gained(truth)
            hits["gained"].append((bool(right[0][more].all()), bool(right[1][more].all())))
            hits["called"].append(_both(counts, has_gain))
        else:
            hits["no_false_gain"].append(_both(counts, lambda c: not has_gain(c)))
        if not has_loss(truth):
            hits["no_false_loss"].append(_both(counts, lambda c: not has_loss(c)))
        if not is_abnormal(truth):
            hits["normal"].append(_both(counts, lambda c: not is_abnormal(c)))
    return CellScores(**{name: _shares(each) for name, each in hits.items()})


Counts = tuple[NDArray[np.int64], NDArray[np.int64]]


def _both(counts: Counts, test: Callable[[NDArray[np.int64]], bool]) -> tuple[bool, bool]:
    return test(counts[0]), test(counts[1])


def _gained(counts: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Returns (24,) which classes a cell with a gain has too many of; of sex chromosomes both."""
    more = counts > 2
    more[X:] = has_gain([2] * X + counts[X:].tolist())
    return more


def _shares(pairs: Sequence[tuple[bool, bool]]) -> tuple[Share, Share]:
    first, second = (sum(pair[n] for pair in pairs) for n in (0, 1))
    return Share(first, len(pairs)), Share(second, len(pairs))


def _plain(value: Any) -> Any:
    """Returns shares, pairs and tables of them as plain values."""
    if isinstance(value, Share):
        return value.to_dict()
    if isinstance(value, tuple):
        by_box, assigned = value
        return {"by_box": _plain(by_box), "assigned": _plain(assigned)}
    if isinstance(value, dict):
        return {name: _plain(each) for name, each in value.items()}
    return value
