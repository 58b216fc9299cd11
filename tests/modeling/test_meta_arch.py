from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from detectron2.config import CfgNode, get_cfg
from detectron2.modeling import GeneralizedRCNN, build_model
from detectron2.modeling.meta_arch.retinanet import RetinaNet
from detectron2.structures import Instances
from detectron2.utils.events import EventStorage
from torch import Tensor, nn

from deepacc_d2.chromosomes import NUM_CLASSES
from deepacc_d2.modeling import ChromosomeRCNN, ChromosomeRetinaNet, ChromosomeROIHeads

Build = Callable[..., Any]
Outputs = list[dict[str, Instances]]


@pytest.fixture(params=["rcnn", "separated", "retinanet"])
def make_detector(request: pytest.FixtureRequest, make_rcnn: Build, make_retinanet: Build) -> Build:
    if request.param == "retinanet":
        return make_retinanet
    return lambda **options: make_rcnn(separated=request.param == "separated", **options)


def _train(model: nn.Module, batch: list[dict[str, Any]]) -> dict[str, Tensor]:
    with EventStorage():
        losses: dict[str, Tensor] = model.train()(batch)
    return losses


def _detect(model: nn.Module, batch: list[dict[str, Any]]) -> Outputs:
    with torch.no_grad():
        outputs: Outputs = model.eval()(batch)
    return outputs


def _assert_same(a: Instances, b: Instances, *, scale: tuple[float, float] = (1.0, 1.0)) -> None:
    """``b``'s boxes are ``a``'s times (x, y) of the scale, the rest is equal."""
    factors = torch.tensor([*scale, *scale])
    torch.testing.assert_close(b.pred_boxes.tensor, a.pred_boxes.tensor * factors)
    if a.has("probabilities"):
        torch.testing.assert_close(b.probabilities, a.probabilities)
        return
    torch.testing.assert_close(b.scores, a.scores)
    assert b.pred_classes.tolist() == a.pred_classes.tolist()


def test_a_step_gives_every_parameter_a_finite_gradient(
    make_detector: Build, make_item: Build
) -> None:
    model = make_detector()
    losses = _train(model, [make_item(seed=0), make_item(80, 64, seed=1)])
    assert all(loss.isfinite() and loss > 0 for loss in losses.values())
    sum(losses.values()).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


def test_images_without_objects_back_propagate(make_detector: Build, make_item: Build) -> None:
    for counts in ((0, 0), (0, 3)):
        model = make_detector()
        losses = _train(model, [make_item(boxes=n, seed=n) for n in counts])
        total = sum(losses.values())
        assert total.isfinite()
        total.backward()
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name


def test_outputs_are_in_pixels_of_the_original(make_detector: Build, make_item: Build) -> None:
    model = make_detector()
    item = {"image": make_item()["image"]}
    (plain,) = _detect(model, [item])
    (scaled,) = _detect(model, [{**item, "height": 640, "width": 288}])
    assert set(plain) == set(scaled) == {"instances", "proposals"}
    for kind in plain:
        assert len(plain[kind]) > 0
        assert plain[kind].image_size == (64, 96)
        assert scaled[kind].image_size == (640, 288)
        _assert_same(plain[kind], scaled[kind], scale=(3.0, 10.0))


def test_gray_image_in_a_color_trunk_is_the_image_thrice(
    make_detector: Build, make_item: Build
) -> None:
    model = make_detector(in_channels=3)
    image = make_item()["image"]
    assert image.shape == (1, 64, 96)
    (gray,), (color,) = (_detect(model, [{"image": x}]) for x in (image, image.repeat(3, 1, 1)))
    for kind in gray:
        _assert_same(color[kind], gray[kind])


def test_images_are_normalized_padded_and_channels_last(
    make_detector: Build, make_item: Build
) -> None:
    model = make_detector()
    items = [make_item(64, 96), make_item(80, 64, seed=1)]
    images = model.preprocess_image(items)
    assert images.tensor.shape[2] % model.backbone.size_divisibility == 0
    assert images.tensor.is_contiguous(memory_format=torch.channels_last)
    assert images.tensor.dtype == torch.float32
    assert images.image_sizes == [(64, 96), (80, 64)]
    expected = (items[1]["image"].float() - 200) / 40
    torch.testing.assert_close(images.tensor[1, :, :80, :64], expected)
    assert not images.tensor[1, :, 80:].any()
    assert not images.tensor[1, :, :, 64:].any()


