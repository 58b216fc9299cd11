"""Why the chromosomes of one image got their classes: both branches, local centers, features.

Shapes: P rows, one per chromosome shown; K = 24 classes, background = index K; d features; G
ground-truth boxes. Boxes are XYXY in pixels of the original image.
"""

from __future__ import annotations

import numpy as np
import torch
from torchvision.ops import box_iou, nms

from deepacc_d2.cell import LEFT_OUT
from deepacc_d2.chromosomes import NUM_CLASSES
from deepacc_d2.evaluation.boxes import FlatBoxes
from deepacc_d2.evaluation.explain.explanation import (
    BACKGROUND,
    BranchView,
    CenterView,
    Explanation,
)
from deepacc_d2.evaluation.explain.head_outputs import HeadOutput
from deepacc_d2.evaluation.matching import match


def explain(
    heads: HeadOutput,
    kept: np.ndarray,
    gt_boxes: np.ndarray | None = None,
    gt_classes: np.ndarray | None = None,
    *,
    average: tuple[np.ndarray, np.ndarray] | None = None,
    assigned: np.ndarray | None = None,
    confidences: np.ndarray | None = None,
    score_threshold: float = 0.5,
    iou_threshold: float = 0.5,
) -> Explanation:
    """Explains one image from what its heads say.

    Rows are the chromosomes that a detector keeps, and after them the proposals of which only the
    margin branch is sure and that none of these covers: chromosomes that a later stage lost, or
    background that it saw through.

    Args:
        heads: of the image.
        kept: (M,) int64, the proposals that are kept, in the order of the rows.
        gt_boxes: (G, 4) ground truth; None if it is not known.
        gt_classes: (G,) class indices.
        average: boxes (M, 4) and probabilities (M, K + 1) of the kept ones over several looks at
            the image, of which ``heads`` is the first; None where there was only that.
        assigned: (M,) int64, the class by the cell's karyotype, or ``LEFT_OUT`` or
            ``UNIDENTIFIED``; None where there is none.
        confidences: (M,) of ``assigned``.
        score_threshold: least score by the margin branch of a row that is not kept.
        iou_threshold: least IoU with the ground truth, and of two boxes on one chromosome.
    """
    rows, boxes, classes = _rows(heads, np.asarray(kept), average, score_threshold, iou_threshold)
    detected = np.arange(len(rows)) < len(kept)
    result = heads.result[rows]
    if average is not None:
        result[detected] = average[1]
    scores = result[np.arange(len(rows)), classes]
    stages = {name: getattr(heads, name) for name in ("margin", "inference", "context")}
    answers = {name: None if own is None else own[rows] for name, own in stages.items()}
    answers["looks"] = None if average is None else result
    branches: dict[str, BranchView | None] = {}
    for name, answer in answers.items():
        view = None if answer is None else branch_view(answer, score_threshold)
        is_result = name == "looks" or (average is None and stages[name] is heads.result)
        if view is not None and is_result:
            # What is kept has the class of its box, however unsure.
            view = BranchView(
                np.where(detected, classes, view.classes), np.where(detected, scores, view.scores)
            )
        branches[name] = view
    shown, karyotype = classes.copy(), None
    if assigned is not None:
        given = np.full(len(rows), BACKGROUND)
        given[detected] = np.where(assigned == LEFT_OUT, BACKGROUND, assigned)
        sure = np.zeros(len(rows))
        sure[detected] = scores[detected] if confidences is None else confidences
        karyotype = BranchView(given, sure)
        named = (given >= 0) & (given != BACKGROUND)
        shown[named] = given[named]
    rank = np.arange(len(rows), 0, -1.0)
    true_classes = missed = None
    if gt_boxes is not None and gt_classes is not None:
        gt_boxes = np.asarray(gt_boxes, dtype=np.float64).reshape(-1, 4)
        gt_classes = np.asarray(gt_classes, dtype=np.int64)
        matched = match(
            _flat(boxes, rank, shown),
            _flat(gt_boxes, np.ones(len(gt_boxes)), gt_classes),
            iou_threshold,
            same_class=False,
        )
        # Index -1, no match, is the background appended at the end.
        true_classes = np.append(gt_classes, BACKGROUND)[matched]
        missed = ~np.isin(np.arange(len(gt_boxes)), matched[detected])
    local = heads.local_centers
    fitted = heads.features[rows] if len(rows) > 1 else heads.global_centers
    (points, global_points, *rest), variance = project(
        fitted,
        [heads.features[rows], heads.global_centers, *([] if local is None else [local])],
    )
    centers = None
    if local is not None:
        centers = _center_view(
            heads, boxes, gt_boxes, gt_classes, points=rest[0], iou_threshold=iou_threshold
        )
    return Explanation(
        boxes=boxes,
        classes=shown,
        by_box=classes,
        scores=scores,
        detected=detected,
        karyotype=karyotype,
        true_classes=true_classes,
        gt_boxes=gt_boxes,
        gt_classes=gt_classes,
        missed=missed,
        points=points,
        global_points=global_points,
        variance=variance,
        centers=centers,
        **branches,
    )


