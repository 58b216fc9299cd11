"""The yacs face: what a Detectron2 user writes trains, predicts and is Hydra's model."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import yaml
from detectron2.config import CfgNode, get_cfg
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import register_coco_instances
from detectron2.engine import DefaultPredictor, DefaultTrainer
from detectron2.layers import ShapeSpec
from detectron2.modeling import build_model
from detectron2.modeling.box_regression import Box2BoxTransform
from detectron2.modeling.matcher import Matcher
from detectron2.modeling.roi_heads import build_roi_heads
from detectron2.structures import Boxes, ImageList, Instances, PolygonMasks
from detectron2.utils.events import EventStorage, EventWriter, JSONWriter
from hydra.utils import instantiate
from torch import nn

from deepacc_d2.chromosomes import CLASSES, NUM_CLASSES
from deepacc_d2.errors import ConfigError
from deepacc_d2.modeling import (
    AngularMarginBranch,
    DeepACCPredictor,
    DeepACCROIHeads,
    LinearBranch,
    SeparatedBoxHead,
    add_deepacc_config,
)
from deepacc_lightning.core.config import compose_config

# What a user writes for the paper's network; all else is add_deepacc_config's and Detectron2's.
PAPER: dict[str, Any] = {
    "MODEL": {
        "DEVICE": "cpu",
        "BACKBONE": {"NAME": "build_resnet_fpn_backbone"},
        "RESNETS": {"DEPTH": 101, "OUT_FEATURES": ["res2", "res3", "res4", "res5"]},
        "FPN": {"IN_FEATURES": ["res2", "res3", "res4", "res5"]},
        "ANCHOR_GENERATOR": {"SIZES": [[32], [64], [128], [256], [512]]},
        "RPN": {
            "IN_FEATURES": ["p2", "p3", "p4", "p5", "p6"],
            "PRE_NMS_TOPK_TRAIN": 2000,
            "PRE_NMS_TOPK_TEST": 1000,
        },
        "ROI_HEADS": {"NAME": "DeepACCROIHeads", "IN_FEATURES": ["p2", "p3", "p4", "p5"]},
        "ROI_BOX_HEAD": {"POOLER_RESOLUTION": 7},
    }
}
# The same two networks, thinned out.
TINY: dict[str, Any] = {
    "MODEL": {
        "BACKBONE": {"FREEZE_AT": 0},
        "RESNETS": {
            "DEPTH": 50,
            "NORM": "BN",
            "STEM_OUT_CHANNELS": 8,
            "RES2_OUT_CHANNELS": 16,
            "WIDTH_PER_GROUP": 4,
        },
        "FPN": {"OUT_CHANNELS": 16},
        "ROI_BOX_HEAD": {"FC_DIM": 24},
    }
}
TINY_OVERRIDES = (
    "scale.backbone.depth=50",
    "scale.backbone.norm=BN",
    "scale.backbone.freeze_at=0",
    "scale.backbone.stem_channels=8",
    "scale.backbone.res2_channels=16",
    "scale.fpn.out_channels=16",
    "scale.roi.fc_dims=[24,24]",
)
TRAINING: dict[str, Any] = {
    "DATASETS": {"TRAIN": ["deepacc_test_train"], "TEST": []},
    "DATALOADER": {"NUM_WORKERS": 0},
    "INPUT": {"MIN_SIZE_TRAIN": [96], "MIN_SIZE_TEST": 96},
    "SOLVER": {"IMS_PER_BATCH": 2, "MAX_ITER": 2, "BASE_LR": 0.001, "STEPS": []},
    "SEED": 1,
}


def yacs(folder: Path, *parts: dict[str, Any]) -> CfgNode:
    """A Detectron2 config as a user gets one: each part is merged from a YAML file."""
    cfg = get_cfg()
    add_deepacc_config(cfg)
    for number, part in enumerate(parts):
        path = folder / f"part{number}.yaml"
        path.write_text(yaml.safe_dump(part), encoding="utf-8")
        cfg.merge_from_file(str(path))
    return cfg


def deepacc(**values: Any) -> dict[str, Any]:
    return {"MODEL": {"DEEPACC": values}}


def hydra_model(*overrides: str) -> nn.Module:
    composed = compose_config(
        "train",
        [
            "experiment=siamese_gia",
            "scale=paper",
            "data=coco",
            "data.root=/nowhere",
            "init_weights=null",
            "pixel_mean=200",
            "pixel_std=50",
            *overrides,
        ],
    )
    model: nn.Module = instantiate(composed.model)
    return model


@pytest.fixture
def coco_dataset(tmp_path: Path) -> Iterator[str]:
    """Three color images with rectangles of all classes, registered as a COCO data set."""
    rng = np.random.default_rng(0)
    images, annotations = [], []
    for image_id, (height, width) in enumerate([(96, 128), (64, 96), (128, 80)], start=1):
        image = rng.integers(180, 255, (height, width, 3), dtype=np.uint8)
        for class_id in range(image_id, NUM_CLASSES + 1, 3):
            x, y = int(rng.integers(0, width - 30)), int(rng.integers(0, height - 30))
            w, h = (int(n) for n in rng.integers(10, 28, 2))
            image[y : y + h, x : x + w] = 40 + 8 * class_id
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": class_id,
                    "bbox": [x, y, w, h],
                    "area": w * h,
                    "iscrowd": 0,
                }
            )
        name = f"{image_id}.png"
        cv2.imwrite(str(tmp_path / name), image)
        images.append({"id": image_id, "file_name": name, "height": height, "width": width})
    categories = [{"id": k, "name": name} for k, name in enumerate(CLASSES, start=1)]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (tmp_path / "train.json").write_text(json.dumps(content), encoding="utf-8")
    name = TRAINING["DATASETS"]["TRAIN"][0]
    register_coco_instances(name, {}, str(tmp_path / "train.json"), str(tmp_path))
    yield name
    DatasetCatalog.remove(name)
    MetadataCatalog.remove(name)


class Trainer(DefaultTrainer):
    """Detectron2's trainer, without the TensorBoard package that its default writers need."""

    def build_writers(self) -> list[EventWriter]:
        return [JSONWriter(str(Path(self.cfg.OUTPUT_DIR) / "metrics.json"))]