def test_detections_are_float32_under_autocast(make_detector: Build, make_item: Build) -> None:
    model = make_detector()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        (output,) = _detect(model, [make_item()])
        losses = _train(model, [make_item()])
    for kind, instances in output.items():
        assert instances.pred_boxes.tensor.dtype == torch.float32, kind
        scores = instances.scores if kind == "instances" else instances.probabilities
        assert scores.dtype == torch.float32, kind
    assert all(loss.isfinite() for loss in losses.values())


def test_detections_beside_proposals_are_detectron2s(
    make_detector: Build, make_item: Build
) -> None:
    model = make_detector()
    batch = [make_item(seed=0), make_item(80, 64, seed=1)]
    base = GeneralizedRCNN if isinstance(model, ChromosomeRCNN) else RetinaNet
    found = _detect(model, batch)
    with torch.no_grad():
        expected = (
            base.inference(model, batch) if base is GeneralizedRCNN else base.forward(model, batch)
        )
    for a, b in zip(expected, found, strict=True):
        _assert_same(a["instances"], b["instances"])


def test_raw_outputs_and_given_boxes_of_generalized_rcnn(
    make_rcnn: Build, make_item: Build
) -> None:
    model = make_rcnn().eval()
    batch = [{**make_item(), "height": 640, "width": 960}]
    with torch.no_grad():
        raw = model.inference(batch, do_postprocess=False)
        again = model.inference(batch, detected_instances=raw, do_postprocess=False)
    assert isinstance(raw[0], Instances)
    assert raw[0].image_size == (64, 96)
    _assert_same(raw[0], again[0])


def test_proposals_are_all_there_whatever_the_threshold(
    make_detector: Build, make_item: Build
) -> None:
    for threshold in (0.0, 0.99):
        model = make_detector(test_score_thresh=threshold).eval()
        (output,) = _detect(model, [make_item()])
        assert (len(output["instances"]) > 0) == (threshold == 0)
        found = output["proposals"]
        assert 0 < len(found) <= 1000
        assert found.probabilities.shape == (len(found), NUM_CLASSES + 1)
        with torch.no_grad():
            (alone,) = model.proposals(model.preprocess_image([make_item()]))
        sides = alone.pred_boxes.tensor[:, 2:] - alone.pred_boxes.tensor[:, :2]
        _assert_same(alone[(sides > 0).all(dim=1)], found)


def _naive_retinanet(model: ChromosomeRetinaNet, item: dict[str, Any]) -> list[tuple]:
    """Loops over levels, cells and anchors; (score, class, box), best first."""
    images = model.preprocess_image([item])
    features = [model.backbone(images.tensor)[name] for name in model.head_in_features]
    logits, deltas = model.head(features)
    rows = []
    for level, anchors in enumerate(model.anchor_generator(features)):
        _, channels, height, width = logits[level].shape
        per_cell = channels // NUM_CLASSES
        boxes = anchors.tensor.reshape(height, width, per_cell, 4)
        scores = logits[level][0].reshape(per_cell, NUM_CLASSES, height, width).sigmoid()
        offsets = deltas[level][0].reshape(per_cell, 4, height, width)
        for y in range(height):
            for x in range(width):
                for a in range(per_cell):
                    best = max(range(NUM_CLASSES), key=lambda k: float(scores[a, k, y, x]))
                    x0, y0, x1, y1 = boxes[y, x, a].tolist()
                    dx, dy, dw, dh = offsets[a, :, y, x].tolist()
                    w, h = x1 - x0, y1 - y0
                    cx, cy = (x0 + x1) / 2 + dx * w, (y0 + y1) / 2 + dy * h
                    w, h = w * math.exp(dw), h * math.exp(dh)
                    corners = (cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2)
                    box = [
                        min(max(v, 0), b) for v, b in zip(corners, (48, 32, 48, 32), strict=True)
                    ]
                    rows.append((float(scores[a, best, y, x]), best, box))
    return sorted(rows, key=lambda row: -row[0])


