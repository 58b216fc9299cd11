from __future__ import annotations

import pytest
import torch
from detectron2.config import get_cfg
from detectron2.layers import ShapeSpec
from detectron2.modeling.backbone import build_backbone
from torch import nn

from deepacc_d2.errors import ConfigError
from deepacc_d2.modeling import build_resnet, build_resnet_fpn


@pytest.fixture(autouse=True)
def _no_initialization(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shapes do not depend on values, and drawing those of an R-101 takes a second."""
    monkeypatch.setattr(nn.init, "kaiming_normal_", lambda tensor, *_, **__: tensor)
    monkeypatch.setattr(nn.init, "kaiming_uniform_", lambda tensor, *_, **__: tensor)


def _shapes(module: nn.Module) -> dict[str, torch.Size]:
    return {name: value.shape for name, value in module.state_dict().items()}


@pytest.mark.parametrize(
    ("depth", "builder"),
    [
        (50, "build_resnet_fpn_backbone"),
        (101, "build_resnet_fpn_backbone"),
        (50, "build_retinanet_resnet_fpn_backbone"),
    ],
)
def test_same_weights_as_detectron2s_builder(depth: int, builder: str) -> None:
    """So that checkpoints of its model zoo load, name by name."""
    cfg = get_cfg()
    cfg.MODEL.BACKBONE.NAME = builder
    cfg.MODEL.RESNETS.DEPTH = depth
    retinanet = "retinanet" in builder
    features = ["res3", "res4", "res5"] if retinanet else ["res2", "res3", "res4", "res5"]
    cfg.MODEL.RESNETS.OUT_FEATURES = cfg.MODEL.FPN.IN_FEATURES = features
    with torch.device("meta"):
        theirs = build_backbone(cfg, ShapeSpec(channels=3))
        ours = build_resnet_fpn(
            bottom_up=build_resnet(depth=depth),
            in_features=features,
            top_block="p6p7" if retinanet else "maxpool",
        )
    assert _shapes(ours) == _shapes(theirs)
    assert ours.output_shape() == theirs.output_shape()
    trained = {name for name, p in ours.named_parameters() if p.requires_grad}
    assert trained == {name for name, p in theirs.named_parameters() if p.requires_grad}
    strides = {n: m.stride for n, m in ours.named_modules() if isinstance(m, nn.Conv2d)}
    assert strides == {n: m.stride for n, m in theirs.named_modules() if isinstance(m, nn.Conv2d)}


def test_the_same_numbers_as_detectron2s_builder() -> None:
    cfg = get_cfg()
    cfg.MODEL.BACKBONE.NAME = "build_resnet_fpn_backbone"
    cfg.MODEL.RESNETS.DEPTH = 18
    cfg.MODEL.RESNETS.RES2_OUT_CHANNELS = 64
    features = ["res2", "res3", "res4", "res5"]
    cfg.MODEL.RESNETS.OUT_FEATURES = cfg.MODEL.FPN.IN_FEATURES = features
    cfg.MODEL.FPN.OUT_CHANNELS = 16
    theirs = build_backbone(cfg, ShapeSpec(channels=3)).eval()
    ours = build_resnet_fpn(bottom_up=build_resnet(depth=18), out_channels=16).eval()
    for value in theirs.state_dict().values():
        value.copy_(torch.randn(value.shape).abs() * 0.05 + 0.01)
    ours.load_state_dict(theirs.state_dict())
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        expected, found = theirs(image), ours(image)
    assert list(found) == list(expected) == ["p2", "p3", "p4", "p5", "p6"]
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value)


@pytest.mark.parametrize(("depth", "channels"), [(18, 64), (34, 64), (50, 256)])
def test_strides_and_channels(depth: int, channels: int) -> None:
    with torch.device("meta"):
        resnet = build_resnet(depth=depth, in_channels=1)
        features = resnet(torch.empty(2, 1, 64, 96))
    for number, (name, value) in enumerate(features.items()):
        stride = 4 * 2**number
        assert name == f"res{number + 2}"
        assert value.shape == (2, channels * 2**number, 64 // stride, 96 // stride)
        assert resnet.output_shape()[name].stride == stride


def test_trunk_ends_at_the_last_feature_asked_for() -> None:
    with torch.device("meta"):
        short = build_resnet(depth=18, out_features=("res4", "res2"), res2_channels=24)
    assert not any(name.startswith("res5") for name in _shapes(short))
    assert any(name.startswith("res4") for name in _shapes(short))
    assert short.output_shape()["res4"].channels == 96


def test_freezing() -> None:
    with torch.device("meta"):
        frozen = build_resnet(depth=18, norm="BN", freeze_at=2)
        free = build_resnet(depth=18, norm="BN", freeze_at=0)
    for name, parameter in frozen.named_parameters():
        assert parameter.requires_grad == (not name.startswith(("stem", "res2"))), name
    assert all(parameter.requires_grad for parameter in free.parameters())


@pytest.mark.parametrize(
    ("top_block", "levels"),
    [
        (None, ["p3", "p4"]),
        ("maxpool", ["p3", "p4", "p5"]),
        ("p6p7", ["p3", "p4", "p5", "p6"]),
    ],
)
def test_top_blocks_of_the_pyramid(top_block: str | None, levels: list[str]) -> None:
    resnet = build_resnet(
        depth=18, stem_channels=8, res2_channels=8, out_features=("res3", "res4"), norm="BN"
    )
    pyramid = build_resnet_fpn(bottom_up=resnet, out_channels=16, top_block=top_block)
    features = pyramid(torch.randn(1, 3, 64, 64))
    assert list(features) == levels
    for name, value in features.items():
        size = 64 // 2 ** int(name[1:])
        assert value.shape == (1, 16, size, size)
        assert pyramid.output_shape()[name].stride == 2 ** int(name[1:])


def test_pyramid_on_some_stages_only() -> None:
    with torch.device("meta"):
        pyramid = build_resnet_fpn(
            bottom_up=build_resnet(depth=18), in_features=["res3", "res4"], top_block=None
        )
    assert list(pyramid.output_shape()) == ["p3", "p4"]


def test_bad_options() -> None:
    with pytest.raises(ConfigError, match=r"depth 20 is not one of \[18, 34, 50, 101, 152\]"):
        build_resnet(depth=20)
    with pytest.raises(ConfigError, match=r"out_features \['res6'\] must be among"):
        build_resnet(depth=18, out_features=["res6"])
    with pytest.raises(ConfigError, match=r"out_features \[\] must be among"):
        build_resnet(depth=18, out_features=[])
    with torch.device("meta"), pytest.raises(ConfigError, match="top_block 'p8' is not one of"):
        build_resnet_fpn(bottom_up=build_resnet(depth=18), top_block="p8")
