"""Everything shown of a cell, computed from its state by the same rules as in prediction.

A chromosome whose class a person gave, or vouched for by confirming the cell, is certain: its
probabilities are 1 for that class, and the answer of the box by itself is the same. Others keep
what the program said of them, so that correcting one chromosome changes no other one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepacc_d2.cell import (
    DERIVATIVE,
    FIT,
    LEFT_OUT,
    MARKER,
    UNFIT,
    UNIDENTIFIED,
    Cell,
    Chromosome,
    Mask,
)
from deepacc_d2.chromosomes import NUM_CLASSES
from deepacc_d2.errors import DataError
from deepacc_d2.karyotype.assignment import Assignment, Change, by_box_classes
from deepacc_d2.karyotype.confidence import cell_confidence, cell_doubts, log_product
from deepacc_d2.karyotype.counts import count_classes
from deepacc_d2.karyotype.fitness import Showing, unfit_reasons
from deepacc_d2.karyotype.iscn import format_karyotype
from deepacc_d2.karyotype.review import cell_flags, chromosome_flags
from deepacc_d2.karyotype.settings import KaryotypeSettings
from deepacc_d2.review.state import CellState, ReviewedChromosome


@dataclass(frozen=True)
class Rules:
    """What the job that predicted went by.

    Attributes:
        karyotype: thresholds and weights.
        chromosome_size: of training in network pixels; None if the job does not say.
        spread_sought: whether the view looked for a spread.
    """

    karyotype: KaryotypeSettings
    chromosome_size: float | None = None
    spread_sought: bool = True

    @classmethod
    def of_job(cls, job: Mapping[str, Any]) -> Rules:
        """Reads them from the content of ``job.json``.

        Raises:
            DataError: its settings are of another version.
        """
        settings = job.get("settings")
        if not isinstance(settings, Mapping):
            raise DataError("job.json has no settings: predict the images again")
        view = settings.get("view") or {}
        return cls(
            KaryotypeSettings.from_dict(settings.get("karyotype") or {}),
            view.get("chromosome_size"),
            bool(view.get("normalize", True)),
        )


@dataclass(frozen=True, eq=False)
class Recount:
    """A cell recomputed.

    Attributes:
        cell: as ``make predict`` would write it.
        ids: of ``cell.chromosomes``, in their order.
        markers: chromosomes of no class that a person called markers.
        derivatives: (24,) chromosomes of each class that a person called derivatives.
    """

    cell: Cell
    ids: tuple[int, ...]
    markers: int
    derivatives: NDArray[np.int64]


def recount(state: CellState, rules: Rules) -> Recount:
    """Computes a cell from its state; without events in force it is the prediction itself."""
    if not state.edits:
        numbers = tuple(c.id for c in state.chromosomes)
        return Recount(state.prediction, numbers, 0, np.zeros(NUM_CLASSES, np.int64))
    pieces = state.chromosomes
    boxes = np.array([c.box for c in pieces], dtype=np.float64).reshape(-1, 4)
    probabilities = np.array([_probabilities(state, c) for c in pieces], dtype=np.float64).reshape(
        -1, NUM_CLASSES + 1
    )
    assigned = np.array([c.assigned for c in pieces], dtype=np.int64)
    found = _assignment(state, probabilities, assigned, rules.karyotype)
    labels = _labels(state, probabilities)
    shown = np.where(assigned >= 0, assigned, labels)
    sure = np.array([certain(state, c) for c in pieces], dtype=bool)
    confidences = np.where(sure, 1.0, probabilities[np.arange(len(pieces)), shown])
    flags = chromosome_flags(boxes, found, confidences, rules.karyotype)
    markers = sum(c.marker for c in pieces)
    derivatives = count_classes(np.array([c.assigned for c in pieces if c.derivative], np.int64))
    # A person's "cannot be identified" is as certain as a class.
    held = probabilities.copy()
    held[sure & (assigned == UNIDENTIFIED)] = 0.0
    held[sure & (assigned == UNIDENTIFIED), shown[sure & (assigned == UNIDENTIFIED)]] = 1.0
    confidence = _confidence(held, found, rules.karyotype)
    reasons = _reasons(state, boxes, assigned, confidences, rules)
    chromosomes = [
        (
            Chromosome(
                box=c.box,
                probabilities=probabilities[n],
                label=int(labels[n]),
                assigned=c.assigned,
                confidence=float(confidences[n]),
                flags=(*flags[n], *_flags_by_person(c)),
                mask=_mask(state, c),
            ),
            c.id,
        )
        for n, c in enumerate(pieces)
    ]
    chromosomes.sort(key=lambda each: (not each[0].placed, each[0].assigned, each[0].box[0]))
    unclear = int((assigned == UNIDENTIFIED).sum()) - markers
    karyotype = format_karyotype(
        count_classes(assigned), unclear, markers=markers, derivatives=derivatives
    )
    cell = replace(
        state.prediction,
        chromosomes=[c for c, _ in chromosomes],
        karyotype="" if reasons else karyotype,
        karyotype_by_box="" if reasons else _by_box(found.by_box),
        confidence=confidence,
        flags=cell_flags(found, confidences, flags, confidence, rules.karyotype),
        status=UNFIT if reasons else FIT,
        reasons=reasons,
        draft=karyotype if reasons else "",
    )
    return Recount(cell, tuple(number for _, number in chromosomes), markers, derivatives)


def _flags_by_person(own: ReviewedChromosome) -> tuple[str, ...]:
    named = ((MARKER, own.marker), (DERIVATIVE, own.derivative))
    return tuple(flag for flag, there in named if there)


def _mask(state: CellState, own: ReviewedChromosome) -> Mask | None:
    """Returns the predicted mask of a chromosome, as long as no person gave box or outline."""
    if own.predicted is None or own.moved or own.outline:
        return None
    return state.prediction.chromosomes[own.predicted].mask


def _by_box(by_box: NDArray[np.int64]) -> str:
    # Readers of a record parse this one: it has no +mar, which they do not know.
    unidentified = int((by_box == UNIDENTIFIED).sum())
    return format_karyotype(count_classes(by_box), unidentified)


def certain(state: CellState, chromosome: ReviewedChromosome) -> bool:
    """Whether a person vouches for a chromosome's class."""
    return chromosome.by_person or state.checked


