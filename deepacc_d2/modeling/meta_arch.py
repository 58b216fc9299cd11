"""Detectors: Detectron2's meta-architectures for gray images, which also give their proposals.

In testing each image's output is ``{"instances": Instances, "proposals": Instances}``, both in
pixels of the original image. ``instances`` is what Detectron2's tools read. ``proposals`` holds one
row per proposal (or anchor), before any threshold or NMS: ``pred_boxes`` and ``probabilities``
(P, K + 1), the last of no chromosome; :mod:`deepacc_d2.detection.select` makes detections of them.
"""

from __future__ import annotations

from typing import Any

import torch
from detectron2.config import configurable
from detectron2.modeling import META_ARCH_REGISTRY, GeneralizedRCNN
from detectron2.modeling.meta_arch.retinanet import RetinaNet
from detectron2.modeling.postprocessing import detector_postprocess
from detectron2.structures import Boxes, ImageList, Instances
from detectron2.utils import comm
from torch import Tensor

from deepacc_d2.distributed import count_per_process
from deepacc_d2.modeling.image_statistics import use_image_statistics
from deepacc_d2.modeling.instance_masks import InstanceMasks
from deepacc_d2.modeling.predictor import pack_proposals

BatchedInputs = list[dict[str, Any]]
BatchedOutputs = list[dict[str, Instances]]


INITIAL_NORMALIZER = 100.0
"""Detectron2's and Detectron1's first guess of the positive anchors of a step."""


def _add_normalizer(module: torch.nn.Module, weights: dict[str, Any], prefix: str, *_: Any) -> None:
    """Lets weights without a ``loss_normalizer``, as of any other RetinaNet, be loaded."""
    weights.setdefault(f"{prefix}loss_normalizer", torch.tensor(INITIAL_NORMALIZER))


def postprocess(
    results: dict[str, list[Instances]], inputs: BatchedInputs, sizes: list[tuple[int, int]]
) -> BatchedOutputs:
    """Scales each kind of result from the network's input to the original image."""
    outputs: BatchedOutputs = []
    for index, (item, size) in enumerate(zip(inputs, sizes, strict=True)):
        height, width = item.get("height", size[0]), item.get("width", size[1])
        outputs.append(
            {
                kind: detector_postprocess(instances[index], height, width)
                for kind, instances in results.items()
            }
        )
    return outputs


def _channels_last(images: ImageList) -> ImageList:
    tensor = images.tensor.contiguous(memory_format=torch.channels_last)
    return ImageList(tensor, images.image_sizes)