def test_a_yaml_trains_and_predicts_with_detectron2s_own_tools(
    coco_dataset: str, tmp_path: Path
) -> None:
    output = {"OUTPUT_DIR": str(tmp_path / "out"), **TRAINING}
    # Untrained scores are about 1/25; all of them shall become detections.
    cfg = yacs(tmp_path, PAPER, TINY, output, {"MODEL": {"ROI_HEADS": {"SCORE_THRESH_TEST": 0.0}}})
    Path(cfg.OUTPUT_DIR).mkdir()
    trainer = Trainer(cfg)
    heads = trainer.model.roi_heads
    assert type(heads) is DeepACCROIHeads
    assert MetadataCatalog.get(coco_dataset).thing_classes == list(CLASSES)
    before = {k: v.clone() for k, v in trainer.model.state_dict().items()}
    trainer.resume_or_load(resume=False)
    trainer.train()

    logged = json.loads((tmp_path / "out/metrics.json").read_text().splitlines()[-1])
    for key in ("loss_margin", "loss_inference", "loss_gia", "loss_box_reg", "loss_rpn_cls"):
        assert math.isfinite(logged[key]), key
    assert logged["loss_margin"] > 0
    after = trainer.model.state_dict()
    for name in ("box_predictor.margin_branch.weight", "box_head.regression.fc1.weight"):
        assert not torch.equal(after[f"roi_heads.{name}"], before[f"roi_heads.{name}"]), name

    cfg.MODEL.WEIGHTS = str(tmp_path / "out/model_final.pth")
    predictor = DefaultPredictor(cfg)
    for name, value in predictor.model.state_dict().items():
        assert torch.equal(value, after[name]), name
    image = cv2.imread(str(tmp_path / "1.png"))
    instances = predictor(image)["instances"]
    assert isinstance(instances, Instances)
    assert len(instances) == 100  # TEST.DETECTIONS_PER_IMAGE
    assert instances.image_size == image.shape[:2]
    assert instances.pred_classes.min() >= 0
    assert instances.pred_classes.max() < NUM_CLASSES
    boxes = instances.pred_boxes.tensor
    assert (boxes >= 0).all()
    assert boxes[:, 2].max() <= image.shape[1]
    assert boxes[:, 3].max() <= image.shape[0]


