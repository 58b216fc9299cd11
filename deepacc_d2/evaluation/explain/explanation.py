"""What an explanation of one image holds, and its forms for a file and for the terminal.

Shapes: P rows, one per chromosome shown; K = 24 classes, background = index K; G ground-truth
boxes. Boxes are XYXY in pixels of the original image.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, SupportsIndex

import numpy as np
from tabulate import tabulate

from deepacc_d2.cell import UNIDENTIFIED
from deepacc_d2.chromosomes import CLASSES, GROUP_OF, NUM_CLASSES, denver_order

BACKGROUND = NUM_CLASSES
"""Index of "no chromosome", as predicted and as true class."""

LATER_STAGES = {
    "context": "the cell's context",
    "looks": "the average of all looks",
    "karyotype": "the karyotype",
}

RESCUED, BROKEN, ALL_WRONG, UNKNOWN = "rescued", "broken", "all wrong", "truth unknown"


@dataclass(frozen=True, eq=False)
class BranchView:
    """What one stage says of each row: class (P,) int64, K for background, ``UNIDENTIFIED`` for a
    chromosome of no clear class, and its score (P,).
    """

    classes: np.ndarray
    scores: np.ndarray


@dataclass(frozen=True, eq=False)
class CenterView:
    """The local centers of an image, one row per class.

    Attributes:
        source: (K,) int64, the proposal that is the center; -1 where the global one stands in.
        scores: (K,) the margin branch's best score for the class, whether it suffices or not.
        boxes: (K, 4) refined box of that proposal; NaN where the global center stands in.
        rows: (K,) int64, the row of the explanation that the box covers (IoU >= 0.5), or -1.
        true_classes: (K,) int64, class of the chromosome that the proposal is on, background
            if on none; None without ground truth. Not meaningful where the center is global.
        points: (K, 2) its place in the projection.
        delta: score above which a proposal becomes a center.
        partner: (K,) int64, the second proposal of a pair; -1 where there is none.
        partner_boxes: (K, 4) refined box of that; NaN where there is none.
        partner_rows: (K,) int64, as ``rows``.
        partner_classes: (K,) int64, as ``true_classes``.
    """

    source: np.ndarray
    scores: np.ndarray
    boxes: np.ndarray
    rows: np.ndarray
    true_classes: np.ndarray | None
    points: np.ndarray
    delta: float
    partner: np.ndarray
    partner_boxes: np.ndarray
    partner_rows: np.ndarray
    partner_classes: np.ndarray | None

    @property
    def local(self) -> np.ndarray:
        """(K,) bool, which classes have a local center."""
        return self.source >= 0

    @property
    def wrong(self) -> np.ndarray:
        """(K,) bool, local centers not on a chromosome of their class; false if unknown."""
        if self.true_classes is None:
            return np.zeros(len(self.source), dtype=bool)
        return self.local & (self.true_classes != np.arange(len(self.source)))

    @property
    def paired(self) -> np.ndarray:
        """(K,) bool, which local centers are of a pair."""
        return self.partner >= 0

    @property
    def wrong_partner(self) -> np.ndarray:
        """(K,) bool, partners not on a chromosome of the class; false if unknown."""
        if self.partner_classes is None:
            return np.zeros(len(self.partner), dtype=bool)
        return self.paired & (self.partner_classes != np.arange(len(self.partner)))


@dataclass(frozen=True, eq=False)
class Explanation:
    """One image as the branches see it.

    Which proposals are rows: :func:`deepacc_d2.evaluation.explain.analysis.explain`.

    Attributes:
        boxes: (P, 4) float64.
        classes: (P,) int64, the final class: by the karyotype where that has one, else by
            the box itself.
        by_box: (P,) int64, the class of the box by itself.
        scores: (P,) the score of ``by_box``.
        detected: (P,) bool, whether it is a detection; the other rows are what only the margin
            branch was sure of.
        margin: the margin branch; None if the preset has none.
        inference: the inference branch; None if the preset has none.
        context: the boxes after the cell's context; None if the model has none.
        looks: the average of several looks at the image; None if there was only one.
        karyotype: the cell's assignment; None if none was made.
        true_classes: (P,) int64, class of the chromosome matched one to one at IoU >= 0.5,
            background without one; None if the truth is not known.
        gt_boxes: (G, 4), or None.
        gt_classes: (G,) int64, or None.
        missed: (G,) bool, ground truth that no detected row matches, or None.
        points: (P, 2) features in the plane.
        global_points: (K, 2) global centers in the same plane.
        variance: (2,) share of the features' variance along each axis, 0..1.
        centers: the local centers; None without an inference branch.
    """

    boxes: np.ndarray
    classes: np.ndarray
    by_box: np.ndarray
    scores: np.ndarray
    detected: np.ndarray
    margin: BranchView | None
    inference: BranchView | None
    context: BranchView | None
    looks: BranchView | None
    karyotype: BranchView | None
    true_classes: np.ndarray | None
    gt_boxes: np.ndarray | None
    gt_classes: np.ndarray | None
    missed: np.ndarray | None
    points: np.ndarray
    global_points: np.ndarray
    variance: np.ndarray
    centers: CenterView | None

    def __len__(self) -> int:
        return len(self.boxes)

    @property
    def stages(self) -> dict[str, BranchView]:
        """What each stage says, by its name, in the order in which they follow each other."""
        branches = ("margin", "inference", "context")
        stages = {name: view for name in branches if (view := getattr(self, name)) is not None}
        if not stages and self.looks is None:
            stages["classifier"] = BranchView(self.by_box, self.scores)
        if self.looks is not None:
            stages["looks"] = self.looks
        return stages if self.karyotype is None else {**stages, "karyotype": self.karyotype}

    @property
    def differs(self) -> np.ndarray:
        """(P,) bool, where two stages name different classes."""
        classes = np.array([view.classes for view in self.stages.values()])
        differ: np.ndarray = (classes != classes[0]).any(axis=0)
        return differ

    def path(self, row: SupportsIndex) -> list[str]:
        """Returns the classes that a row gets from stage to stage, each change once."""
        names = [class_name(view.classes[row]) for view in self.stages.values()]
        return [name for n, name in enumerate(names) if n == 0 or name != names[n - 1]]

    def changed_by(self, stage: str) -> np.ndarray:
        """Returns the rows whose class a stage changed."""
        names = list(self.stages)
        if stage not in names[1:]:
            return np.zeros(0, dtype=np.int64)
        before = self.stages[names[names.index(stage) - 1]]
        return np.flatnonzero(self.stages[stage].classes != before.classes)

    def outcome(self, row: SupportsIndex) -> str:
        """Says what the later stages did to a row on which stages differ."""
        if self.true_classes is None:
            return UNKNOWN
        right = [v.classes[row] == self.true_classes[row] for v in self.stages.values()]
        if right[-1]:
            return RESCUED
        return BROKEN if any(right) else ALL_WRONG

    def to_dict(self) -> dict[str, Any]:
        """Returns all of it but the feature vectors as plain values, classes by name."""
        rows = []
        for i in range(len(self)):
            row: dict[str, Any] = {
                "box": _numbers(self.boxes[i], 2),
                "detected": bool(self.detected[i]),
                "class": self._class_of(i),
                "class_by_box": CLASSES[self.by_box[i]] if self.detected[i] else None,
                "score": round(float(self.scores[i]), 6),
                "point": _numbers(self.points[i], 6),
            }
            for name, stage in self.stages.items():
                row[f"{name}_class"] = class_name(stage.classes[i])
                row[f"{name}_score"] = round(float(stage.scores[i]), 6)
            if self.true_classes is not None:
                row["true_class"] = class_name(self.true_classes[i])
            if self.differs[i]:
                row["outcome"] = self.outcome(i)
            rows.append(row)
        content: dict[str, Any] = {
            "rows": rows,
            "margin_branch": self.margin is not None,
            "inference_branch": self.inference is not None,
            "cell_context": self.context is not None,
            "changed_by": {name: self.changed_by(name).tolist() for name in self.stages},
            "variance": _numbers(self.variance, 6),
            "global_centers": {
                name: {"point": _numbers(self.global_points[k], 6)}
                for k, name in enumerate(CLASSES)
            },
            "delta": None if self.centers is None else self.centers.delta,
            "local_centers": None if self.centers is None else _center_dicts(self.centers),
            "missed": None,
        }
        if self.missed is not None and self.gt_boxes is not None and self.gt_classes is not None:
            content["missed"] = [
                {"box": _numbers(self.gt_boxes[j], 2), "class": CLASSES[self.gt_classes[j]]}
                for j in np.flatnonzero(self.missed)
            ]
        return content

    def _class_of(self, row: int) -> str | None:
        """Returns a row's class as the records of ``make predict`` have it, None for none."""
        last = self.by_box if self.karyotype is None else self.karyotype.classes
        return class_name(last[row]) if self.detected[row] and last[row] != BACKGROUND else None


