"""DeepACC's box predictor: margin branch, siamese inference branch and GIA, each may be off.

Cell context, beyond the paper, re-reads its results when testing.

Shapes: N proposals of B images, K = 24 foreground classes, background = index K, d features.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from detectron2.config import configurable
from detectron2.layers import ShapeSpec
from detectron2.structures import Instances
from torch import Tensor
from torch.nn import functional as F

from deepacc_d2.errors import ConfigError
from deepacc_d2.losses import GroupInnerAdjacencyLoss
from deepacc_d2.losses.aam import NORM_EPS
from deepacc_d2.method import check_branches, check_settings
from deepacc_d2.modeling.branches import AngularMarginBranch, LinearBranch, SiameseInferenceBranch
from deepacc_d2.modeling.cell_context import CellContext
from deepacc_d2.modeling.config import check_deepacc_config
from deepacc_d2.modeling.local_centers import LocalCenters
from deepacc_d2.modeling.predictor import BoxPredictor, Predictions, RegionFeatures

MarginBranch = AngularMarginBranch | LinearBranch


class DeepACCOutput(NamedTuple):
    """What the branches say of N proposals; Detectron2's code takes ``predictions``.

    Attributes:
        predictions: the result's logits (N, K+1), corrected by the cell's context where that is on,
            and box deltas (N, 4K).
        margin_logits: (N, K+1) of the margin branch, without margin; None if it is off.
        inference_logits: (N, K+1) of the inference branch; None if it is off.
        centers: the class centers that the inference branch compared with; None if it is off.
        features: (N, d) float32 classification features.
        counts: proposals of each image.
    """

    predictions: Predictions
    margin_logits: Tensor | None
    inference_logits: Tensor | None
    centers: LocalCenters | None
    features: Tensor
    counts: list[int]


def _check_classes(
    num_classes: int,
    margin_branch: MarginBranch | None,
    inference_branch: SiameseInferenceBranch | None,
    gia: GroupInnerAdjacencyLoss | None,
) -> None:
    built_for: dict[str, int] = {}
    if margin_branch is not None:
        built_for["margin_branch"] = len(margin_branch.weight) - 1
    if inference_branch is not None:
        built_for["inference_branch"] = len(inference_branch.bias) - 1
    if gia is not None:
        built_for["gia"] = len(gia.adjacency)
    for name, found in built_for.items():
        if found != num_classes:
            raise ConfigError(
                f"num_classes={num_classes}, but {name} is of {found} classes: make them the same"
            )


class DeepACCPredictor(BoxPredictor):
    """Scores and box deltas of each proposal; its losses are DeepACC's (Eq. 4).

    >>> from detectron2.layers import ShapeSpec
    >>> from detectron2.modeling.box_regression import Box2BoxTransform
    >>> from deepacc_d2.modeling import AngularMarginBranch
    >>> predictor = DeepACCPredictor(
    ...     ShapeSpec(channels=16),
    ...     num_classes=24,
    ...     margin_branch=AngularMarginBranch(16, 24, m=0.25, s=64.0),
    ...     box2box_transform=Box2BoxTransform(weights=(10.0, 10.0, 5.0, 5.0)),
    ... )
    >>> predictor.alpha, predictor.inference_branch
    (0.1, None)

    The result's scores are the inference branch's where it is on, else the margin branch's, else
    those of a plain linear layer.
    """

    @configurable
    def __init__(
        self,
        input_shape: ShapeSpec,
        *,
        num_classes: int,
        margin_branch: MarginBranch | None = None,
        inference_branch: SiameseInferenceBranch | None = None,
        gia: GroupInnerAdjacencyLoss | None = None,
        context: CellContext | None = None,
        alpha: float = 0.1,
        beta: float = 1.0,
        gamma: float = 0.1,
        **options: Any,
    ) -> None:
        """Puts the branches together.

        Args:
            input_shape: its channels are d.
            num_classes: K.
            margin_branch: null for none.
            inference_branch: null for none; needs a margin branch.
            gia: null for none; needs a margin branch.
            context: null for none. It is trained by itself, on what the finished detector finds;
                here its weights are constants, and it is used when testing only.
            alpha: weight of the margin branch's loss.
            beta: weight of the inference branch's cross entropy.
            gamma: weight of GIA.
            options: of Detectron2's ``FastRCNNOutputLayers``, such as ``box2box_transform``.

        Raises:
            ConfigError: a part is on that needs another one, or is of another number of classes;
                or a weight is negative.
        """
        check_branches(margin_branch is not None, inference_branch is not None, gia is not None)
        check_settings(alpha=alpha, beta=beta, gamma=gamma)
        _check_classes(num_classes, margin_branch, inference_branch, gia)
        super().__init__(input_shape, num_classes=num_classes, **options)
        self.margin_branch = margin_branch
        self.inference_branch = inference_branch
        self.gia = gia
        self.context = None if context is None else context.requires_grad_(False)
        self.alpha, self.beta, self.gamma = float(alpha), float(beta), float(gamma)
        if margin_branch is not None:
            # It would be a parameter without a gradient.
            del self.cls_score
            self.register_load_state_dict_pre_hook(_start_from_linear_classifier)

    @classmethod
    def from_config(cls, cfg: Any, input_shape: ShapeSpec) -> dict[str, Any]:
        """Reads ``MODEL.DEEPACC`` (see :func:`deepacc_d2.modeling.config.add_deepacc_config`).

        Raises:
            ConfigError: the keys contradict each other, or one has an impossible value.
        """
        check_deepacc_config(cfg)
        options = super().from_config(cfg, input_shape)
        node, num_classes, d = cfg.MODEL.DEEPACC, options["num_classes"], input_shape.channels
        margin: MarginBranch | None = None
        if node.MARGIN_BRANCH == "angular":
            margin = AngularMarginBranch(
                d, num_classes, m=node.M, s=node.S, margin_on_background=node.MARGIN_ON_BACKGROUND
            )
        elif node.MARGIN_BRANCH == "linear":
            margin = LinearBranch(d, num_classes)
        inference = SiameseInferenceBranch(
            num_classes,
            delta=node.DELTA,
            detach_centers=node.DETACH_CENTERS,
            center=node.CENTER,
            center_share=node.CENTER_SHARE,
        )
        gia = GroupInnerAdjacencyLoss(anchor=node.GIA_ANCHOR) if node.GIA else None
        return {
            **options,
            "margin_branch": margin,
            "inference_branch": inference if node.INFERENCE_BRANCH else None,
            "gia": gia,
            "alpha": node.ALPHA,
            "beta": node.BETA,
            "gamma": node.GAMMA,
        }

    def forward(  # type: ignore[override]
        self, x: RegionFeatures, counts: Sequence[int], boxes: Tensor | None = None
    ) -> DeepACCOutput:
        """Predicts scores and deltas, all in float32.

        Args:
            x: region features (N, d) of a shared head, or a pair (classification, regression).
            counts: proposals of each image, summing to N: images have centers of their own.
            boxes: (N, 4) XYXY of the proposals; pair centers and context need them.

        Raises:
            ConfigError: pair centers or context without boxes.
        """
        classification, regression = x if isinstance(x, tuple) else (x, x)
        features = classification.flatten(start_dim=1)
        deltas = self.bbox_pred(regression.flatten(start_dim=1)).float()
        margin = inference = centers = None
        with torch.autocast(features.device.type, enabled=False):
            features = features.float()
            if self.margin_branch is None:
                result = self.cls_score(features)
            else:
                result = margin = self.margin_branch(features)
            if self.inference_branch is not None:
                assert self.margin_branch is not None
                result, centers = self.inference_branch(
                    features, margin, self.margin_branch.weight, counts, boxes
                )
                inference = result
            if self.context is not None and not self.training:
                if boxes is None:
                    raise ConfigError("context needs the boxes of the proposals")
                placed = self.best_boxes(result, deltas, boxes)
                first = result if margin is None else margin
                result = self.context(features, first, result, placed, counts)
        return DeepACCOutput(
            (result, deltas), margin, inference, centers, features, [int(n) for n in counts]
        )

    def losses(self, output: DeepACCOutput, proposals: list[Instances]) -> dict[str, Tensor]:
        """Returns the weighted losses; which keys there are depends only on which parts are on.

        Args:
            output: of :meth:`forward`, for these proposals.
            proposals: with ``proposal_boxes``, ``gt_classes`` and, where there are any,
                ``gt_boxes``.
        """
        losses: dict[str, Tensor] = super().losses(output.predictions, proposals)
        result = losses.pop("loss_cls")
        if self.margin_branch is None or output.margin_logits is None:
            return {"loss_cls": result, **losses}
        margin_logits = output.margin_logits
        labels = [p.gt_classes for p in proposals]
        targets = torch.cat([*labels, margin_logits.new_zeros(0, dtype=torch.long)])
        losses["loss_margin"] = self.alpha * self.margin_branch.loss(margin_logits, targets)
        if self.inference_branch is not None:
            losses["loss_inference"] = self.beta * result
        if self.gia is not None:
            losses["loss_gia"] = self.gamma * self.gia(margin_logits, targets, output.counts)
        return losses


def _start_from_linear_classifier(
    predictor: DeepACCPredictor, state_dict: dict[str, Tensor], prefix: str, *_: Any
) -> None:
    """Lets weights of a detector without branches start the margin branch.

    Rows of a linear classifier point at their classes, as the margin branch's centers do; of an
    angular one only their directions count. A classifier of other classes, or one next to a margin
    branch, stays under its name, so that loading reports it as one without a place.
    """
    branch = predictor.margin_branch
    source, own = f"{prefix}cls_score.weight", f"{prefix}margin_branch.weight"
    weight = state_dict.get(source)
    if branch is None or weight is None or own in state_dict or weight.shape != branch.weight.shape:
        return
    del state_dict[source]
    angular = isinstance(branch, AngularMarginBranch)
    state_dict[own] = F.normalize(weight, dim=1, eps=NORM_EPS) if angular else weight
    bias = f"{prefix}cls_score.bias"
    if not angular and bias in state_dict:
        state_dict[f"{prefix}margin_branch.bias"] = state_dict.pop(bias)
