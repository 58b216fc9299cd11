"""How right interpreted cells are: by each box itself, and by the consistent assignment."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepacc_d2.cell import LEFT_OUT, UNIDENTIFIED
from deepacc_d2.chromosomes import CLASSES
from deepacc_d2.evaluation.metrics import compute_metrics
from deepacc_d2.evaluation.types import ImagePrediction, Metrics
from deepacc_d2.karyotype.calibration import Reliability, apply_temperature, reliability
from deepacc_d2.karyotype.confidence import ranking_area, tied_share
from deepacc_d2.karyotype.counts import is_abnormal
from deepacc_d2.karyotype.fit import KnownCell
from deepacc_d2.karyotype.interpret import Interpretation, interpret
from deepacc_d2.karyotype.settings import KaryotypeSettings
from deepacc_d2.karyotype.share import Share

__all__ = ["ANSWERS", "Evaluation", "Scores", "Share", "evaluate_cells", "settings_record"]

ANSWERS = ("by_box", "assigned")
_CELL_SHARES = ("unfit", "unfit_right", "unidentified", "right_total")


@dataclass(frozen=True)
class Scores:
    """How right one answer is on C cells.

    Attributes:
        acc, aer, precision, recall, wcr: as in :func:`compute_metrics`, in percent; ``wcr`` are
            cells with each box right.
        exact_counts: cells with the right number of each class.
        sensitivity: abnormal cells (true counts neither 46,XX nor 46,XY) called abnormal.
        specificity: normal cells called normal.
        exact_abnormal: abnormal cells with the right number of each class.
        recorded: cells recorded as numerically abnormal by the data set that are called abnormal.
        too_many, too_few: (24,) copies of each class counted beyond, and short of, the true ones.
    """

    acc: float
    aer: float
    precision: float
    recall: float
    wcr: float
    exact_counts: Share
    sensitivity: Share
    specificity: Share
    exact_abnormal: Share
    recorded: Share
    too_many: NDArray[np.int64]
    too_few: NDArray[np.int64]

    def to_dict(self) -> dict[str, Any]:
        """Returns plain values, None for NaN."""
        result: dict[str, Any] = {}
        for name in self.__dataclass_fields__:
            value = getattr(self, name)
            if isinstance(value, Share):
                result[name] = value.to_dict()
            elif isinstance(value, float):
                result[name] = None if math.isnan(value) else value
            else:
                result[name] = dict(zip(CLASSES, value.tolist(), strict=True))
        return result


@dataclass(frozen=True)
class Evaluation:
    """What settings give on cells with known truth.

    Attributes:
        scores: by answer of :data:`ANSWERS`.
        before: reliability of each box's most probable of 25, as the network gives it.
        after: the same at the fitted temperature.
        cells: reliability of the cells' confidence.
        ranking: area under the ROC curve of the cells' confidence, for all counts right; 0.5 is
            chance, NaN if all are right or none.
        tied: share of the cells whose confidence another cell has too.
        unfit: cells that would get no karyotype, judged by their boxes alone.
        unfit_right: of these the ones with all counts right: false alarms.
        unidentified: boxes that are counted, but whose class could not be determined.
        right_total: cells with the right number of chromosomes, unidentified ones included.
        changed: boxes that the assignment changed.
        corrected: of these wrong before and right after.
        spoilt: of these right before and wrong after.
        boxes: of all cells.
    """

    scores: dict[str, Scores]
    before: Reliability
    after: Reliability
    cells: Reliability
    ranking: float
    tied: float
    unfit: Share
    unfit_right: Share
    unidentified: Share
    right_total: Share
    changed: int
    corrected: int
    spoilt: int
    boxes: int

    def to_dict(self) -> dict[str, Any]:
        """Returns plain values."""
        plain = {name: getattr(self, name) for name in ("changed", "corrected", "spoilt", "boxes")}
        tables = {name: getattr(self, name).to_dict() for name in ("before", "after", "cells")}
        return {
            "scores": {name: scores.to_dict() for name, scores in self.scores.items()},
            **{f"reliability_{name}": table for name, table in tables.items()},
            "ranking": None if math.isnan(self.ranking) else self.ranking,
            "tied": None if math.isnan(self.tied) else self.tied,
            **{name: getattr(self, name).to_dict() for name in _CELL_SHARES},
            **plain,
        }


def evaluate_cells(
    cells: Sequence[KnownCell],
    coco: Mapping[str, Any],
    image_ids: Sequence[int],
    settings: KaryotypeSettings,
) -> Evaluation:
    """Evaluates settings on cells.

    Args:
        cells: detections and truth of C images.
        coco: ground truth of just these images; ``abnormality`` of an image counts where it is of
            kind ``number``.
        image_ids: (C,) of the cells in ``coco``.
        settings: to evaluate.

    Raises:
        DataError: see :func:`compute_metrics`.
    """
    found = [interpret(cell.boxes, cell.probabilities, settings) for cell in cells]
    recorded = {
        int(image["id"])
        for image in coco["images"]
        if (image.get("abnormality") or {}).get("kind") == "number"
    }
    numeric = np.array([int(i) in recorded for i in image_ids], dtype=bool)
    scores = {}
    for answer in ANSWERS:
        classes = [answered(result, answer) for result in found]
        metrics = _metrics(cells, coco, image_ids, found=found, classes=classes)
        scores[answer] = _score(cells, classes, metrics, numeric)
    labels = np.concatenate([cell.labels for cell in cells]) if cells else np.zeros(0, dtype=int)
    truth = np.where(labels == len(CLASSES), -1, labels)
    own, after = (
        np.concatenate([answered(result, answer) for result in found]) if found else truth
        for answer in ANSWERS
    )
    raw = [apply_temperature(cell.probabilities, 1.0) for cell in cells]
    sure = [result.confidence for result in found]
    right = [bool((r.counts == c.counts).all()) for r, c in zip(found, cells, strict=True)]
    unfit = np.array([bool(result.reasons) for result in found], dtype=bool)
    totals = [int((result.assigned != LEFT_OUT).sum()) for result in found]
    return Evaluation(
        scores=scores,
        before=_box_reliability(raw, labels),
        after=_box_reliability([result.probabilities for result in found], labels),
        cells=reliability(sure, right, bins=10),
        ranking=ranking_area(sure, right),
        tied=tied_share(sure),
        unfit=_share(unfit),
        unfit_right=_share(np.array(right, dtype=bool)[unfit]),
        unidentified=_share(after == UNIDENTIFIED),
        right_total=_share(
            np.array([n == len(c.true_classes) for n, c in zip(totals, cells, strict=True)])
        ),
        changed=int((own != after).sum()),
        corrected=int(((own != truth) & (after == truth)).sum()),
        spoilt=int(((own == truth) & (after != truth)).sum()),
        boxes=len(labels),
    )


def answered(result: Interpretation, answer: str) -> NDArray[np.int64]:
    """Returns the class (N,) of each box by an answer, below 0 for none."""
    if answer == "assigned":
        return result.assigned
    own = result.assigned.copy()
    for change in result.changes:
        own[change.index] = change.before
    return own


def _box_reliability(
    probabilities: Sequence[NDArray[np.float64]], labels: NDArray[np.int64]
) -> Reliability:
    filled = [p for p in probabilities if len(p)]
    if not filled:
        return reliability([], [])
    p = np.concatenate(filled)
    return reliability(np.minimum(p.max(axis=1), 1.0), p.argmax(axis=1) == labels)


def _metrics(
    cells: Sequence[KnownCell],
    coco: Mapping[str, Any],
    image_ids: Sequence[int],
    *,
    found: Sequence[Interpretation],
    classes: Sequence[NDArray[np.int64]],
) -> Metrics:
    predictions = []
    for image_id, cell, result, own in zip(image_ids, cells, found, classes, strict=True):
        kept = own >= 0
        sure = 1.0 - result.probabilities[kept, -1]
        box = cell.boxes[kept]
        predictions.append(ImagePrediction(image_id, box, sure, own[kept], box, sure, own[kept]))
    # The boxes are chosen already: none is to be dropped for its score or its neighbors.
    return compute_metrics(coco, predictions, score_threshold=0.0, agnostic_nms=1.0)


def _score(
    cells: Sequence[KnownCell],
    classes: Sequence[NDArray[np.int64]],
    metrics: Metrics,
    recorded: NDArray[np.bool_],
) -> Scores:
    counts = np.array([np.bincount(own[own >= 0], minlength=24) for own in classes]).reshape(-1, 24)
    truth = np.array([cell.counts for cell in cells]).reshape(-1, 24)
    exact = (counts == truth).all(axis=1)
    abnormal = np.array([is_abnormal(row) for row in truth], dtype=bool)
    called = np.array([is_abnormal(row) for row in counts], dtype=bool)
    off = counts - truth
    return Scores(
        **{name: getattr(metrics, name) for name in ("acc", "aer", "precision", "recall", "wcr")},
        exact_counts=_share(exact),
        sensitivity=_share(called[abnormal]),
        specificity=_share(~called[~abnormal]),
        exact_abnormal=_share(exact[abnormal]),
        recorded=_share(called[recorded]),
        too_many=np.maximum(off, 0).sum(axis=0),
        too_few=np.maximum(-off, 0).sum(axis=0),
    )


def _share(hits: NDArray[np.bool_]) -> Share:
    return Share(int(hits.sum()), len(hits))


def settings_record(settings: KaryotypeSettings, strengths: Sequence[Any]) -> dict[str, Any]:
    """Returns what ``calibration.json`` holds: the settings, and what each strength gave."""
    return {"karyotype": settings.to_dict(), "strengths": [asdict(each) for each in strengths]}
