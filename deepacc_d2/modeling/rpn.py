"""Detectron2's region proposal network, with anchors drawn by image seed and matched faster."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from detectron2.modeling.proposal_generator import PROPOSAL_GENERATOR_REGISTRY, RPN
from detectron2.structures import Boxes, Instances
from torch import Tensor

from deepacc_d2.modeling.anchor_matching import match
from deepacc_d2.modeling.sampling import ANCHORS, generators, subsample_labels


@PROPOSAL_GENERATOR_REGISTRY.register()
class ChromosomeRPN(RPN):
    """Detectron2's RPN, which draws the anchors of its losses by the seed of each image."""

    _generators: Iterator[torch.Generator | None]

    def label_and_sample_anchors(
        self, anchors: list[Boxes], gt_instances: list[Instances]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Labels anchors; see Detectron2's ``RPN.label_and_sample_anchors``.

        The same labels, found without comparing every anchor with every chromosome
        (:mod:`deepacc_d2.modeling.anchor_matching`).
        """
        every = Boxes.cat(anchors)
        group = int(getattr(self.anchor_generator, "num_anchors", [1])[0])
        self._generators = generators(len(gt_instances), ANCHORS, every.device)
        labels, matched = [], []
        try:
            for instances in gt_instances:
                truth = instances.gt_boxes.tensor
                rows, label = match(self.anchor_matcher, truth, every.tensor, group)
                if self.anchor_boundary_thresh >= 0:
                    inside = every.inside_box(instances.image_size, self.anchor_boundary_thresh)
                    label[~inside] = -1
                labels.append(self._subsample_labels(label))
                matched.append(truth[rows] if len(truth) else torch.zeros_like(every.tensor))
        finally:
            del self._generators  # a generator cannot be copied with the model
        return labels, matched

    def _subsample_labels(self, label: Tensor) -> Tensor:
        # Called once for each image, in the order of the batch.
        positive, negative = subsample_labels(
            label,
            self.batch_size_per_image,
            self.positive_fraction,
            0,
            generator=next(self._generators),
        )
        label.fill_(-1)
        label.scatter_(0, positive, 1)
        label.scatter_(0, negative, 0)
        return label