def class_name(index: SupportsIndex) -> str:
    """Returns the name of a class index, background being "none", no clear class "?"."""
    if index == UNIDENTIFIED:
        return "?"
    return "none" if index == BACKGROUND else CLASSES[index]


def summarize(explanation: Explanation) -> list[str]:
    """Returns lines that say where the stages differ, and which classes have local centers."""
    lines = []
    count = f"{int(explanation.detected.sum())} detections"
    if explanation.missed is not None:
        count += f", {int(explanation.missed.sum())} chromosomes missed"
    if explanation.margin is None:
        count += "; no margin branch in this preset: classes of the plain classifier"
    elif explanation.inference is None:
        count += "; no inference branch in this preset: the margin branch's classes"
    if len(explanation.stages) > 1:
        rows = np.flatnonzero(explanation.differs)
        outcomes = [explanation.outcome(i) for i in rows]
        kinds = [
            f"{outcomes.count(kind)} {kind}"
            for kind in (RESCUED, BROKEN, ALL_WRONG)
            if kind in outcomes
        ]
        count += f"; {', '.join(explanation.stages)} differ on {len(rows)}"
        count += (": " if kinds else "") + ", ".join(kinds)
    lines.append(count)
    for stage, what in LATER_STAGES.items():
        changed = explanation.changed_by(stage)
        if len(changed):
            paths = ", ".join("→".join(explanation.path(i)) for i in changed)
            lines.append(f"{what} changed {len(changed)}: {paths}")
    centers = explanation.centers
    if centers is not None:
        line = f"{int(centers.local.sum())} of {NUM_CLASSES} classes have a local center"
        line += f" (score > {centers.delta:g})"
        if centers.paired.any():
            line += f", {int(centers.paired.sum())} of a pair"
        rest = [CLASSES[k] for k in denver_order() if not centers.local[k]]
        if rest:
            line += f"; the global one serves {', '.join(rest)}"
        lines.append(line)
        for what, wrong, found in (
            ("local centers", centers.wrong, centers.true_classes),
            ("partners", centers.wrong_partner, centers.partner_classes),
        ):
            if found is not None and wrong.any():
                places = [k for k in denver_order() if wrong[k]]
                names = (f"{CLASSES[k]} on {class_name(found[k])}" for k in places)
                lines.append(f"wrong {what}: {', '.join(names)}")
    return lines


