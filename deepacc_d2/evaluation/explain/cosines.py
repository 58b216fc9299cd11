"""How alike are chromosomes to the network, and to which class centers? Cosines, cell by cell.

DeepACC's local centers rest on a claim (Luo et al. 2020): chromosomes of one cell are more alike
than those of different cells, because cells are stained and spread differently. These functions
test it on any detector with a margin branch.

Shapes: N chromosomes, K = 24 classes, d features, I images.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn
from torchvision.ops import box_iou

from deepacc_d2.chromosomes import CLASSES, GROUP_OF, adjacency_matrix
from deepacc_d2.errors import ConfigError, DataError
from deepacc_d2.evaluation.boxes import GroundTruth
from deepacc_d2.evaluation.explain.head_outputs import read_heads
from deepacc_d2.evaluation.tally import number_cases

RELATIONS = ("same class", "same group", "other group")
PLACES = ("one cell", "one case", "different cases")
_ROWS = 512  # of the matrix of all cosines at a time


@dataclass(frozen=True, eq=False)
class Chromosomes:
    """The chromosomes of a ground truth that some proposal shows.

    Attributes:
        classes: (N,) int64.
        images: (N,) int64, index of the image, in the order of image ids.
        cases: (N,) int64, number of its case (:func:`~deepacc_d2.evaluation.tally.number_cases`).
        boxes: (N, 4) float64, XYXY, the ground truth's, in pixels of the original.
        features: (N, d) float32 unit vectors, of the proposal that overlaps it most.
        learned: (N, K) float32 cosines with the learned class centers.
        local: (N, K) float32 cosines with the centers of its cell; None without an inference
            branch.
        margin: (N,) int64, the class that the margin branch finds most probable.
        inference: (N,) int64, the one of the inference branch; None without it.
        missing: number of chromosomes that no proposal shows.
    """

    classes: np.ndarray
    images: np.ndarray
    cases: np.ndarray
    boxes: np.ndarray
    features: np.ndarray
    learned: np.ndarray
    local: np.ndarray | None
    margin: np.ndarray
    inference: np.ndarray | None
    missing: int


def read_chromosomes(
    model: nn.Module,
    batches: Iterable[Sequence[Mapping[str, Any]]],
    coco: Mapping[str, Any],
    *,
    iou_threshold: float = 0.5,
) -> Chromosomes:
    """Runs a detector over batches of inputs and finds what it makes of each true chromosome.

    Args:
        model: with a margin branch.
        batches: lists of inputs, each with ``image_id``; not all images have to be there.
        coco: the ground truth, in original pixels.
        iou_threshold: lowest IoU of a proposal that shows a chromosome.

    Raises:
        ConfigError: the model has no ROI heads or no margin branch.
        DataError: an input that the ground truth does not know, or no chromosome at all.
    """
    gt, cases = GroundTruth.from_coco(coco), number_cases(coco)
    index = {image_id: i for i, image_id in enumerate(gt.image_ids)}
    parts: dict[str, list[np.ndarray]] = {}
    missing = 0
    for batch in batches:
        for item, heads in zip(batch, read_heads(model, batch), strict=True):
            if heads.margin is None:
                raise ConfigError("this model has no margin branch: take another preset's run")
            if item["image_id"] not in index:
                raise DataError(f"image {item['image_id']} is not in the ground truth")
            i = index[item["image_id"]]
            start, stop = gt.boxes.starts[i : i + 2]
            boxes, classes = gt.boxes.boxes[start:stop], gt.boxes.classes[start:stop]
            iou = box_iou(
                torch.from_numpy(np.asarray(boxes, dtype=np.float64)),
                torch.from_numpy(np.asarray(heads.proposal_boxes, dtype=np.float64)),
            ).numpy()
            shown = (iou >= iou_threshold).any(axis=1)
            rows = iou[shown].argmax(axis=1) if shown.any() else np.zeros(0, dtype=np.int64)
            missing += int((~shown).sum())
            features = heads.features[rows].astype(np.float32)
            found = {
                "classes": classes[shown],
                "images": np.full(len(rows), i),
                "cases": np.full(len(rows), cases[i]),
                "boxes": boxes[shown],
                "features": features,
                "learned": features @ heads.global_centers.T.astype(np.float32),
                "margin": heads.margin[rows, :-1].argmax(axis=1),
            }
            if heads.inference is not None and heads.local_centers is not None:
                found["local"] = features @ heads.local_centers.T.astype(np.float32)
                found["inference"] = heads.inference[rows, :-1].argmax(axis=1)
            for name, values in found.items():
                parts.setdefault(name, []).append(values)
    joined = {name: np.concatenate(values) for name, values in parts.items()}
    if not len(joined.get("classes", ())):
        raise DataError("no proposal shows any chromosome of these images")
    return Chromosomes(
        **{"local": None, "inference": None, **joined},  # type: ignore[arg-type]
        missing=missing,
    )


def pair_cosines(found: Chromosomes) -> pd.DataFrame:
    """Averages the cosines of all pairs of chromosomes.

    Returns:
        Mean cosine by :data:`RELATIONS` (rows) and :data:`PLACES` (columns), NaN without pairs:
        in one cell, in two cells of one case, in cells of different cases.
    """
    near = adjacency_matrix()  # of two different classes of a group
    sums, counts = np.zeros((3, 3)), np.zeros((3, 3))
    n = len(found.classes)
    for start in range(0, n, _ROWS):
        rows = np.arange(start, min(start + _ROWS, n))
        cosines = found.features[rows] @ found.features.T
        same = found.classes[rows, None] == found.classes
        group = near[found.classes[rows, None], found.classes] & ~same
        cell = found.images[rows, None] == found.images
        case = found.cases[rows, None] == found.cases
        later = np.arange(n) > rows[:, None]  # each pair once
        for r, relation in enumerate((same, group, ~same & ~group)):
            for p, place in enumerate((cell, case & ~cell, ~case)):
                chosen = relation & place & later
                sums[r, p] += cosines[chosen].sum(dtype=np.float64)
                counts[r, p] += chosen.sum()
    means = np.divide(sums, counts, out=np.full((3, 3), np.nan), where=counts > 0)
    return pd.DataFrame(means, index=list(RELATIONS), columns=list(PLACES))


def center_cosines(found: Chromosomes) -> pd.DataFrame:
    """Compares each chromosome with the centers, learned ones and those of its cell.

    Returns:
        One row a chromosome: ``class``, ``group``, ``image``, ``case``; for ``learned`` and, where
        there are any, ``local`` centers the cosine with its own class's (``own_...``) and with the
        nearest other one's (``other_...``); whether each branch names it right (``margin_right``,
        ``inference_right``).
    """
    names = [CLASSES[k] for k in found.classes]
    table = pd.DataFrame(
        {
            "class": names,
            "group": [GROUP_OF[name] for name in names],
            "image": found.images,
            "case": found.cases,
        }
    )
    rows = np.arange(len(names))
    for name, cosines in (("learned", found.learned), ("local", found.local)):
        if cosines is None:
            continue
        others = cosines.copy()
        others[rows, found.classes] = -np.inf
        table[f"own_{name}"] = cosines[rows, found.classes]
        table[f"other_{name}"] = others.max(axis=1)
    table["margin_right"] = found.margin == found.classes
    if found.inference is not None:
        table["inference_right"] = found.inference == found.classes
    return table


def staining(gray: np.ndarray, boxes: np.ndarray) -> tuple[float, float]:
    """Measures how dark and how contrasty the chromosomes of an image are.

    Args:
        gray: (H, W) uint8.
        boxes: (n, 4) XYXY, of at least one chromosome.

    Returns:
        Median over the boxes of the darkest quarter's mean gray, and of the gray values' standard
        deviation in the darker half (the bands).
    """
    values = []
    height, width = gray.shape
    for x1, y1, x2, y2 in np.asarray(boxes, dtype=np.float64):
        left, top = min(max(int(x1), 0), width - 1), min(max(int(y1), 0), height - 1)
        part = np.sort(gray[top : max(int(y2), top + 1), left : max(int(x2), left + 1)], axis=None)
        dark = part[: max(len(part) // 4, 1)]
        bands = part[: max(len(part) // 2, 1)]
        values.append((dark.mean(), bands.std()))
    dark_gray, contrast = np.median(values, axis=0)
    return float(dark_gray), float(contrast)


def distance_from_average(stains: np.ndarray, reference: np.ndarray | None = None) -> np.ndarray:
    """Returns (I,): how many standard deviations images are from the average, over all measures.

    Args:
        stains: (I, M), such as of :func:`staining`.
        reference: (J, M) of the images that average and spread are taken from; by default these.
    """
    base = stains if reference is None else reference
    spread = base.std(axis=0)
    z = (stains - base.mean(axis=0)) / np.where(spread > 0, spread, 1)
    return np.sqrt(np.mean(z**2, axis=1))


def mean_by_case(
    values: np.ndarray, cases: np.ndarray, *, resamples: int = 2000, seed: int = 0
) -> tuple[float, float, float]:
    """Averages over chromosomes, with a bootstrap that draws whole cases.

    Args:
        values: (N,) of each chromosome.
        cases: (N,) number of its case.
        resamples: of the cases.
        seed: of the resamples.

    Returns:
        The mean, and the ends of its 95 % percentile interval; NaN without chromosomes.
    """
    if not len(values):
        return (np.nan, np.nan, np.nan)
    _, index = np.unique(cases, return_inverse=True)
    sums, counts = np.bincount(index, weights=values), np.bincount(index)
    drawn = np.random.default_rng(seed).multinomial(
        len(sums), np.full(len(sums), 1 / len(sums)), size=resamples
    )
    means = (drawn @ sums) / (drawn @ counts)
    low, high = np.percentile(means, [2.5, 97.5])
    return float(np.mean(values)), float(low), float(high)