@META_ARCH_REGISTRY.register()
class ChromosomeRCNN(GeneralizedRCNN):
    """Faster R-CNN over uint8 images, gray (1, H, W) or color (3, H, W).

    >>> META_ARCH_REGISTRY.get("ChromosomeRCNN") is ChromosomeRCNN
    True

    A gray image meets a three-channel trunk by broadcasting: ``pixel_mean`` has as many entries
    as the trunk has input channels, so the image is expanded while it is normalized.

    Args:
        instance_masks: cuts the chromosomes out of their boxes, see
            :class:`~deepacc_d2.modeling.instance_masks.InstanceMasks`; null for none. It takes no
            part in training and detection.
        statistics_share: at inference, the weight of an image's own statistics in the trunk's
            batch normalizations, see :mod:`deepacc_d2.modeling.image_statistics`; 0 leaves the
            running ones.
        options: of Detectron2's ``GeneralizedRCNN``.
    """

    @configurable
    def __init__(
        self,
        *,
        instance_masks: InstanceMasks | None = None,
        statistics_share: float = 0.0,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.instance_masks = instance_masks
        if statistics_share:
            use_image_statistics(self.backbone, statistics_share)

    def preprocess_image(self, batched_inputs: BatchedInputs) -> ImageList:
        """Normalizes, pads and batches the images, laid out channels-last."""
        return _channels_last(super().preprocess_image(batched_inputs))

    def read(self, images: ImageList) -> tuple[list[Instances], Any]:
        """Returns the proposals of each image and what the heads say of them.

        Args:
            images: of :meth:`preprocess_image`, or normalized otherwise.
        """
        features = self.backbone(images.tensor)
        proposals, _ = self.proposal_generator(images, features, None)
        return proposals, self.roi_heads.predict(features, proposals)

    def proposals(self, images: ImageList) -> list[Instances]:
        """Returns what is said of each proposal, in pixels of the images given."""
        proposals, output = self.read(images)
        heads = self.roi_heads
        found: list[Instances] = heads.box_predictor.proposals(heads.predictions(output), proposals)
        return found

    def inference(
        self,
        batched_inputs: BatchedInputs,
        detected_instances: list[Instances] | None = None,
        do_postprocess: bool = True,
    ) -> BatchedOutputs | list[Instances]:
        """Detects; see Detectron2's ``GeneralizedRCNN.inference`` for the arguments."""
        if detected_instances is not None:
            return super().inference(batched_inputs, detected_instances, do_postprocess)
        images = self.preprocess_image(batched_inputs)
        features = self.backbone(images.tensor)
        proposals, _ = self.proposal_generator(images, features, None)
        instances, others = self.roi_heads(images, features, proposals, None)
        if not do_postprocess:
            return instances
        return postprocess({"instances": instances, **others}, batched_inputs, images.image_sizes)


@META_ARCH_REGISTRY.register()
class ChromosomeRetinaNet(RetinaNet):
    """RetinaNet (Lin et al. 2017) over uint8 images, which also gives its best anchors.

    Detectron2 divides the losses by a running mean of the positive anchors of a step, which it
    keeps as a plain number. Here it is a buffer ``loss_normalizer``, so that a training that goes
    on from a checkpoint continues with it, and counts the anchors of all processes of a step.

    Args:
        instance_masks: see :class:`ChromosomeRCNN`.
        options: of Detectron2's ``RetinaNet``.
    """

    loss_normalizer: Tensor

    @configurable
    def __init__(self, *, instance_masks: InstanceMasks | None = None, **options: Any) -> None:
        super().__init__(**options)
        self.instance_masks = instance_masks
        self.register_buffer("loss_normalizer", torch.tensor(INITIAL_NORMALIZER))
        self.register_load_state_dict_pre_hook(_add_normalizer)

    def _ema_update(
        self, name: str, value: float, initial_value: float, momentum: float = 0.9
    ) -> float:
        running: Tensor = getattr(self, name)
        processes = comm.get_world_size()
        total = count_per_process(running.new_tensor(value)) * processes
        running.mul_(momentum).add_(total * (1 - momentum))
        # The processes' gradients are averaged, and each divides its own share of the sum.
        return float(running) / processes

    def preprocess_image(self, batched_inputs: BatchedInputs) -> ImageList:
        """Normalizes, pads and batches the images, laid out channels-last."""
        return _channels_last(super().preprocess_image(batched_inputs))

    def forward(self, batched_inputs: BatchedInputs) -> dict[str, Tensor] | BatchedOutputs:
        """Returns losses in training, else detections of each image."""
        if self.training:
            return super().forward(batched_inputs)
        images = self.preprocess_image(batched_inputs)
        anchors, scores, deltas = self._predict(images)
        instances = [
            self.inference_single_image(
                anchors, [x[i] for x in scores], [x[i] for x in deltas], size
            )
            for i, size in enumerate(images.image_sizes)
        ]
        proposals = self._proposals(anchors, scores, deltas, images.image_sizes)
        results = {"instances": instances, "proposals": proposals}
        return postprocess(results, batched_inputs, images.image_sizes)

    def proposals(self, images: ImageList) -> list[Instances]:
        """Returns the anchors of highest score, in pixels of the images given.

        Classes are scored one by one; of no chromosome is what the best one leaves of 1.
        """
        return self._proposals(*self._predict(images), images.image_sizes)

    def _predict(self, images: ImageList) -> tuple[list[Boxes], list[Tensor], list[Tensor]]:
        """Returns anchors, scores (B, A, K) and deltas (B, A, 4) of each level, in float32."""
        features = self.backbone(images.tensor)
        maps = [features[f] for f in self.head_in_features]
        logits, deltas = self._transpose_dense_predictions(self.head(maps), [self.num_classes, 4])
        scores = [x.float().sigmoid() for x in logits]
        return self.anchor_generator(maps), scores, [x.float() for x in deltas]

    def _proposals(
        self,
        anchors: list[Boxes],
        scores: list[Tensor],
        deltas: list[Tensor],
        sizes: list[tuple[int, int]],
    ) -> list[Instances]:
        flat, offsets = torch.cat(scores, dim=1), torch.cat(deltas, dim=1)
        every, found = Boxes.cat(anchors).tensor, []
        for own, moves, size in zip(flat, offsets, sizes, strict=True):
            best = own.amax(dim=1)
            top, rows = best.topk(min(len(best), self.test_topk_candidates))
            boxes = self.box2box_transform.apply_deltas(moves[rows], every[rows])
            probabilities = torch.cat([own[rows], 1 - top[:, None]], dim=1)
            found.append(pack_proposals(boxes, probabilities, size))
        return found
