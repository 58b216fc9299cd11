"""What other local centers would have said: a finished detector with other settings of its centers.

Nothing is trained again, so that the answer is about testing alone; it costs one pass over the
images for all settings together.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn
from torchvision.ops import box_iou

from deepacc_d2.errors import ConfigError
from deepacc_d2.evaluation.boxes import GroundTruth
from deepacc_d2.evaluation.explain.head_outputs import read_heads
from deepacc_d2.method import check_settings

Setting = Mapping[str, Any]
"""Of ``center``, ``center_share`` and ``delta``; what is not named stays as the detector has it."""


def try_settings(
    model: nn.Module,
    batches: Iterable[Sequence[Mapping[str, Any]]],
    coco: Mapping[str, Any],
    settings: Sequence[Setting],
    *,
    score_threshold: float = 0.5,
    iou_threshold: float = 0.5,
) -> pd.DataFrame:
    """Classifies true chromosomes with each setting, by the proposal that overlaps each most.

    Args:
        model: with an inference branch; it is left as it was.
        batches: lists of inputs, each with ``image_id``.
        coco: the ground truth, in original pixels.
        settings: to try.
        score_threshold: of ``sure``.
        iou_threshold: lowest IoU of a proposal that shows a chromosome.

    Returns:
        One row a setting: its three values; ``chromosomes``, those that a proposal shows; the
        share of them in percent whose most probable class, background included, is right
        (``right``), and is right with a score of the threshold or more (``sure``).

    Raises:
        ConfigError: the model has no inference branch, or a setting is impossible.
    """
    predictor: Any = getattr(getattr(model, "roi_heads", None), "box_predictor", None)
    branch = getattr(predictor, "inference_branch", None)
    if branch is None:
        raise ConfigError("this model has no inference branch: take another preset's run")
    variants = []
    for setting in settings:
        check_settings(**setting)
        variant = copy.deepcopy(branch)
        for name, value in setting.items():
            setattr(variant, name, value)
        variants.append(variant)
    gt = GroundTruth.from_coco(coco)
    index = {image_id: i for i, image_id in enumerate(gt.image_ids)}
    seen: list[tuple[Any, ...]] = []
    handle = branch.register_forward_pre_hook(lambda _, inputs: seen.append(inputs))
    total, right, sure = 0, np.zeros(len(variants), int), np.zeros(len(variants), int)
    try:
        for batch in batches:
            seen.clear()
            outputs = read_heads(model, batch)
            with torch.no_grad():
                scores = [variant(*seen[0])[0].softmax(dim=1) for variant in variants]
            start = 0
            for item, heads in zip(batch, outputs, strict=True):
                i = index[item["image_id"]]
                boxes = gt.boxes.boxes[slice(*gt.boxes.starts[i : i + 2])]
                classes = gt.boxes.classes[slice(*gt.boxes.starts[i : i + 2])]
                proposals = torch.from_numpy(heads.proposal_boxes).double()
                best, rows = _best(torch.from_numpy(np.asarray(boxes)).double(), proposals)
                shown = best >= iou_threshold
                rows, labels = rows[shown] + start, torch.from_numpy(classes)[shown]
                total += len(labels)
                for v, score in enumerate(scores):
                    top, named = score[rows].max(dim=1)
                    right[v] += int((named == labels).sum())
                    sure[v] += int(((named == labels) & (top >= score_threshold)).sum())
                start += len(proposals)
    finally:
        handle.remove()
    return pd.DataFrame(
        {
            "center": [v.center for v in variants],
            "center_share": [v.center_share for v in variants],
            "delta": [v.delta for v in variants],
            "chromosomes": total,
            "right": 100 * right / max(total, 1),
            "sure": 100 * sure / max(total, 1),
        }
    )


def _best(boxes: torch.Tensor, proposals: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns the highest IoU of each box, and the proposal that has it."""
    if not len(boxes) or not len(proposals):
        return boxes.new_zeros(len(boxes)), torch.zeros(len(boxes), dtype=torch.long)
    best, rows = box_iou(boxes, proposals).max(dim=1)
    return best, rows
