"""Box heads: from pooled region features to the features that the predictor classifies.

Shapes: N regions, C channels of the pyramid, P x P pooled cells, d features.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from detectron2.config import configurable
from detectron2.layers import ShapeSpec
from detectron2.modeling.roi_heads import ROI_BOX_HEAD_REGISTRY, FastRCNNConvFCHead
from torch import Tensor, nn


@ROI_BOX_HEAD_REGISTRY.register()
class SeparatedBoxHead(nn.Module):
    """Two unshared stacks of fully connected layers, one to classify and one to regress.

    DeepACC (Luo et al. 2020, Fig. 2 and Table 1 row b) splits Faster R-CNN's box head, so that
    what the classifier learns of banding does not pull on the features that place the box.

    >>> import torch
    >>> head = SeparatedBoxHead(ShapeSpec(channels=8, height=7, width=7), fc_dims=[16, 16])
    >>> classification, regression = head(torch.zeros(3, 8, 7, 7))
    >>> classification.shape, regression.shape
    (torch.Size([3, 16]), torch.Size([3, 16]))

    Weights of a shared head (Detectron2's model zoo, row a of Table 1) load into both stacks: the
    two then compute what the one did.
    """

    @configurable
    def __init__(
        self,
        input_shape: ShapeSpec,
        *,
        fc_dims: Sequence[int],
        conv_dims: Sequence[int] = (),
        conv_norm: str = "",
    ) -> None:
        """Builds the two stacks.

        Args:
            input_shape: channels, height and width of the pooled features.
            fc_dims: output sizes of the fully connected layers of each stack.
            conv_dims: output channels of 3x3 convolutions before them, if any.
            conv_norm: norm of those convolutions, a Detectron2 name.
        """
        super().__init__()
        options: dict[str, Any] = {
            "conv_dims": list(conv_dims),
            "fc_dims": list(fc_dims),
            "conv_norm": conv_norm,
        }
        self.classification = FastRCNNConvFCHead(input_shape, **options)
        self.regression = FastRCNNConvFCHead(input_shape, **options)
        self.register_load_state_dict_pre_hook(_give_shared_weights_to_both)

    @classmethod
    def from_config(cls, cfg: Any, input_shape: ShapeSpec) -> dict[str, Any]:
        """Reads the same yacs keys as Detectron2's ``FastRCNNConvFCHead``."""
        return {"input_shape": input_shape, **_conv_fc_options(cfg)}

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Maps pooled features (N, C, P, P) to classification and regression features (N, d)."""
        return self.classification(features), self.regression(features)

    @property
    def output_shape(self) -> ShapeSpec:
        """Shape of each of the two outputs: d channels."""
        return self.classification.output_shape


def _give_shared_weights_to_both(
    head: SeparatedBoxHead, state_dict: dict[str, Tensor], prefix: str, *_: Any
) -> None:
    """Renames a shared head's weights, such as ``fc1.weight``, to those of the two stacks.

    A weight of another shape, or one besides the stacks' own, stays under its name, so that loading
    reports it as one without a place.
    """
    for name, weight in head.classification.state_dict().items():
        shared = state_dict.get(prefix + name)
        own = [f"{prefix}{stack}.{name}" for stack in ("classification", "regression")]
        if shared is None or shared.shape != weight.shape or any(k in state_dict for k in own):
            continue
        del state_dict[prefix + name]
        # A copy: loading with assign=True would make the two stacks one parameter.
        state_dict.update(zip(own, (shared, shared.clone()), strict=True))


def _conv_fc_options(cfg: Any) -> dict[str, Any]:
    head = cfg.MODEL.ROI_BOX_HEAD
    return {
        "conv_dims": [head.CONV_DIM] * head.NUM_CONV,
        "fc_dims": [head.FC_DIM] * head.NUM_FC,
        "conv_norm": head.NORM,
    }
