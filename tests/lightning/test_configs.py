"""Every preset at every scale composes, builds and learns something from one step."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.data import transforms as T
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage
from hydra.utils import instantiate

from deepacc_lightning.core.config import compose_config, config_dir, to_plain

EXPERIMENTS = sorted(p.stem for p in (Path(config_dir()) / "experiment").glob("*.yaml"))
SCALES = sorted(p.stem for p in (Path(config_dir()) / "scale").glob("*.yaml"))
RPN = {"loss_rpn_cls", "loss_rpn_loc"}
LOSS_KEYS = {
    "baseline": RPN | {"loss_cls", "loss_box_reg"},
    "sep": RPN | {"loss_cls", "loss_box_reg"},
    "retinanet": {"loss_cls", "loss_box_reg"},
    "aam": RPN | {"loss_box_reg", "loss_margin"},
    "siamese": RPN | {"loss_box_reg", "loss_margin", "loss_inference"},
    "siamese_aam": RPN | {"loss_box_reg", "loss_margin", "loss_inference"},
    "siamese_gia": RPN | {"loss_box_reg", "loss_margin", "loss_inference", "loss_gia"},
    "deepacc": RPN | {"loss_box_reg", "loss_margin", "loss_inference", "loss_gia"},
}


def batch(size: int = 128) -> list[dict]:
    rng = np.random.default_rng(0)
    items = []
    for _ in range(2):
        corner = torch.from_numpy(rng.uniform(0, size - 40, (5, 2)).astype(np.float32))
        instances = Instances((size, size))
        instances.gt_boxes = Boxes(torch.cat([corner, corner + 36], dim=1))
        instances.gt_classes = torch.arange(5)
        image = torch.from_numpy(rng.integers(0, 256, (1, size, size), dtype=np.uint8))
        items.append({"image": image, "instances": instances, "height": size, "width": size})
    return items


def compose(experiment: str, scale: str):
    return compose_config(
        "train",
        [
            f"experiment={experiment}",
            f"scale={scale}",
            "pixel_mean=200",
            "pixel_std=50",
            "data=coco",
            "data.root=/nowhere",
            "init_weights=null",
        ],
    )


def test_deepacc_differs_from_siamese_gia_in_its_centers_alone() -> None:
    one, other = (to_plain(compose(name, "lab")) for name in ("siamese_gia", "deepacc"))
    branch = other["model"]["roi_heads"]["box_predictor"]["inference_branch"]
    assert (branch["center"], branch["center_share"]) == ("pair", 0.5)
    branch |= {"center": "single", "center_share": 1.0}
    assert one["model"] == other["model"]
    assert one["scale"] == other["scale"]


def test_augmentations_of_the_lab_scale_run_and_repeat_by_the_seed() -> None:
    rng = np.random.default_rng(1)
    image = np.full((300, 320), 225, dtype=np.uint8)
    boxes = []
    for n in range(20):
        x, y = 20 + 60 * (n % 5), 15 + 70 * (n // 5)
        image[y : y + 40, x : x + 11] = rng.integers(60, 110)
        boxes.append([x - 2, y - 2, x + 13, y + 42])
    augmentations = [instantiate(a) for a in compose("sep", "lab").scale.train_augmentations]
    names = [type(a).__name__ for a in augmentations]
    assert names.index("NormalizeTone") < names.index("RandomCrowding")
    seen = []
    for seed in (0, 1, 2, 3, 0):
        np.random.seed(seed)  # noqa: NPY002 - Detectron2 draws from NumPy's global generator
        inputs = T.AugInput(image.copy(), boxes=np.array(boxes, dtype=np.float32))
        T.AugmentationList(augmentations)(inputs)
        height, width = inputs.image.shape
        assert len(inputs.boxes) == 20
        assert (inputs.boxes >= -1).all()
        assert (inputs.boxes <= np.array([width, height, width, height]) + 1).all()
        seen.append((inputs.image, inputs.boxes))
    np.testing.assert_array_equal(seen[0][0], seen[-1][0])
    np.testing.assert_array_equal(seen[0][1], seen[-1][1])


def test_every_listed_preset_exists() -> None:
    assert set(LOSS_KEYS) == set(EXPERIMENTS)
    assert SCALES == ["lab", "paper", "quick"]


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_composes_and_resolves(experiment: str, scale: str) -> None:
    cfg = compose(experiment, scale)
    plain = to_plain(cfg)
    assert plain["preset"] == experiment
    assert plain["scale"]["name"] == scale
    expected = "SGD" if scale == "paper" else "AdamW"
    assert plain["optim"]["optimizer"]["_target_"].endswith(expected)


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_one_step_gives_every_parameter_a_finite_gradient(experiment: str) -> None:
    torch.manual_seed(0)
    model = instantiate(compose(experiment, "quick").model)
    model.train()
    with EventStorage(), torch.autocast("cpu", dtype=torch.bfloat16):
        losses = model(batch())
    assert set(losses) == LOSS_KEYS[experiment]
    torch.stack([v.float() for v in losses.values()]).sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name


@pytest.mark.parametrize("experiment", ["sep", "retinanet"])
def test_paper_scale_is_the_papers_network(experiment: str) -> None:
    # On the meta device R-101 costs neither memory nor the time to draw its weights.
    with torch.device("meta"):
        model = instantiate(compose(experiment, "paper").model)
    blocks = [len(getattr(model.backbone.bottom_up, f"res{i}")) for i in range(2, 6)]
    assert blocks == [3, 4, 23, 3]
    assert model.pixel_mean.shape == (3, 1, 1)
    assert model.backbone.output_shape()["p3"].channels == 256
    if experiment == "sep":
        streams = model.roi_heads.box_head
        assert [fc.out_features for fc in streams.classification.fcs] == [1024, 1024]
        assert model.roi_heads.batch_size_per_image == 512
        assert model.proposal_generator.post_nms_topk == {True: 2000, False: 1000}


def test_paper_schedule_drops_at_16_and_22_of_24_epochs() -> None:
    cfg = compose("baseline", "paper")
    course = instantiate(cfg.optim.course)
    rates = [course((epoch + 0.5) / 24) for epoch in range(24)]
    assert rates == pytest.approx([1.0] * 16 + [0.1] * 6 + [0.01] * 2)
    assert cfg.trainer.max_epochs == 24
    assert cfg.optim.reference_batch_size == 16


def test_no_file_imports_the_package_of_the_same_name() -> None:
    root = Path(config_dir()).parent
    words = ("import " + "lightning", "from " + "lightning")
    for path in [*root.glob("deepacc_d2/**/*.py"), *root.glob("lightning/*.py")]:
        for line in path.read_text(encoding="utf-8").splitlines():
            assert not line.strip().startswith(words), f"{path}: {line}"


def test_the_detector_package_needs_no_trainer() -> None:
    root = Path(config_dir()).parent
    for path in root.glob("deepacc_d2/**/*.py"):
        text = path.read_text(encoding="utf-8")
        for name in ("pytorch_lightning", "hydra", "wandb"):
            assert f"import {name}" not in text, path
            assert f"from {name}" not in text, path