def shapes(module: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in module.state_dict().items()}


def test_both_faces_have_the_papers_parameters(tmp_path: Path) -> None:
    cfg = yacs(tmp_path, PAPER, {"MODEL": {"DEVICE": "meta"}})
    with torch.device("meta"):
        ours, theirs = hydra_model(), build_model(cfg)
    assert shapes(ours) == shapes(theirs)
    heads = shapes(theirs.roi_heads)
    assert heads["box_head.classification.fc1.weight"] == (1024, 7 * 7 * 256)
    assert heads["box_predictor.margin_branch.weight"] == (25, 1024)
    assert heads["box_predictor.bbox_pred.weight"] == (96, 1024)
    assert list(heads) == list(shapes(ours.roi_heads))
    assert settings(ours) == settings(theirs)


def plain(value: Any) -> Any:
    """A setting as comparable plain data; None for what is no setting."""
    if isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (tuple, list)):
        return [plain(v) for v in value]
    if isinstance(value, dict):
        return {key: plain(v) for key, v in value.items()}
    if isinstance(value, (Matcher, Box2BoxTransform)):
        return plain(vars(value))
    return None


def settings(model: nn.Module) -> dict[str, Any]:
    """Every plain attribute of every module of the RPN and the ROI heads, by its name."""
    found: dict[str, Any] = {}
    for part in ("proposal_generator", "roi_heads"):
        for name, module in getattr(model, part).named_modules(prefix=part):
            # Hydra's pooler puts a wrapper round Detectron2's RoIAlign, which is quick on a CPU.
            owner = name.removesuffix(".align")
            for key, value in vars(module).items():
                if not key.startswith("_") and key != "training" and plain(value) is not None:
                    found[f"{owner}.{key}"] = plain(value)
    weight = found["roi_heads.box_predictor.loss_weight"]
    weight.setdefault("loss_cls", 1.0)  # the yacs face leaves it out, which means the same
    return found


def test_both_faces_have_the_papers_settings(tmp_path: Path) -> None:
    model = build_model(yacs(tmp_path, PAPER, TINY))
    found = settings(model)
    assert found == settings(hydra_model(*TINY_OVERRIDES))
    predictor, rpn, heads = "roi_heads.box_predictor", "proposal_generator", "roi_heads"
    expected = {
        f"{predictor}.alpha": 0.1,
        f"{predictor}.beta": 1.0,
        f"{predictor}.gamma": 0.1,
        f"{predictor}.margin_branch.criterion.m": 0.25,
        f"{predictor}.margin_branch.criterion.s": 64.0,
        f"{predictor}.margin_branch.criterion.margin_on_background": True,
        f"{predictor}.inference_branch.delta": 0.5,
        f"{predictor}.inference_branch.detach_centers": True,
        f"{predictor}.inference_branch.center": "single",
        f"{predictor}.inference_branch.center_share": 1.0,
        f"{predictor}.gia.anchor": "labelled",
        f"{predictor}.num_classes": 24,
        f"{predictor}.smooth_l1_beta": 1.0,
        f"{predictor}.box_reg_loss_type": "smooth_l1",
        f"{predictor}.test_score_thresh": 0.05,
        f"{predictor}.test_nms_thresh": 0.5,
        f"{predictor}.test_topk_per_image": 100,
        f"{rpn}.smooth_l1_beta": pytest.approx(1 / 9),
        f"{rpn}.nms_thresh": 0.7,
        f"{rpn}.batch_size_per_image": 256,
        f"{rpn}.positive_fraction": 0.5,
        f"{rpn}.anchor_generator.offset": 0.5,
        f"{heads}.batch_size_per_image": 512,
        f"{heads}.positive_fraction": 0.25,
        f"{heads}.proposal_append_gt": True,
        f"{heads}.box_in_features": ["p2", "p3", "p4", "p5"],
    }
    assert {key: found[key] for key in expected} == expected
    assert model.proposal_generator.post_nms_topk == {True: 2000, False: 1000}
    assert model.proposal_generator.pre_nms_topk == {True: 2000, False: 1000}
    assert model.roi_heads.proposal_matcher.thresholds[1:-1] == [0.5]


