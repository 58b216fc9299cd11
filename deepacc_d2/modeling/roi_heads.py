"""ROI heads: wiring of pooler, box head and predictor."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling.roi_heads import ROI_HEADS_REGISTRY, StandardROIHeads
from detectron2.structures import Boxes, ImageList, Instances
from torch import Tensor

from deepacc_d2.modeling.config import check_deepacc_config
from deepacc_d2.modeling.deepacc_predictor import DeepACCOutput, DeepACCPredictor
from deepacc_d2.modeling.predictor import BoxPredictor, Predictions
from deepacc_d2.modeling.sampling import PROPOSALS, generators, subsample_labels


@ROI_HEADS_REGISTRY.register()
class ChromosomeROIHeads(StandardROIHeads):
    """Detectron2's box heads that also return what is said of each proposal when testing.

    Use it as ``MODEL.ROI_HEADS.NAME``; with ``MODEL.ROI_BOX_HEAD.NAME: SeparatedBoxHead`` it is
    row (b) of DeepACC's Table 1. With ``MODEL.MASK_ON`` Detectron2's mask head is trained and run
    besides; keypoints are not predicted.
    """

    predictor_type: type[BoxPredictor] = BoxPredictor
    _generators: Iterator[torch.Generator | None]

    @classmethod
    def _init_box_head(cls, cfg: Any, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:
        options = super()._init_box_head(cfg, input_shape)
        options["box_predictor"] = cls.predictor_type(cfg, options["box_head"].output_shape)
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
            image and ``{"proposals": list[Instances]}`` (see :meth:`BoxPredictor.proposals`);
            Detectron2's own ``GeneralizedRCNN`` ignores the latter.
        """
        if self.training:
            return super().forward(images, features, proposals, targets)
        predictions = self.predictions(self.predict(features, proposals))
        instances, _ = self.box_predictor.inference(predictions, proposals)
        instances = self._forward_mask(features, instances)
        return instances, {"proposals": self.box_predictor.proposals(predictions, proposals)}

    def label_and_sample_proposals(
        self, proposals: list[Instances], targets: list[Instances]
    ) -> list[Instances]:
        """Labels and samples proposals; see Detectron2's ``ROIHeads``.

        What is drawn of an image depends on its seed alone, where it has one (see
        :mod:`deepacc_d2.modeling.sampling`).
        """
        device = proposals[0].proposal_boxes.device
        self._generators = generators(len(proposals), PROPOSALS, device)
        try:
            sampled: list[Instances] = super().label_and_sample_proposals(proposals, targets)
        finally:
            del self._generators  # a generator cannot be copied with the model
        return sampled

    def _sample_proposals(
        self, matched_idxs: Tensor, matched_labels: Tensor, gt_classes: Tensor
    ) -> tuple[Tensor, Tensor]:
        # Called once for each image, in the order of the batch.
        if len(gt_classes):
            classes = gt_classes[matched_idxs]
            classes[matched_labels == 0] = self.num_classes
            classes[matched_labels == -1] = -1
        else:
            classes = torch.full_like(matched_idxs, self.num_classes)
        drawn = subsample_labels(
            classes,
            self.batch_size_per_image,
            self.positive_fraction,
            self.num_classes,
            generator=next(self._generators),
        )
        indices = torch.cat(drawn)
        return indices, classes[indices]

    def _forward_box(self, features: dict[str, Tensor], proposals: list[Instances]) -> Any:
        # Reached in training, and through Detectron2's ``forward_with_given_boxes``.
        output = self.predict(features, proposals)
        if self.training:
            return self.box_predictor.losses(output, proposals)
        return self.box_predictor.inference(self.predictions(output), proposals)[0]

    def predict(self, features: dict[str, Tensor], proposals: list[Instances]) -> Any:
        """Returns what the predictor says of each proposal, before any NMS.

        Args:
            features: maps of the pyramid, (B, C, H, W) each.
            proposals: of each image, with ``proposal_boxes``.
        """
        # Detectron2 rounds boxes to the features' type before it pools: in bf16 a coordinate beyond
        # 256 px would be off by up to one pixel, beyond 512 px by two. (RoIAlign computes in
        # float32 under autocast anyway.)
        maps = [features[name].float() for name in self.box_in_features]
        pooled = self.box_pooler(maps, [p.proposal_boxes for p in proposals])
        return self._predict_regions(self.box_head(pooled), proposals)

    def _predict_regions(self, regions: Any, proposals: list[Instances]) -> Any:
        return self.box_predictor(regions)

    @staticmethod
    def predictions(output: Any) -> Predictions:
        """Returns the logits and deltas in an output of :meth:`predict`."""
        logits, deltas = output
        return logits, deltas


@ROI_HEADS_REGISTRY.register()
class DeepACCROIHeads(ChromosomeROIHeads):
    """The heads of DeepACC (Luo et al. 2020, Fig. 2): two streams, margin and inference branch.

    >>> ROI_HEADS_REGISTRY.get("DeepACCROIHeads") is DeepACCROIHeads
    True

    As ``MODEL.ROI_HEADS.NAME``, after :func:`deepacc_d2.modeling.add_deepacc_config`, it builds
    the two streams whatever ``MODEL.ROI_BOX_HEAD.NAME`` says: without them it would not be DeepACC.
    """

    predictor_type = DeepACCPredictor

    @classmethod
    def _init_box_head(cls, cfg: Any, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:
        check_deepacc_config(cfg)  # first: without the keys' defaults, the box head fails obscurely
        cfg = cfg.clone()
        cfg.defrost()
        cfg.MODEL.ROI_BOX_HEAD.NAME = "SeparatedBoxHead"
        return super()._init_box_head(cfg, input_shape)

    def _predict_regions(self, regions: Any, proposals: list[Instances]) -> DeepACCOutput:
        boxes = Boxes.cat([p.proposal_boxes for p in proposals]).tensor
        output: DeepACCOutput = self.box_predictor(regions, [len(p) for p in proposals], boxes)
        return output

    @staticmethod
    def predictions(output: DeepACCOutput) -> Predictions:
        """Returns the result's logits and deltas."""
        return output.predictions