def branch_view(scores: np.ndarray, score_threshold: float) -> BranchView:
    """Returns a branch's class of each row: the best one, or background where that is likelier.

    A foreground score that reaches the threshold is reported whatever background's is.

    Args:
        scores: (P, C) probabilities, background last.
        score_threshold: see above; of no effect from 0.5 on.
    """
    classes = scores[:, :-1].argmax(axis=1)
    best = scores[np.arange(len(scores)), classes]
    classes = np.where((scores[:, -1] >= best) & (best < score_threshold), BACKGROUND, classes)
    return BranchView(classes, scores[np.arange(len(scores)), classes])


def project(fitted: np.ndarray, groups: list[np.ndarray]) -> tuple[list[np.ndarray], np.ndarray]:
    """Projects vectors on the first two principal components of some of them.

    An axis points to where its largest coefficient is positive: the sign that an SVD returns is
    arbitrary, and a picture drawn twice must not be mirrored.

    Args:
        fitted: (M, d) vectors that the components are of, M >= 1.
        groups: arrays (n, d) to project.

    Returns:
        An array (n, 2) for each group, and the (2,) shares of variance, 0..1.
    """
    mean = fitted.mean(axis=0)
    _, singular, axes = np.linalg.svd(fitted - mean, full_matrices=False)
    plane = np.zeros((2, fitted.shape[1]))
    for axis, row in zip(axes[:2], plane, strict=False):
        row[:] = axis * np.sign(axis[np.abs(axis).argmax()])
    shares = np.zeros(2)
    shares[: len(singular)] = singular[:2] ** 2 / max((singular**2).sum(), 1e-12)
    return [(group - mean) @ plane.T for group in groups], shares


def _rows(
    heads: HeadOutput,
    kept: np.ndarray,
    average: tuple[np.ndarray, np.ndarray] | None,
    score_threshold: float,
    iou_threshold: float,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns the proposals that are rows, their boxes and their classes by themselves: what is
    kept, then what only the margin branch is sure of.
    """
    classes = (heads.result[kept] if average is None else average[1])[:, :-1].argmax(axis=1)
    boxes = heads.boxes[kept, classes] if average is None else average[0].astype(np.float64)
    if heads.margin is None:
        return kept, boxes, classes
    others = np.setdiff1d(np.arange(len(heads.margin)), kept)
    names = heads.margin[others, :-1].argmax(axis=1)
    scores = heads.margin[others, names]
    placed = heads.boxes[others, names]
    usable = np.isfinite(placed).all(axis=1) & (placed[:, 2:] > placed[:, :2]).all(axis=1)
    free = _covered(placed, boxes, iou_threshold) < 0
    left = np.flatnonzero((scores >= score_threshold) & usable & free)
    chosen = nms(torch.from_numpy(placed[left]), torch.from_numpy(scores[left]), iou_threshold)
    left = left[chosen.numpy()]
    return (
        np.concatenate([kept, others[left]]),
        np.concatenate([boxes, placed[left]]),
        np.concatenate([classes, names[left]]),
    )


def _flat(boxes: np.ndarray, scores: np.ndarray, classes: np.ndarray) -> FlatBoxes:
    image = np.zeros(len(boxes), dtype=np.int64)
    return FlatBoxes(image, boxes, scores, classes, np.array([0, len(boxes)]))


def _center_view(
    heads: HeadOutput,
    row_boxes: np.ndarray,
    gt_boxes: np.ndarray | None,
    gt_classes: np.ndarray | None,
    *,
    points: np.ndarray,
    iou_threshold: float,
) -> CenterView:
    assert heads.margin is not None
    assert heads.source is not None
    assert heads.delta is not None

    def places(chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        """Box, row and true class of the proposal chosen for each class, where one is."""
        there = chosen >= 0
        boxes = np.full((NUM_CLASSES, 4), np.nan)
        boxes[there] = heads.boxes[chosen[there], np.flatnonzero(there)]
        rows = np.full(NUM_CLASSES, -1)
        rows[there] = _covered(boxes[there], row_boxes, iou_threshold)
        if gt_boxes is None or gt_classes is None:
            return boxes, rows, None
        true_classes = np.full(NUM_CLASSES, BACKGROUND)
        covered = _covered(heads.proposal_boxes[chosen[there]], gt_boxes, iou_threshold)
        true_classes[there] = np.append(gt_classes, BACKGROUND)[covered]
        return boxes, rows, true_classes

    partner = np.full(NUM_CLASSES, -1) if heads.partner is None else heads.partner
    boxes, rows, true_classes = places(heads.source)
    partner_boxes, partner_rows, partner_classes = places(partner)
    best = heads.margin[:, :-1].max(axis=0, initial=0.0)
    return CenterView(
        source=heads.source,
        scores=best,
        boxes=boxes,
        rows=rows,
        true_classes=true_classes,
        points=points,
        delta=heads.delta,
        partner=partner,
        partner_boxes=partner_boxes,
        partner_rows=partner_rows,
        partner_classes=partner_classes,
    )


def _covered(boxes: np.ndarray, others: np.ndarray, iou_threshold: float) -> np.ndarray:
    """Returns, for each box (n, 4), the other box (m, 4) of highest IoU >= threshold, or -1."""
    if not len(boxes) or not len(others):
        return np.full(len(boxes), -1)
    iou = box_iou(torch.from_numpy(boxes), torch.from_numpy(others)).numpy()
    best = iou.argmax(axis=1)
    return np.where(iou[np.arange(len(boxes)), best] >= iou_threshold, best, -1)
