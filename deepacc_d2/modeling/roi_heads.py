"""ROI heads: wiring of pooler, box head and predictor."""

from __future__ import annotations

from typing import Any

from detectron2.layers import ShapeSpec
from detectron2.modeling.roi_heads import ROI_HEADS_REGISTRY, StandardROIHeads
from detectron2.structures import ImageList, Instances
from torch import Tensor

from deepacc_d2.modeling.predictor import BoxPredictor


@ROI_HEADS_REGISTRY.register()
class ChromosomeROIHeads(StandardROIHeads):
    """Detectron2's box heads that also return each proposal's top-1 detection when testing.

    Use it as ``MODEL.ROI_HEADS.NAME``; with ``MODEL.ROI_BOX_HEAD.NAME: SeparatedBoxHead`` it is
    row (b) of DeepACC's Table 1. Masks and keypoints are not predicted.
    """

    @classmethod
    def _init_box_head(cls, cfg: Any, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:
        options = super()._init_box_head(cfg, input_shape)
        options["box_predictor"] = BoxPredictor(cfg, options["box_head"].output_shape)
        return options

    def forward(
        self,
        images: ImageList,
        features: dict[str, Tensor],
        proposals: list[Instances],
        targets: list[Instances] | None = None,
    ) -> tuple[list[Instances], dict[str, Any]]:
        """Runs the heads; see Detectron2's ``ROIHeads.forward``.

        Returns:
            In training, the sampled proposals and the losses. In testing, the detections of each
            image and ``{"top1": list[Instances]}``; Detectron2's own ``GeneralizedRCNN`` ignores
            the latter.
        """
        # Detectron2 rounds boxes to the features' type before it pools: in bf16 a coordinate beyond
        # 256 px would be off by up to one pixel, beyond 512 px by two. (RoIAlign computes in
        # float32 under autocast anyway.)
        features = {name: features[name].float() for name in self.box_in_features}
        if self.training:
            return super().forward(images, features, proposals, targets)
        pooled = self.box_pooler(
            [features[name] for name in self.box_in_features],
            [p.proposal_boxes for p in proposals],
        )
        predictions = self.box_predictor(self.box_head(pooled))
        instances, _ = self.box_predictor.inference(predictions, proposals)
        return instances, {"top1": self.box_predictor.top1(predictions, proposals)}