def test_defaults_for_training_are_the_papers() -> None:
    cfg = get_cfg()
    add_deepacc_config(cfg)
    assert (cfg.SOLVER.WARMUP_ITERS, cfg.SOLVER.WARMUP_METHOD) == (500, "linear")
    assert math.isclose(cfg.SOLVER.WARMUP_FACTOR, 1 / 3)
    clip = cfg.SOLVER.CLIP_GRADIENTS
    assert (clip.ENABLED, clip.CLIP_TYPE, clip.CLIP_VALUE, clip.NORM_TYPE) == (
        True,
        "norm",
        35.0,
        2.0,
    )
    assert cfg.INPUT.MIN_SIZE_TRAIN == (800,)
    assert cfg.INPUT.MIN_SIZE_TEST == 800
    assert cfg.INPUT.MAX_SIZE_TRAIN == cfg.INPUT.MAX_SIZE_TEST == 1067


@pytest.fixture
def pair(tmp_path: Path) -> tuple[nn.Module, nn.Module]:
    """The tiny model of the yacs face and that of Hydra's, with the same weights and pixels."""
    torch.manual_seed(0)
    # Hydra's lays images out channels-last, which rounds otherwise; batch norm over the few cells
    # here would amplify that until other proposals are sampled.
    same = {"META_ARCHITECTURE": "ChromosomeRCNN"}
    pixels = {"PIXEL_MEAN": [200.0] * 3, "PIXEL_STD": [50.0] * 3}
    theirs = build_model(yacs(tmp_path, PAPER, TINY, {"MODEL": {**same, **pixels}}))
    # Untrained scores are all about 1/25, below the test threshold.
    nn.init.normal_(theirs.roi_heads.box_predictor.inference_branch.bias, std=2.0)
    ours = hydra_model(*TINY_OVERRIDES)
    ours.load_state_dict(theirs.state_dict())
    return theirs, ours


def training_input() -> list[dict[str, Any]]:
    rng = np.random.default_rng(0)
    items = []
    for height, width in ((96, 128), (128, 96)):
        corner = torch.from_numpy(rng.uniform(0, 60, (8, 2)).astype(np.float32))
        instances = Instances((height, width))
        instances.gt_boxes = Boxes(torch.cat([corner, corner + 32], dim=1))
        instances.gt_classes = torch.arange(8) + 3
        image = rng.integers(0, 256, (3, height, width), dtype=np.uint8)
        items.append({"image": torch.from_numpy(image), "instances": instances})
    return items


def test_both_faces_compute_the_same_losses(pair: tuple[nn.Module, nn.Module]) -> None:
    results = []
    for model in pair:
        torch.manual_seed(3)  # anchors and proposals are sampled at random
        with EventStorage():
            results.append(model.train()(training_input()))
    assert set(results[0]) == {
        "loss_rpn_cls",
        "loss_rpn_loc",
        "loss_box_reg",
        "loss_margin",
        "loss_inference",
        "loss_gia",
    }
    assert set(results[0]) == set(results[1])
    for name, value in results[0].items():
        assert value > 0, name
        torch.testing.assert_close(results[1][name], value, msg=name)


def test_both_faces_find_the_same(pair: tuple[nn.Module, nn.Module]) -> None:
    with torch.no_grad():
        theirs, ours = ([x["instances"] for x in model.eval()(training_input())] for model in pair)
    for a, b in zip(theirs, ours, strict=True):
        assert len(a) > 0
        torch.testing.assert_close(a.pred_boxes.tensor, b.pred_boxes.tensor, atol=1e-3, rtol=1e-4)
        torch.testing.assert_close(a.scores, b.scores)
        assert a.pred_classes.tolist() == b.pred_classes.tolist()


VARIANTS = [
    ("none", False, False),
    ("linear", False, False),
    ("linear", True, False),
    ("linear", False, True),
    ("linear", True, True),
    ("angular", False, False),
    ("angular", True, False),
    ("angular", False, True),
    ("angular", True, True),
]