@pytest.mark.parametrize("topk", [1000, 10])
def test_retinanet_proposals_by_loops(make_retinanet: Build, make_item: Build, topk: int) -> None:
    model = make_retinanet(test_topk_candidates=topk).eval()
    nn.init.normal_(model.head.cls_score.weight, std=0.3)
    item = {"image": make_item(32, 48, boxes=0)["image"]}
    with torch.no_grad():
        expected = _naive_retinanet(model, item)[:topk]
    (output,) = _detect(model, [item])
    found = output["proposals"]
    kept = [row for row in expected if row[2][2] > row[2][0] and row[2][3] > row[2][1]]
    assert len(kept) > 5
    scores, classes = found.probabilities[:, :-1].max(dim=1)
    torch.testing.assert_close(scores, torch.tensor([s for s, _, _ in kept]))
    torch.testing.assert_close(found.probabilities[:, -1], 1 - scores)
    assert classes.tolist() == [k for _, k, _ in kept]
    boxes = torch.tensor([b for _, _, b in kept])
    torch.testing.assert_close(found.pred_boxes.tensor, boxes, atol=1e-3, rtol=1e-4)


def _small_yacs() -> CfgNode:
    cfg = get_cfg()
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.RESNETS.DEPTH = 18
    cfg.MODEL.RESNETS.RES2_OUT_CHANNELS = 64
    cfg.MODEL.RESNETS.NORM = "BN"
    cfg.MODEL.BACKBONE.FREEZE_AT = 0
    cfg.MODEL.RESNETS.OUT_FEATURES = cfg.MODEL.FPN.IN_FEATURES = ["res3", "res4", "res5"]
    cfg.MODEL.FPN.OUT_CHANNELS = 32
    return cfg


def _rcnn_yacs(meta_architecture: str, box_head: str) -> CfgNode:
    cfg = _small_yacs()
    cfg.MODEL.META_ARCHITECTURE = meta_architecture
    cfg.MODEL.BACKBONE.NAME = "build_resnet_fpn_backbone"
    cfg.MODEL.RPN.IN_FEATURES = ["p3", "p4", "p5"]
    cfg.MODEL.ANCHOR_GENERATOR.SIZES = [[16], [32], [64]]
    cfg.MODEL.RPN.PRE_NMS_TOPK_TEST = cfg.MODEL.RPN.POST_NMS_TOPK_TEST = 40
    cfg.MODEL.ROI_HEADS.NAME = "ChromosomeROIHeads"
    cfg.MODEL.ROI_HEADS.IN_FEATURES = ["p3", "p4"]
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = NUM_CLASSES
    cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST = 0.0
    cfg.MODEL.ROI_BOX_HEAD.NAME = box_head
    cfg.MODEL.ROI_BOX_HEAD.NUM_FC = 2
    cfg.MODEL.ROI_BOX_HEAD.FC_DIM = 24
    cfg.MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION = 5
    return cfg


def _retinanet_yacs() -> CfgNode:
    cfg = _small_yacs()
    cfg.MODEL.META_ARCHITECTURE = "ChromosomeRetinaNet"
    cfg.MODEL.BACKBONE.NAME = "build_retinanet_resnet_fpn_backbone"
    cfg.MODEL.RETINANET.NUM_CLASSES = NUM_CLASSES
    cfg.MODEL.RETINANET.NUM_CONVS = 1
    cfg.MODEL.RETINANET.SCORE_THRESH_TEST = 0.0
    cfg.MODEL.ANCHOR_GENERATOR.SIZES = [[8], [16], [32], [64], [128]]
    return cfg


@pytest.mark.parametrize(
    ("cfg", "has_proposals"),
    [
        (_rcnn_yacs("ChromosomeRCNN", "SeparatedBoxHead"), True),
        (_rcnn_yacs("GeneralizedRCNN", "FastRCNNConvFCHead"), False),
        (_retinanet_yacs(), True),
    ],
    ids=["ours", "heads in Detectron2's own", "retinanet"],
)
def test_from_a_detectron2_config_by_name(
    cfg: CfgNode, has_proposals: bool, make_item: Build
) -> None:
    torch.manual_seed(0)
    model = build_model(cfg)
    if hasattr(model, "roi_heads"):
        assert isinstance(model.roi_heads, ChromosomeROIHeads)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.001)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    batch = [make_item(channels=3)]
    sum(_train(model, batch).values()).backward()
    optimizer.step()
    assert all(p.isfinite().all() for p in model.parameters())
    assert any(not torch.equal(p, before[name]) for name, p in model.named_parameters())
    (output,) = _detect(model, [{**batch[0], "height": 128, "width": 192}])
    assert set(output) == ({"instances", "proposals"} if has_proposals else {"instances"})
    for instances in output.values():
        assert len(instances) > 0
        assert instances.image_size == (128, 192)
