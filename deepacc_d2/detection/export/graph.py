"""The detector as one graph of tensor operations that can be traced for any image size.

:class:`~deepacc_d2.detection.network.DetectorCore` cannot be traced as it is: its RoIAlign is
written for PyTorch, and numbers of proposals that Python counts would be frozen. This module
computes the same from the same weights. Shapes: H x W pixels, P proposals, K = 24 classes,
C = K + 1, d features, A anchors a cell.
"""

from __future__ import annotations

from typing import Any

import torch
from detectron2.layers import ROIAlign
from detectron2.modeling.anchor_generator import DefaultAnchorGenerator
from detectron2.modeling.poolers import ROIPooler, assign_boxes_to_levels
from detectron2.modeling.proposal_generator import RPN
from detectron2.structures import Boxes
from torch import Tensor, nn
from torch.nn import functional as F
from torch.onnx.operators import shape_as_tensor
from torchvision.ops import nms, roi_align

from deepacc_d2.chromosomes import NUM_CLASSES
from deepacc_d2.detection.network import DetectorCore
from deepacc_d2.errors import DataError
from deepacc_d2.losses.aam import NORM_EPS
from deepacc_d2.modeling.branches import SiameseInferenceBranch
from deepacc_d2.modeling.deepacc_predictor import DeepACCPredictor
from deepacc_d2.modeling.local_centers import PARTNER_SCORE, lie_apart
from deepacc_d2.modeling.meta_arch import ChromosomeRCNN
from deepacc_d2.modeling.predictor import BoxPredictor
from deepacc_d2.modeling.roi_align import CPUROIAlign