def _probabilities(state: CellState, chromosome: ReviewedChromosome) -> NDArray[np.float64]:
    """Returns (25,) of a chromosome: of the program, or all on what a person says."""
    told = None
    if chromosome.predicted is not None:
        told = np.asarray(state.prediction.chromosomes[chromosome.predicted].probabilities)
    if told is not None and not certain(state, chromosome):
        return told
    own = np.zeros(NUM_CLASSES + 1)
    if chromosome.assigned >= 0:
        own[chromosome.assigned] = 1.0
    elif chromosome.assigned == LEFT_OUT:
        own[NUM_CLASSES] = 1.0
    else:
        own[:NUM_CLASSES] = 1 / NUM_CLASSES
    return own


def _labels(state: CellState, probabilities: NDArray[np.float64]) -> NDArray[np.int64]:
    """Returns (N,) the most probable class of each, the program's where a person gave none."""
    labels = probabilities[:, :NUM_CLASSES].argmax(axis=1).astype(np.int64)
    for n, chromosome in enumerate(state.chromosomes):
        if chromosome.assigned < 0 and chromosome.predicted is not None:
            labels[n] = state.prediction.chromosomes[chromosome.predicted].label
    return labels


def _assignment(
    state: CellState,
    probabilities: NDArray[np.float64],
    assigned: NDArray[np.int64],
    settings: KaryotypeSettings,
) -> Assignment:
    """Returns both answers as flags and confidence need them; no new assignment is sought."""
    classes = probabilities[:, :NUM_CLASSES]
    unclear = classes.max(axis=1, initial=0.0) < settings.unidentified * classes.sum(axis=1)
    by_box = by_box_classes(probabilities)
    by_box = np.where(unclear & (by_box != LEFT_OUT), UNIDENTIFIED, by_box)
    sure = np.array([certain(state, c) for c in state.chromosomes], dtype=bool)
    by_box = np.where(sure, assigned, by_box).astype(np.int64)
    changes = tuple(
        Change(int(n), int(by_box[n]), int(assigned[n]), 0.0)
        for n in np.flatnonzero(by_box != assigned)
    )
    return Assignment(assigned, by_box, 0.0, changes, (2, 0))


def _confidence(
    probabilities: NDArray[np.float64], found: Assignment, settings: KaryotypeSettings
) -> float:
    if not (found.assigned != LEFT_OUT).any():
        return 0.0
    doubts = cell_doubts(probabilities, found.assigned, len(found.changes), settings)
    return cell_confidence(doubts, log_product(probabilities, found.assigned), settings)


def _reasons(
    state: CellState,
    boxes: NDArray[np.float64],
    assigned: NDArray[np.int64],
    confidences: NDArray[np.float64],
    rules: Rules,
) -> tuple[str, ...]:
    """Returns why a cell is unfit: what a person says decides."""
    if state.countable is False:
        return (f"not countable: {state.reason}",)
    if state.countable:
        return ()
    view = state.prediction.view
    showing = None
    if rules.chromosome_size and view.get("zoom"):
        spread = bool(view.get("normalized", True)) or not rules.spread_sought
        showing = Showing(float(view["zoom"]), rules.chromosome_size, spread)
    doubtful = confidences < rules.karyotype.low_confidence
    return unfit_reasons(boxes, assigned != LEFT_OUT, doubtful, rules.karyotype, showing)
