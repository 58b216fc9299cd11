"""ResNet-FPN trunks, built from explicit numbers so that a config node can describe them.

Detectron2's own ``build_resnet_fpn_backbone`` takes a yacs config and has no gray input, no
narrow ResNet-18 and no trunk that stops before res5; the blocks themselves are Detectron2's.
"""

from __future__ import annotations

from collections.abc import Sequence

from detectron2.layers import ShapeSpec
from detectron2.modeling.backbone import FPN, ResNet
from detectron2.modeling.backbone.fpn import LastLevelMaxPool, LastLevelP6P7
from detectron2.modeling.backbone.resnet import BasicBlock, BasicStem, BottleneckBlock
from torch import nn

from deepacc_d2.errors import ConfigError

BLOCKS_PER_STAGE = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
}
"""Residual blocks in res2..res5 by depth (He et al. 2016, Table 1)."""


def build_resnet(
    *,
    depth: int,
    in_channels: int = 3,
    stem_channels: int = 64,
    res2_channels: int | None = None,
    out_features: Sequence[str] = ("res2", "res3", "res4", "res5"),
    norm: str = "FrozenBN",
    freeze_at: int = 2,
    stride_in_1x1: bool = True,
) -> ResNet:
    """Builds a Detectron2 ResNet that ends at the last of ``out_features``.

    Args:
        depth: 18, 34 (basic blocks), 50, 101 or 152 (bottleneck blocks).
        in_channels: channels of the image, 1 for gray or 3 for ImageNet weights.
        stem_channels: channels after the 7x7 stem.
        res2_channels: channels of res2, doubled by each later stage; by default 64 for basic
            and 256 for bottleneck blocks.
        out_features: among ``res2`` .. ``res5``; later stages are left out of the network.
        norm: a Detectron2 norm name (``BN``, ``SyncBN``, ``GN``, ``FrozenBN``).
        freeze_at: freezes the stem (1) and that many stages less one; 0 trains all.
        stride_in_1x1: where bottleneck blocks put their stride; true for MSRA weights.

    Returns:
        A ``Backbone`` whose output has the strides 4, 8, 16, 32 for res2..res5.

    Raises:
        ConfigError: an unknown depth or feature name.
    """
    if depth not in BLOCKS_PER_STAGE:
        raise ConfigError(f"backbone depth {depth} is not one of {sorted(BLOCKS_PER_STAGE)}")
    names = [f"res{stage}" for stage in range(2, 6)]
    unknown = [name for name in out_features if name not in names]
    if unknown or not out_features:
        raise ConfigError(f"backbone out_features {list(out_features)} must be among {names}")
    bottleneck = depth >= 50
    channels = res2_channels or (256 if bottleneck else 64)
    stages, previous = [], stem_channels
    for name, blocks in zip(names, BLOCKS_PER_STAGE[depth], strict=True):
        options = {}
        if bottleneck:
            options = {"bottleneck_channels": channels // 4, "stride_in_1x1": stride_in_1x1}
        stages.append(
            ResNet.make_stage(
                block_class=BottleneckBlock if bottleneck else BasicBlock,
                num_blocks=blocks,
                stride_per_block=[1 if name == "res2" else 2] + [1] * (blocks - 1),
                in_channels=previous,
                out_channels=channels,
                norm=norm,
                **options,
            )
        )
        previous, channels = channels, channels * 2
        if name == max(out_features):
            break
    stem = BasicStem(in_channels=in_channels, out_channels=stem_channels, norm=norm)
    return ResNet(stem, stages, out_features=list(out_features), freeze_at=freeze_at)


def build_resnet_fpn(
    *,
    bottom_up: ResNet,
    out_channels: int = 256,
    norm: str = "",
    top_block: str | None = "maxpool",
    in_features: Sequence[str] | None = None,
) -> FPN:
    """Puts a feature pyramid on a ResNet (Lin et al. 2017).

    Args:
        bottom_up: the ResNet.
        out_channels: channels of every pyramid level.
        norm: norm of the lateral and output convolutions; empty for none.
        top_block: ``maxpool`` adds one level by subsampling the last (Faster R-CNN), ``p6p7``
            two levels by strided convolutions on the last ResNet stage (RetinaNet), null none.
        in_features: ResNet stages to use; by default all that it outputs.

    Raises:
        ConfigError: an unknown ``top_block``.
    """
    features = list(in_features or bottom_up.output_shape())
    pool = LastLevelMaxPool()
    # Detectron2 fixes it to p5, which a trunk that ends before res5 does not have.
    pool.in_feature = features[-1].replace("res", "p")
    blocks: dict[str | None, nn.Module | None] = {None: None, "maxpool": pool}
    if top_block == "p6p7":
        last = features[-1]
        blocks["p6p7"] = LastLevelP6P7(
            bottom_up.output_shape()[last].channels, out_channels, in_feature=last
        )
    if top_block not in blocks:
        raise ConfigError(f"top_block {top_block!r} is not one of maxpool, p6p7, null")
    return FPN(
        bottom_up=bottom_up,
        in_features=features,
        out_channels=out_channels,
        norm=norm,
        top_block=blocks[top_block],
    )


def pyramid_shapes(*, features: Sequence[str], channels: int) -> list[ShapeSpec]:
    """Returns the shapes of pyramid levels such as ``p3``: that many channels, stride 8."""
    return [ShapeSpec(channels=channels, stride=2 ** int(name[1:])) for name in features]