@pytest.mark.parametrize(("margin", "inference", "gia"), VARIANTS)
def test_parts_that_are_on(tmp_path: Path, margin: str, inference: bool, gia: bool) -> None:
    variant = deepacc(MARGIN_BRANCH=margin, INFERENCE_BRANCH=inference, GIA=gia)
    pyramid = {f"p{n}": ShapeSpec(channels=16, stride=2**n) for n in range(2, 6)}
    heads = build_roi_heads(yacs(tmp_path, PAPER, TINY, variant), pyramid).train()
    predictor = heads.box_predictor
    assert isinstance(heads.box_head, SeparatedBoxHead)
    assert isinstance(predictor, DeepACCPredictor)
    kinds = {"none": type(None), "linear": LinearBranch, "angular": AngularMarginBranch}
    assert type(predictor.margin_branch) is kinds[margin]
    features = {k: torch.randn(2, 16, 128 // v.stride, 128 // v.stride) for k, v in pyramid.items()}
    targets = [item["instances"] for item in training_input()]
    proposals = []
    for target in targets:
        proposal = Instances(target.image_size)
        proposal.proposal_boxes = Boxes(target.gt_boxes.tensor[:, [1, 0, 3, 2]] + 2.0)
        proposal.objectness_logits = torch.zeros(len(target))
        proposals.append(proposal)
    images = ImageList(torch.zeros(2, 3, 128, 128), [t.image_size for t in targets])
    with EventStorage():
        _, losses = heads(images, features, proposals, targets)
    expected = {"loss_box_reg"}
    expected.add("loss_cls" if margin == "none" else "loss_margin")
    if inference:
        expected.add("loss_inference")
    if gia:
        expected.add("loss_gia")
    assert set(losses) == expected
    sum(losses.values()).backward()
    for name, parameter in predictor.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


def test_values_reach_the_parts(tmp_path: Path) -> None:
    changed = deepacc(
        ALPHA=0.2,
        BETA=0.3,
        GAMMA=0.4,
        M=0.1,
        S=30.0,
        MARGIN_ON_BACKGROUND=False,
        DELTA=0.25,
        DETACH_CENTERS=False,
        CENTER="pair",
        CENTER_SHARE=0.75,
        GIA_ANCHOR="predicted",
    )
    predictor = DeepACCPredictor(yacs(tmp_path, PAPER, TINY, changed), ShapeSpec(channels=24))
    assert (predictor.alpha, predictor.beta, predictor.gamma) == (0.2, 0.3, 0.4)
    criterion = predictor.margin_branch.criterion
    assert (criterion.m, criterion.s, criterion.margin_on_background) == (0.1, 30.0, False)
    inference = predictor.inference_branch
    assert (inference.delta, inference.detach_centers) == (0.25, False)
    assert (inference.center, inference.center_share) == ("pair", 0.75)
    assert predictor.gia.anchor == "predicted"


REFUSED = [
    (
        deepacc(MARGIN_BRANCH="arcface"),
        r"MODEL\.DEEPACC\.MARGIN_BRANCH='arcface': choose one of angular, linear, none",
    ),
    (
        deepacc(MARGIN_BRANCH="none", INFERENCE_BRANCH=False),
        r"^MODEL\.DEEPACC\.GIA without MODEL\.DEEPACC\.MARGIN_BRANCH: .* or GIA to False$",
    ),
    (
        deepacc(MARGIN_BRANCH="none", GIA=False),
        r"^MODEL\.DEEPACC\.INFERENCE_BRANCH without MODEL\.DEEPACC\.MARGIN_BRANCH",
    ),
    (
        deepacc(MARGIN_BRANCH="none"),
        r"^MODEL\.DEEPACC\.INFERENCE_BRANCH and MODEL\.DEEPACC\.GIA without "
        r"MODEL\.DEEPACC\.MARGIN_BRANCH: set MARGIN_BRANCH to angular or linear",
    ),
    (deepacc(DELTA=1.5), r"MODEL\.DEEPACC\.DELTA=1\.5: .* in \[0, 1\]"),
    (deepacc(CENTER="trio"), r"MODEL\.DEEPACC\.CENTER='trio': choose single or pair"),
    (
        deepacc(CENTER_SHARE=1.5),
        r"MODEL\.DEEPACC\.CENTER_SHARE=1\.5: .* in \[0, 1\]",
    ),
    (deepacc(M=4.0), r"MODEL\.DEEPACC\.M=4\.0: .* in \[0, pi\)"),
    (deepacc(S=0.0), r"MODEL\.DEEPACC\.S=0\.0: .* greater than 0"),
    (deepacc(ALPHA=-1.0), r"MODEL\.DEEPACC\.ALPHA=-1\.0: a loss weight"),
    (deepacc(GIA_ANCHOR="best"), r"MODEL\.DEEPACC\.GIA_ANCHOR='best': choose labelled or"),
    (
        {"MODEL": {"ROI_HEADS": {"NUM_CLASSES": 80}}},
        r"MODEL\.ROI_HEADS\.NUM_CLASSES=80 with MODEL\.DEEPACC\.GIA: .* 24 classes",
    ),
    ({"MODEL": {"KEYPOINT_ON": True}}, r"MODEL\.KEYPOINT_ON is not supported .* set it to False"),
    (
        {"MODEL": {"ROI_BOX_HEAD": {"USE_SIGMOID_CE": True}}},
        r"MODEL\.ROI_BOX_HEAD\.USE_SIGMOID_CE is not supported",
    ),
]


@pytest.mark.parametrize(("change", "message"), REFUSED, ids=[m for _, m in REFUSED])
def test_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    cfg = yacs(tmp_path, PAPER, TINY, change)
    with pytest.raises(ConfigError, match=message):
        DeepACCPredictor(cfg, ShapeSpec(channels=24))


def test_mask_on_trains_and_runs_detectron2s_mask_head(tmp_path: Path) -> None:
    head = {"NAME": "MaskRCNNConvUpsampleHead", "NUM_CONV": 1, "CONV_DIM": 8}
    change = {"MODEL": {"MASK_ON": True, "ROI_MASK_HEAD": head}}
    torch.manual_seed(0)
    model = build_model(yacs(tmp_path, PAPER, TINY, change))
    image = torch.randint(0, 255, (3, 96, 128), dtype=torch.uint8)
    truth = Instances((96, 128))
    truth.gt_boxes = Boxes(torch.tensor([[20.0, 20, 60, 40], [70, 30, 90, 80]]))
    truth.gt_classes = torch.tensor([3, 20])
    truth.gt_masks = PolygonMasks(
        [[np.array([20.0, 20, 60, 20, 60, 40, 20, 40])], [np.array([70.0, 30, 90, 30, 80, 80])]]
    )
    with EventStorage():
        losses = model([{"image": image, "instances": truth}])
    assert float(losses["loss_mask"].detach()) > 0
    sum(losses.values()).backward()
    assert model.roi_heads.mask_head.predictor.weight.grad.abs().sum() > 0
    model.eval()
    model.roi_heads.box_predictor.test_score_thresh = 0.0
    with torch.no_grad():
        (found,) = model([{"image": image, "height": 192, "width": 256}])
    masks = found["instances"].pred_masks
    assert masks.shape == (len(found["instances"]), 192, 256)
    assert len(masks) > 0


def test_other_class_counts_without_the_denver_groups(tmp_path: Path) -> None:
    change = {"MODEL": {"ROI_HEADS": {"NUM_CLASSES": 3}, "DEEPACC": {"GIA": False}}}
    predictor = DeepACCPredictor(yacs(tmp_path, PAPER, TINY, change), ShapeSpec(channels=24))
    assert predictor.margin_branch.weight.shape[0] == 4


def test_forgotten_call_is_named(tmp_path: Path) -> None:
    cfg = get_cfg()
    for number, part in enumerate((PAPER, TINY)):
        path = tmp_path / f"{number}.yaml"
        path.write_text(yaml.safe_dump(part), encoding="utf-8")
        cfg.merge_from_file(str(path))
    with pytest.raises(ConfigError, match=r"MODEL\.DEEPACC is missing: call .*add_deepacc_config"):
        build_model(cfg)


def test_misspelt_key_is_refused(tmp_path: Path) -> None:
    with pytest.raises(KeyError, match=r"MODEL\.DEEPACC\.ALFA"):
        yacs(tmp_path, deepacc(ALFA=0.2))
