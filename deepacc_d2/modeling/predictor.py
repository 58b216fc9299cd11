"""The box predictor: class scores and box deltas of each proposal, and their inference.

Shapes: N proposals of an image, K = 24 foreground classes, background = index K.
"""

from __future__ import annotations

import torch
from detectron2.modeling.roi_heads import FastRCNNOutputLayers
from detectron2.structures import Boxes, Instances
from torch import Tensor

RegionFeatures = Tensor | tuple[Tensor, Tensor]
Predictions = tuple[Tensor, Tensor]


class BoxPredictor(FastRCNNOutputLayers):
    """Detectron2's output layers for a shared or a separated box head.

    Beyond Detectron2's detections, :meth:`proposals` gives all that is said of each proposal, of
    which :mod:`deepacc_d2.detection.select` makes detections; per-class NMS loses which classes
    were one proposal's.
    """

    def forward(self, x: RegionFeatures) -> Predictions:
        """Predicts scores and deltas.

        Args:
            x: region features (N, d) of a shared head, or a pair (classification, regression).

        Returns:
            Logits (N, K+1) and box deltas (N, 4K), both in float32: under bf16 autocast a
            coordinate of 500 pixels would have steps of 2.
        """
        classification, regression = x if isinstance(x, tuple) else (x, x)
        scores = self.cls_score(classification.flatten(start_dim=1))
        deltas = self.bbox_pred(regression.flatten(start_dim=1))
        return scores.float(), deltas.float()

    def best_boxes(self, logits: Tensor, deltas: Tensor, proposals: Tensor) -> Tensor:
        """Returns boxes (N, 4), each regressed for the most probable class of its proposal.

        Args:
            logits: (N, K+1).
            deltas: (N, 4K), or (N, 4) where they are agnostic of classes.
            proposals: (N, 4) XYXY in pixels.
        """
        if deltas.shape[1] > 4:
            best = logits[:, :-1].argmax(dim=1)
            rows = best[:, None, None].expand(-1, 1, 4)
            deltas = deltas.view(-1, self.num_classes, 4).gather(1, rows)[:, 0]
        boxes: Tensor = self.box2box_transform.apply_deltas(deltas, proposals.float())
        return boxes

    @torch.no_grad()
    def proposals(self, predictions: Predictions, proposals: list[Instances]) -> list[Instances]:
        """Returns what is said of each proposal, per image, before any threshold or NMS.

        Returns:
            Instances with ``pred_boxes`` (P, 4), each regressed for the proposal's most probable
            class and clipped to the image, and ``probabilities`` (P, K+1), background last.
        """
        logits, deltas = predictions
        given = torch.cat([p.proposal_boxes.tensor for p in proposals])
        counts = [len(p) for p in proposals]
        boxes = self.best_boxes(logits, deltas, given).split(counts)
        probabilities = logits.float().softmax(dim=1).split(counts)
        return [
            pack_proposals(b, p, x.image_size)
            for b, p, x in zip(boxes, probabilities, proposals, strict=True)
        ]


def pack_proposals(boxes: Tensor, probabilities: Tensor, image_size: tuple[int, int]) -> Instances:
    """Packs boxes (P, 4) XYXY and probabilities (P, K+1) of an image (height, width).

    Boxes are clipped to the image; one that is not finite becomes empty.
    """
    height, width = image_size
    finite = torch.isfinite(boxes).all(dim=1, keepdim=True)
    limits = torch.tensor([width, height, width, height], device=boxes.device)
    result = Instances(image_size)
    placed = torch.where(finite, boxes, 0).float()
    result.pred_boxes = Boxes(placed.clamp(min=0).minimum(limits))
    result.probabilities = probabilities
    return result