class DetectorGraph(nn.Module):
    """Computes what a :class:`DetectorCore` does, in operations that every runtime has.

    What decides which box is which (top-k, NMS, levels, centers) follows the same rules in the same
    order, so that results differ by rounding alone.
    """

    def __init__(self, core: DetectorCore) -> None:
        """Wraps a core, in float32; the weights are shared.

        Raises:
            DataError: it has a part that no exported graph can express.
        """
        super().__init__()
        model: Any = core.model
        _check(model)
        self.model = model
        self.aligns = nn.ModuleList(
            pooler.align if isinstance(pooler, CPUROIAlign) else pooler
            for pooler in model.roi_heads.box_pooler.level_poolers
        )

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Detects; see :meth:`DetectorCore.forward`."""
        model: Any = self.model
        features = model.backbone((image - model.pixel_mean) / model.pixel_std)
        edges = shape_as_tensor(image)[torch.tensor([3, 2, 3, 2])].float()
        proposals = self._propose(features, edges)
        maps = [features[name] for name in model.roi_heads.box_in_features]
        pooled, order = self._pool(maps, proposals)
        boxes, probabilities = self._classify(pooled, proposals[order])
        inverse = order.argsort()
        boxes = torch.minimum(boxes.clamp(min=0), edges)
        return boxes[inverse], probabilities[inverse]

    def _propose(self, features: dict[str, Tensor], edges: Tensor) -> Tensor:
        """Returns the boxes (P, 4) of the RPN, the surest first, as Detectron2 finds them.

        Only the boxes of the top k anchors of a level are decoded, and each level's NMS is one of
        its own: both give what decoding all, and one NMS over shifted boxes, would give.
        """
        rpn: Any = self.model.proposal_generator
        maps = [features[name] for name in rpn.in_features]
        objectness, deltas = rpn.rpn_head(maps)
        limit, most = int(rpn.post_nms_topk[False]), int(rpn.pre_nms_topk[False])
        anchors = rpn.anchor_generator.forward(maps)
        boxes, scores = [], []
        for o, d, a in zip(objectness, deltas, anchors, strict=True):
            flat = o.permute(0, 2, 3, 1).flatten()
            top, rows = flat.topk(_at_most(flat, most))
            count = o.shape[1]
            offsets = d.view(count, 4, d.shape[-2], d.shape[-1]).permute(2, 3, 0, 1).reshape(-1, 4)
            found = rpn.box2box_transform.apply_deltas(offsets[rows], a.tensor[rows])
            good = torch.isfinite(found).all(dim=1) & torch.isfinite(top)
            found = torch.minimum(found.clamp(min=0), edges)
            extent = found[:, 2:] - found[:, :2]
            good = good & (extent > rpn.min_box_size).all(dim=1)
            found, top = found[good], top[good]
            kept = nms(found, top, rpn.nms_thresh)[:limit]
            boxes.append(found[kept])
            scores.append(top[kept])
        if len(boxes) == 1:
            return boxes[0]
        merged = torch.cat(scores)
        best = merged.topk(_at_most(merged, limit)).indices
        return torch.cat(boxes)[best]

    def _pool(self, maps: list[Tensor], boxes: Tensor) -> tuple[Tensor, Tensor]:
        """Pools boxes (P, 4) level by level.

        Returns:
            Regions (P, c, s, s), those of one level together, and the row (P,) of the box of each.
        """
        pooler: Any = self.model.roi_heads.box_pooler
        rois = torch.cat([torch.zeros_like(boxes[:, :1]), boxes], dim=1)
        if len(self.aligns) == 1:
            rows = [boxes.new_ones(boxes.shape[:1]).nonzero()[:, 0]]
        else:
            levels = assign_boxes_to_levels(
                [Boxes(boxes)],
                pooler.min_level,
                pooler.max_level,
                pooler.canonical_box_size,
                pooler.canonical_level,
            )
            rows = [(levels == n).nonzero()[:, 0] for n in range(len(self.aligns))]
        regions = [
            roi_align(m, rois[r], a.output_size, a.spatial_scale, a.sampling_ratio, a.aligned)
            for m, r, a in zip(maps, rows, self.aligns, strict=True)
        ]
        return torch.cat(regions), torch.cat(rows)

    def _classify(self, pooled: Tensor, proposals: Tensor) -> tuple[Tensor, Tensor]:
        """Returns boxes (P, 4) and probabilities (P, C) of pooled regions."""
        heads: Any = self.model.roi_heads
        predictor = heads.box_predictor
        regions = heads.box_head(pooled)
        x, regression = regions if isinstance(regions, tuple) else (regions, regions)
        x, regression = x.flatten(start_dim=1), regression.flatten(start_dim=1)
        deltas = predictor.bbox_pred(regression)
        margin_logits, logits = self._logits(x, proposals)
        if getattr(predictor, "context", None) is not None:
            placed = predictor.best_boxes(logits, deltas, proposals)
            logits = predictor.context.of_image(x, margin_logits, logits, placed)
        boxes = predictor.best_boxes(logits, deltas, proposals)
        return boxes, logits.softmax(dim=1)

    def _logits(self, x: Tensor, proposals: Tensor) -> tuple[Tensor, Tensor]:
        """Returns logits (P, C) of the margin branch, where it is on, and of the result.

        Args:
            x: features (P, d).
            proposals: (P, 4) XYXY.
        """
        predictor: Any = self.model.roi_heads.box_predictor
        margin_branch = getattr(predictor, "margin_branch", None)
        if margin_branch is None:
            result: Tensor = predictor.cls_score(x)
            return result, result
        logits: Tensor = margin_branch(x)
        if predictor.inference_branch is None:
            return logits, logits
        branch = predictor.inference_branch
        return logits, siamese_logits(branch, x, logits, margin_branch.weight, proposals)


def _at_most(x: Tensor, most: int) -> Any:
    """Returns the length of x (N,), or ``most`` if that is less, as a tensor that is traced."""
    return torch.clamp(shape_as_tensor(x)[0], max=most)


def _check(model: Any) -> None:
    """Refuses a model with parts that the graph does not know.

    Raises:
        DataError: names the part.
    """
    if not isinstance(model, ChromosomeRCNN):
        raise DataError(
            f"a {type(model).__name__} cannot be exported: take a checkpoint of baseline, sep or a "
            "DeepACC preset"
        )
    parts: list[tuple[Any, tuple[type, ...]]] = [
        (model.proposal_generator, (RPN,)),
        (getattr(model.proposal_generator, "anchor_generator", None), (DefaultAnchorGenerator,)),
        (model.roi_heads.box_pooler, (ROIPooler,)),
        (model.roi_heads.box_predictor, (BoxPredictor, DeepACCPredictor)),
        *(
            (getattr(pooler, "align", pooler), (ROIAlign,))
            for pooler in getattr(model.roi_heads.box_pooler, "level_poolers", ())
        ),
    ]
    for part, known in parts:
        if not isinstance(part, known):
            raise DataError(
                f"a detector with a {type(part).__name__} cannot be exported: known is "
                f"{' or '.join(k.__name__ for k in known)}"
            )


def siamese_logits(
    branch: SiameseInferenceBranch,
    x: Tensor,
    margin_logits: Tensor,
    global_weights: Tensor,
    proposals: Tensor,
) -> Tensor:
    """Returns what the siamese inference branch says of the proposals of one image.

    :meth:`SiameseInferenceBranch.forward` for one image, without a number that Python counts. A row
    that no class can choose is added, so that an image without proposals needs no case of its own.

    Args:
        branch: gives delta, the kind and share of a center, and the bias.
        x: (P, d) features.
        margin_logits: (P, C) of the margin branch.
        global_weights: (C, d) of the margin branch.
        proposals: (P, 4) XYXY.

    Returns:
        Logits (P, C).
    """
    scores = F.pad(margin_logits.softmax(dim=1), (0, 0, 0, 1))
    ranks = F.pad(stable_log_odds(margin_logits), (0, 0, 0, 1), value=-1e30)
    units = F.pad(_unit(x), (0, 0, 0, 1))
    fixed = _unit(global_weights)
    rows = ranks.argmax(dim=0)
    classes = torch.arange(NUM_CLASSES + 1)
    local = (scores[rows, classes] > branch.delta) & (classes < NUM_CLASSES)
    own = units[rows]
    if branch.center == "pair":
        boxes = F.pad(proposals, (0, 0, 0, 1))
        apart = lie_apart(boxes, boxes[rows])
        seconds = torch.where(apart, ranks, -1e30).argmax(dim=0)
        there = apart[seconds, classes] & (scores[seconds, classes] > PARTNER_SCORE)
        own = torch.where(there[:, None], _unit(own + units[seconds]), own)
    if branch.center_share < 1:
        own = _unit(branch.center_share * own + (1 - branch.center_share) * fixed)
    centers = torch.where(local[:, None], own, fixed)
    return F.linear(x, centers, branch.bias)


def _unit(x: Tensor) -> Tensor:
    return F.normalize(x, dim=1, eps=NORM_EPS)


def stable_log_odds(logits: Tensor) -> Tensor:
    """Returns :func:`~deepacc_d2.modeling.local_centers.log_odds` of logits (P, C).

    Written out, because OpenVINO's log-sum-exp overflows where cosines are scaled by 64.
    """
    top, winner = logits.max(dim=1, keepdim=True)
    is_winner = torch.arange(NUM_CLASSES + 1) == winner
    others = _log_sum_exp(torch.where(is_winner, -1e30, logits))
    log_p = logits - _log_sum_exp(logits)
    return torch.where(is_winner, top - others, log_p - torch.log1p(-log_p.exp()))


def _log_sum_exp(x: Tensor) -> Tensor:
    top = x.amax(dim=1, keepdim=True)
    return top + (x - top).exp().sum(dim=1, keepdim=True).log()
