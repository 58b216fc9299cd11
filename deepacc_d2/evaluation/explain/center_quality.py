"""Are the local centers right? How often a class has one, and on what chromosome it is.

For each class of an image the margin branch's most confident proposal is the candidate; it becomes
the local center if its score is above delta (Luo et al. 2020, Eq. 2). A wrong one makes the
inference branch compare with the wrong chromosome. The best proposal apart from the candidate is
its partner, if its score suffices: with pair centers, the center is made of both.

Shapes: I images, K = 24 classes, D values of delta, G ground-truth boxes of an image. Boxes are
XYXY in pixels of the original image.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from tabulate import tabulate
from torch import nn
from torchvision.ops import box_iou

from deepacc_d2.chromosomes import CLASSES, GROUP_OF, NUM_CLASSES, adjacency_matrix, denver_order
from deepacc_d2.errors import ConfigError, DataError
from deepacc_d2.evaluation.boxes import GroundTruth
from deepacc_d2.evaluation.explain.head_outputs import HeadOutput, read_heads
from deepacc_d2.modeling.local_centers import PARTNER_SCORE, lie_apart

DELTAS: tuple[float, ...] = (0.1, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.99)
OUTCOMES: tuple[str, ...] = ("right", "same_group", "other_group", "nothing")
"""What a center's proposal is on: a chromosome of its class, of its Denver group, of another
group, or none."""

Truth = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True, eq=False)
class CenterQuality:
    """Counts of local centers.

    Attributes:
        deltas: (D,) thresholds.
        outcomes: (D, K, 4) int64, images in which a class has a local center, by
            :data:`OUTCOMES`.
        absent: (D, K) int64, those of these images that hold no chromosome of the class.
        present: (K,) int64, images that hold the class.
        pairs: (D, K) int64, images in which a class's local center has a partner.
        right_partners: (D, K) int64, those of these whose partner is on a chromosome of the
            class.
        num_images: I.
    """

    deltas: np.ndarray
    outcomes: np.ndarray
    absent: np.ndarray
    present: np.ndarray
    pairs: np.ndarray
    right_partners: np.ndarray
    num_images: int

    @property
    def centers(self) -> np.ndarray:
        """(D, K) int64, images in which a class has a local center."""
        return self.outcomes.sum(axis=2)

    @property
    def coverage(self) -> np.ndarray:
        """(D, K) share of all images in which a class has a local center; NaN without images."""
        return _share(self.centers, np.full_like(self.centers, self.num_images))

    @property
    def coverage_present(self) -> np.ndarray:
        """(D, K) the same of the images that hold the class; NaN if none does."""
        return _share(self.centers - self.absent, self.present[None].repeat(len(self.deltas), 0))

    @property
    def precision(self) -> np.ndarray:
        """(D, K) share of local centers on a chromosome of their class; NaN without centers."""
        return _share(self.outcomes[..., 0], self.centers)

    @property
    def paired(self) -> np.ndarray:
        """(D, K) share of local centers that have a partner; NaN without centers."""
        return _share(self.pairs, self.centers)

    @property
    def partner_precision(self) -> np.ndarray:
        """(D, K) share of partners on a chromosome of the class; NaN without partners."""
        return _share(self.right_partners, self.pairs)


def center_candidates(heads: HeadOutput) -> tuple[np.ndarray, np.ndarray]:
    """Returns the best score of each class in one image (K,) and its proposal's box (K, 4).

    Raises:
        ConfigError: the model has no margin branch.
    """
    if heads.margin is None:
        raise ConfigError("this model has no margin branch, so no local centers to judge")
    if not len(heads.margin):
        return np.zeros(NUM_CLASSES), np.zeros((NUM_CLASSES, 4))
    rows = heads.margin[:, :-1].argmax(axis=0)
    return heads.margin[rows, np.arange(NUM_CLASSES)], heads.proposal_boxes[rows]


def partner_candidates(heads: HeadOutput) -> tuple[np.ndarray, np.ndarray]:
    """Returns score (K,) and box (K, 4) of the best proposal apart from each class's candidate.

    The score is 0 where all overlap it. With pair centers it is the partner if its score is above
    :data:`~deepacc_d2.modeling.local_centers.PARTNER_SCORE`.

    Raises:
        ConfigError: the model has no margin branch.
    """
    scores, firsts = center_candidates(heads)
    assert heads.margin is not None
    if not len(heads.margin):
        return scores, firsts
    apart = lie_apart(torch.from_numpy(heads.proposal_boxes), torch.from_numpy(firsts)).numpy()
    left = np.where(apart, heads.margin[:, :-1], 0.0)
    rows = left.argmax(axis=0)
    return left[rows, np.arange(NUM_CLASSES)], heads.proposal_boxes[rows]


def judge_candidates(boxes: np.ndarray, truth: Truth, iou_threshold: float = 0.5) -> np.ndarray:
    """Says what each class's candidate in one image is on.

    A chromosome of the right class counts wherever it overlaps enough, even if another one, which
    touches it, overlaps more; else the one that overlaps most decides.

    Args:
        boxes: (K, 4) proposals.
        truth: boxes (G, 4) and class indices (G,).
        iou_threshold: lowest IoU that counts as on a chromosome.

    Returns:
        (K,) int64 indices into :data:`OUTCOMES`.
    """
    gt_boxes, gt_classes = truth
    result = np.full(len(boxes), OUTCOMES.index("nothing"))
    if not len(gt_boxes):
        return result
    iou = box_iou(
        torch.from_numpy(np.asarray(boxes, dtype=np.float64)),
        torch.from_numpy(np.asarray(gt_boxes, dtype=np.float64)),
    ).numpy()
    classes = np.arange(len(boxes))
    near = iou >= iou_threshold
    same_group = adjacency_matrix()[classes, gt_classes[iou.argmax(axis=1)]]
    result[near.any(axis=1)] = OUTCOMES.index("other_group")
    result[near.any(axis=1) & same_group] = OUTCOMES.index("same_group")
    result[(near & (gt_classes[None] == classes[:, None])).any(axis=1)] = OUTCOMES.index("right")
    return result


def center_quality(
    scores: np.ndarray,
    boxes: np.ndarray,
    truth: Sequence[Truth],
    deltas: Sequence[float] = DELTAS,
    *,
    partners: tuple[np.ndarray, np.ndarray] | None = None,
    iou_threshold: float = 0.5,
) -> CenterQuality:
    """Counts over many images how often classes have local centers, and right ones.

    Args:
        scores: (I, K) best score of each class, of :func:`center_candidates`.
        boxes: (I, K, 4) the proposals of these.
        truth: of each image, boxes (G, 4) and class indices (G,).
        deltas: thresholds; a score has to exceed one.
        partners: scores (I, K) and proposals (I, K, 4) of :func:`partner_candidates`; None counts
            no pairs.
        iou_threshold: lowest IoU that counts as on a chromosome.
    """
    scores = np.asarray(scores, dtype=np.float64).reshape(-1, NUM_CLASSES)
    grid = np.asarray(deltas, dtype=np.float64)
    holds = np.zeros(scores.shape, dtype=bool)
    on = np.zeros((*scores.shape, len(OUTCOMES)), dtype=bool)
    second = np.zeros(scores.shape, dtype=bool)
    second_right = np.zeros(scores.shape, dtype=bool)
    if partners is not None:
        second = np.reshape(partners[0], scores.shape) > PARTNER_SCORE
        for i, (image_boxes, image_truth) in enumerate(zip(partners[1], truth, strict=True)):
            judged = judge_candidates(image_boxes, image_truth, iou_threshold)
            second_right[i] = second[i] & (judged == OUTCOMES.index("right"))
    for i, (image_boxes, image_truth) in enumerate(zip(boxes, truth, strict=True)):
        holds[i, image_truth[1]] = True
        judged = judge_candidates(image_boxes, image_truth, iou_threshold)
        on[i, np.arange(NUM_CLASSES), judged] = True
    local = scores[None] > grid[:, None, None]
    return CenterQuality(
        deltas=grid,
        outcomes=np.einsum("dik,iko->dko", local.astype(np.int64), on.astype(np.int64)),
        absent=(local & ~holds).sum(axis=1),
        present=holds.sum(axis=0),
        pairs=(local & second).sum(axis=1),
        right_partners=(local & second_right).sum(axis=1),
        num_images=len(scores),
    )


def measure_center_quality(
    model: nn.Module,
    batches: Iterable[Sequence[Mapping[str, Any]]],
    coco: Mapping[str, Any],
    deltas: Sequence[float] = DELTAS,
) -> CenterQuality:
    """Runs a detector over batches of inputs, such as a test loader's, and judges its centers.

    Args:
        model: with a margin branch; an inference branch is not needed.
        batches: lists of inputs, each with ``image_id``, in original proportions.
        coco: the ground truth, in original pixels.
        deltas: thresholds.

    Raises:
        ConfigError: the model has no ROI heads or no margin branch.
        DataError: an input that the ground truth does not know.
    """
    gt = GroundTruth.from_coco(coco)
    index = {image_id: i for i, image_id in enumerate(gt.image_ids)}
    scores, boxes, truth = [], [], []
    partner_scores, partner_boxes = [], []
    for batch in batches:
        for item, heads in zip(batch, read_heads(model, batch), strict=True):
            if item["image_id"] not in index:
                raise DataError(f"image {item['image_id']} is not in the ground truth")
            best, proposals = center_candidates(heads)
            scores.append(best)
            boxes.append(proposals)
            second, second_proposals = partner_candidates(heads)
            partner_scores.append(second)
            partner_boxes.append(second_proposals)
            start, stop = gt.boxes.starts[index[item["image_id"]] :][:2]
            truth.append((gt.boxes.boxes[start:stop], gt.boxes.classes[start:stop]))
    return center_quality(
        np.reshape(scores, (-1, NUM_CLASSES)),
        np.reshape(boxes, (-1, NUM_CLASSES, 4)),
        truth,
        deltas,
        partners=(
            np.reshape(partner_scores, (-1, NUM_CLASSES)),
            np.reshape(partner_boxes, (-1, NUM_CLASSES, 4)),
        ),
    )


def format_center_quality(quality: CenterQuality, *, delta: float = 0.5) -> str:
    """Returns two text tables in percent: all classes together by delta, and each class.

    ``coverage`` is over the images that hold a class; ``absent`` counts centers of a class that
    the image has no chromosome of; ``partner right`` is a share of the partners, and the other
    columns are shares of the local centers.

    Args:
        quality: the counts.
        delta: the nearest threshold measured is that of the second table.
    """
    columns = ("coverage", *OUTCOMES, "centers", "absent", "paired", "partner right")
    every = np.arange(NUM_CLASSES)
    overall = [
        [f"{delta:g}", *_cells(quality, number, every)]
        for number, delta in enumerate(quality.deltas)
    ]
    at = int(np.abs(quality.deltas - delta).argmin())
    classes = [
        [GROUP_OF[CLASSES[k]], CLASSES[k], *_cells(quality, at, np.array([k]))]
        for k in denver_order()
    ]
    style: dict[str, Any] = {"disable_numparse": True, "stralign": "right"}
    head = f"local centers in {quality.num_images} images, in percent"
    return "\n\n".join(
        [
            f"{head}\n\n{tabulate(overall, headers=['delta', *columns], **style)}",
            f"delta {quality.deltas[at]:g}\n\n"
            + tabulate(classes, headers=["group", "class", *columns], **style),
        ]
    )


def _cells(quality: CenterQuality, at: int, classes: np.ndarray) -> list[str]:
    """Returns the columns of some classes together, at one delta."""
    outcomes = quality.outcomes[at, classes].sum(axis=0)
    counts = (quality.absent, quality.pairs, quality.right_partners)
    absent, pairs, right = (int(count[at, classes].sum()) for count in counts)
    centers = int(outcomes.sum())
    shares = [_percent(centers - absent, int(quality.present[classes].sum()))]
    shares += [_percent(int(count), centers) for count in outcomes]
    return [*shares, str(centers), str(absent), _percent(pairs, centers), _percent(right, pairs)]


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f}" if whole else "-"


def _share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.where(whole > 0, part / np.maximum(whole, 1), np.nan)
