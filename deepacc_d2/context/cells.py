"""The boxes that a detector keeps of a cell, as cell context sees them, with their true classes.

Shapes: N boxes of a cell, C = K + 1 classes of which the last is background, d features.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from deepacc_d2.errors import ConfigError
from deepacc_d2.karyotype.known import box_labels
from deepacc_d2.modeling import CellContext, ChromosomeRCNN, DeepACCPredictor
from deepacc_d2.modeling.cell_context import box_shapes, evidence


@dataclass(frozen=True)
class ContextCell:
    """What a detector kept of one cell.

    Attributes:
        known: (N, d + 1 + 2 C) float16, of :func:`deepacc_d2.modeling.cell_context.evidence`.
        shapes: (N, 3) float32, of :func:`deepacc_d2.modeling.cell_context.box_shapes`.
        labels: (N,) int64 true classes, K for a box on no chromosome.
        image_id: of its image.
        case_id: of its case; empty where it is not known.
    """

    known: Tensor
    shapes: Tensor
    labels: Tensor
    image_id: int
    case_id: str = ""

    def __len__(self) -> int:
        return len(self.labels)


def check_predictor(model: nn.Module) -> DeepACCPredictor:
    """Returns the predictor that context can be added to.

    Raises:
        ConfigError: it is of another kind.
    """
    predictor = getattr(getattr(model, "roi_heads", None), "box_predictor", None)
    if not isinstance(model, ChromosomeRCNN) or not isinstance(predictor, DeepACCPredictor):
        raise ConfigError(
            "context is added to a DeepACC detector (aam, siamese, ..., deepacc): this checkpoint "
            f"is of a {type(model).__name__} with a {type(predictor).__name__}"
        )
    return predictor


@torch.no_grad()
def read_cells(
    model: ChromosomeRCNN, batch: Sequence[dict[str, Any]], context: CellContext
) -> list[ContextCell]:
    """Runs a detector, without context, and keeps what context would be shown.

    Args:
        model: in evaluation mode.
        batch: inputs as a mapper gives them, with ``instances`` of the truth and ``case_id``.
        context: says which boxes are kept.

    Raises:
        ConfigError: see :func:`check_predictor`.
    """
    predictor = check_predictor(model)
    images = model.preprocess_image(list(batch))
    maps = model.backbone(images.tensor)
    proposals, _ = model.proposal_generator(images, maps, None)
    switched_off, predictor.context = predictor.context, None
    try:
        output = model.roi_heads.predict(maps, proposals)
    finally:
        predictor.context = switched_off
    logits, deltas = output.predictions
    margin = logits if output.margin_logits is None else output.margin_logits
    boxes = predictor.best_boxes(
        logits, deltas, torch.cat([p.proposal_boxes.tensor for p in proposals])
    )
    # Autocast may have left them in less precision.
    parts = (t.float().split(output.counts) for t in (output.features, margin, logits, boxes))
    return [
        _cell(item, context, of_image)
        for item, of_image in zip(batch, zip(*parts, strict=True), strict=True)
    ]


def true_labels(item: dict[str, Any], boxes: Tensor, logits: Tensor) -> Tensor:
    """Returns the true class (N,) of each box that was kept, K for one on no chromosome.

    Args:
        item: input of a mapper, with ``instances`` of the truth.
        boxes: (N, 4) XYXY.
        logits: (N, C) of the result.
    """
    truth = item["instances"]
    labels = box_labels(
        boxes.cpu().numpy(),
        logits.softmax(dim=1).cpu().numpy(),
        truth.gt_boxes.tensor.numpy(),
        truth.gt_classes.numpy(),
    )
    return torch.from_numpy(labels)


def _cell(item: dict[str, Any], context: CellContext, found: tuple[Tensor, ...]) -> ContextCell:
    """Keeps the boxes of one image; ``found``: features, margin logits, logits and boxes."""
    features, margin, logits, boxes = found
    rows = context.keep(boxes, logits)
    return ContextCell(
        known=evidence(features[rows], margin[rows], logits[rows]).half().cpu(),
        shapes=box_shapes(boxes[rows]).cpu(),
        labels=true_labels(item, boxes[rows], logits[rows]),
        image_id=int(item["image_id"]),
        case_id=str(item.get("case_id") or ""),
    )
