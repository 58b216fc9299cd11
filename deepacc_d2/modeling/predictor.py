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

    Beyond Detectron2's detections, :meth:`top1` gives each proposal's best foreground class, on
    which mAP_max, accuracy and AER are defined; per-class NMS loses which classes were one
    proposal's.
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
    def top1(self, predictions: Predictions, proposals: list[Instances]) -> list[Instances]:
        """Returns, per image, one row per proposal: its best foreground class, before any NMS.

        Proposals whose best foreground score does not exceed the test threshold are left out.

        Returns:
            Instances with ``pred_boxes`` (P, 4), ``scores`` (P,) and ``pred_classes`` (P,).
        """
        boxes = self.predict_boxes(predictions, proposals)
        probabilities = self.predict_probs(predictions, proposals)
        return [
            self._top1_of_image(b, p, x.image_size)
            for b, p, x in zip(boxes, probabilities, proposals, strict=True)
        ]

    def _top1_of_image(
        self, boxes: Tensor, probabilities: Tensor, image_size: tuple[int, int]
    ) -> Instances:
        scores, classes = probabilities[:, :-1].max(dim=1)
        per_class = boxes.view(len(boxes), boxes.shape[1] // 4, 4)
        column = classes if per_class.shape[1] > 1 else torch.zeros_like(classes)
        chosen = per_class[torch.arange(len(boxes), device=boxes.device), column]
        return top1_instances(chosen, scores, classes, image_size, self.test_score_thresh)


def top1_instances(
    boxes: Tensor,
    scores: Tensor,
    classes: Tensor,
    image_size: tuple[int, int],
    score_threshold: float,
) -> Instances:
    """Packs one detection per proposal (or anchor), dropping low and non-finite ones.

    Args:
        boxes: (N, 4) XYXY, pixels of the network's input; clipped to the image.
        scores: (N,) in 0..1.
        classes: (N,) class indices.
        image_size: (height, width) of the network's input.
        score_threshold: rows with a score not above it are left out.
    """
    keep = (scores > score_threshold) & torch.isfinite(boxes).all(dim=1)
    clipped = Boxes(boxes[keep])
    clipped.clip(image_size)
    result = Instances(image_size)
    result.pred_boxes = clipped
    result.scores = scores[keep]
    result.pred_classes = classes[keep]
    return result