def disagreements(explanation: Explanation) -> list[list[str]]:
    """Returns a line for each row on which stages differ, see :func:`disagreement_columns`."""
    lines: list[list[str]] = []
    for i in np.flatnonzero(explanation.differs):
        truth = explanation.true_classes
        lines.append(
            [
                str(len(lines) + 1),
                *(
                    f"{class_name(stage.classes[i])} ({stage.scores[i]:.2f})"
                    for stage in explanation.stages.values()
                ),
                "?" if truth is None else class_name(truth[i]),
                explanation.outcome(i),
            ]
        )
    return lines


def disagreement_columns(explanation: Explanation) -> list[str]:
    """Returns the heads: number, each stage's class with its score, the true class, what the
    later stages did.
    """
    return ["#", *explanation.stages, "true", "outcome"]


def format_explanation(explanation: Explanation) -> str:
    """Returns the summary and the table of disagreements as text."""
    parts = ["\n".join(summarize(explanation))]
    lines = disagreements(explanation)
    if lines:
        parts.append(
            tabulate(lines, headers=disagreement_columns(explanation), disable_numparse=True)
        )
    return "\n\n".join(parts)


def _center_dicts(centers: CenterView) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for k, name in enumerate(CLASSES):
        local = bool(centers.local[k])
        entry: dict[str, Any] = {
            "group": GROUP_OF[name],
            "source": "local" if local else "global",
            "score": round(float(centers.scores[k]), 6),
            "box": _numbers(centers.boxes[k], 2) if local else None,
            "row": int(centers.rows[k]) if centers.rows[k] >= 0 else None,
            "point": _numbers(centers.points[k], 6),
        }
        if centers.true_classes is not None:
            entry["true_class"] = class_name(centers.true_classes[k]) if local else None
        entry["partner"] = _partner_dict(centers, k) if centers.paired[k] else None
        found[name] = entry
    return found


def _partner_dict(centers: CenterView, k: int) -> dict[str, Any]:
    row = int(centers.partner_rows[k])
    box = _numbers(centers.partner_boxes[k], 2)
    entry: dict[str, Any] = {"box": box, "row": row if row >= 0 else None}
    if centers.partner_classes is not None:
        entry["true_class"] = class_name(centers.partner_classes[k])
    return entry


def _numbers(values: np.ndarray, digits: int) -> list[float]:
    return [round(float(value), digits) for value in values]
