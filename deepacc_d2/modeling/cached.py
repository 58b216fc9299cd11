"""A detector cut in two: the trunk, whose output is cached, and the heads, trained on the cache.

Shapes: B images, C channels, H x W cells.
"""

from __future__ import annotations

import hashlib
from typing import Any

import torch
from detectron2.structures import ImageList
from torch import Tensor, nn

from deepacc_d2.modeling.meta_arch import BatchedInputs, BatchedOutputs, ChromosomeRCNN, postprocess

TRUNK = ("backbone.", "proposal_generator.")
"""Prefixes of the weights that make feature maps and proposals."""


def trunk_weights(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Returns the weights of backbone, FPN and RPN out of a detector's.

    In float32, as a model holds them: a released checkpoint has half of the digits, and the same
    trunk must have one fingerprint.
    """
    return {
        name: value.float() if value.is_floating_point() else value
        for name, value in weights.items()
        if name.startswith(TRUNK)
    }


def fingerprint(weights: dict[str, Tensor]) -> str:
    """Returns the SHA-256 of weights: of their names, types, shapes and values."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        value = weights[name].detach().cpu().contiguous()
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


@torch.no_grad()
def encode(
    model: ChromosomeRCNN, inputs: BatchedInputs, levels: list[str], *, training: bool
) -> list[tuple[dict[str, Tensor], Any]]:
    """Runs the trunk.

    Args:
        model: the detector, in evaluation mode.
        inputs: images of one size, so that none is padded more than it would be alone.
        levels: names of the wanted maps.
        training: whether to keep as many proposals as the RPN does in training.

    Returns:
        For each image its maps (C, H, W) by level, and its proposals, on the CPU.
    """
    assert not model.training
    rpn = model.proposal_generator
    kept = rpn.pre_nms_topk, rpn.post_nms_topk
    # Detectron2 looks up its numbers by whether the module trains; with its losses on, though, it
    # would also want targets.
    rpn.pre_nms_topk, rpn.post_nms_topk = ({False: k[training]} for k in kept)
    try:
        images = model.preprocess_image(inputs)
        features = model.backbone(images.tensor)
        proposals, _ = rpn(images, features, None)
    finally:
        rpn.pre_nms_topk, rpn.post_nms_topk = kept
    return [
        ({level: features[level][i].cpu() for level in levels}, found.to("cpu"))
        for i, found in enumerate(proposals)
    ]


class CachedRCNN(nn.Module):
    """The heads of a Faster R-CNN, fed with cached maps and proposals instead of images.

    Its outputs and, in training, its losses are those of the whole detector with a frozen trunk.

    Args:
        roi_heads: the detector's.
    """

    def __init__(self, roi_heads: nn.Module) -> None:
        super().__init__()
        self.roi_heads = roi_heads

    @property
    def device(self) -> torch.device:
        """Returns where the heads are."""
        return next(self.roi_heads.parameters()).device

    def forward(self, inputs: list[dict[str, Any]]) -> dict[str, Tensor] | BatchedOutputs:
        """Returns losses in training, else each image's detections in its original pixels.

        Args:
            inputs: as :meth:`deepacc_d2.data.feature_cache.FeatureCache.read` gives them.
        """
        proposals = [item["proposals"].to(self.device) for item in inputs]
        sizes = [p.image_size for p in proposals]
        features = {
            level: self._stack([item["maps"][level] for item in inputs])
            for level in inputs[0]["maps"]
        }
        # The heads ask the images for nothing but their sizes.
        images = ImageList(next(iter(features.values())), sizes)
        if self.training:
            targets = [item["instances"].to(self.device) for item in inputs]
            losses: dict[str, Tensor] = self.roi_heads(images, features, proposals, targets)[1]
            return losses
        instances, others = self.roi_heads(images, features, proposals, None)
        return postprocess({"instances": instances, **others}, inputs, sizes)

    def _stack(self, maps: list[Tensor]) -> Tensor:
        """Pads maps at the right and bottom to (B, C, H, W), channels-last."""
        height, width = (max(m.shape[i] for m in maps) for i in (1, 2))
        batch = maps[0].new_zeros(len(maps), height, width, len(maps[0]))
        for target, m in zip(batch, maps, strict=True):
            h, w = m.shape[1:]
            target[:h, :w] = m.permute(1, 2, 0)
            # RoIAlign interpolates with the next cell where a box ends at the border. One line more
            # of the same keeps a record's result the same whatever it is batched with.
            target[h : h + 1, :w] = target[h - 1 : h, :w]
            target[: h + 1, w : w + 1] = target[: h + 1, w - 1 : w]
        return batch.permute(0, 3, 1, 2).to(self.device, non_blocking=True)
