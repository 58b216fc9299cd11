"""A detector, slides, data sets and settings so small that every program takes seconds."""

from __future__ import annotations

import copy
import functools
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from hydra.utils import instantiate

from deepacc_lightning.core.config import compose_config, quoted, to_plain

MODEL = (
    *("pixel_mean=228", "pixel_std=45", "scale=lab", "data.root=unused", "out=unused"),
    *("scale.backbone.stem_channels=8", "scale.backbone.res2_channels=8"),
    *("scale.fpn.out_channels=16", "scale.roi.fc_dims=[16,16]"),
    *("scale.rpn.pre_nms_topk=[60,60]", "scale.rpn.post_nms_topk=[20,20]"),
    "experiment=siamese_gia",
)
TRAINING = (
    *("experiment=siamese_gia", "scale.image_size=96", "scale.precision=32-true"),
    *("scale.backbone.stem_channels=8", "scale.backbone.res2_channels=8"),
    *(
        "scale.fpn.out_channels=32",
        "scale.roi.fc_dims=[16,16]",
        "scale.roi.batch_size_per_image=32",
    ),
    *("scale.rpn.pre_nms_topk=[100,100]", "scale.rpn.post_nms_topk=[40,40]"),
    *("scale.batch_size=2", "scale.test_batch_size=1", "scale.num_workers=0"),
    *("scale.max_epochs=3", "scale.check_val_every_n_epoch=1", "logger=csv"),
    *(
        "trainer.enable_progress_bar=false",
        "trainer.log_every_n_steps=1",
        "callbacks.progress=null",
    ),
    *("trainer.accelerator=cpu", "model.roi_heads.box_predictor.test_score_thresh=0.0"),
)
PREDICTING = ("num_workers=0", "draw_workers=0", "accelerator=cpu", "karyogram=[png]")


def checkpoint_content() -> dict[str, Any]:
    """Returns the content of a checkpoint of a detector with random weights, the caller's own."""
    return copy.deepcopy(_content())


@functools.cache
def _content() -> dict[str, Any]:
    cfg = to_plain(compose_config("train", MODEL))
    torch.manual_seed(5)
    model: torch.nn.Module = instantiate(cfg["model"])
    # Random weights are sure of nothing: every proposal counts.
    selection = {"min_foreground": 0.0, "iou": 0.3, "max_chromosomes": 12}
    return {"model": model.state_dict(), "deepacc_config": cfg, "selection": selection}


def write_checkpoint(path: Path) -> Path:
    """Writes a detector with random weights."""
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(checkpoint_content(), path)
    return path


def picture(seed: int, size: tuple[int, int] = (180, 140)) -> np.ndarray:
    """Returns gray levels (H, W) with some dark ellipses; size is width and height in pixels."""
    rng = np.random.default_rng(seed)
    image = rng.integers(222, 242, (size[1], size[0]), dtype=np.uint8)
    for _ in range(7):
        center = (int(rng.integers(15, size[0] - 15)), int(rng.integers(15, size[1] - 15)))
        cv2.ellipse(image, center, (16, 4), int(rng.integers(180)), 0, 360, 90, -1)
    return image


def write_picture(path: Path, seed: int, size: tuple[int, int] = (180, 140)) -> Path:
    """Writes such a picture; the suffix chooses the format."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(path.suffix, picture(seed, size))[1].tobytes())
    return path


def write_slides(root: Path, count: int) -> Path:
    """Writes pictures in folders of cases of two."""
    for number in range(count):
        write_picture(root / f"p{number // 2}" / f"cell{number}.png", number)
    return root


def coco_source(root: Path, images: int, seed: int = 0) -> Path:
    """Writes a COCO source: images, and an annotation file beside them, ten boxes an image."""
    rng = np.random.default_rng(seed)
    entries, annotations = [], []
    for number in range(1, images + 1):
        write_picture(root / "images" / f"case{number}_1.png", 1000 * seed + number, (96, 80))
        entries.append(
            {"id": number, "file_name": f"case{number}_1.png", "width": 96, "height": 80}
        )
        for x, y, w, h in rng.integers((0, 0, 5, 5), (60, 50, 30, 25), (10, 4)).tolist():
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": int(rng.integers(1, 25)),
                    "bbox": [x, y, w, h],
                    "area": w * h,
                    "iscrowd": 0,
                }
            )
    names = [*map(str, range(1, 23)), "X", "Y"]
    categories = [{"id": number, "name": name} for number, name in enumerate(names, start=1)]
    content = {"images": entries, "annotations": annotations, "categories": categories}
    (root / "annotations.json").write_text(json.dumps(content), "utf-8")
    return root


def predict_arguments(checkpoint: Path, images: Path, out: Path, *more: str) -> list[str]:
    """Returns the arguments of ``make predict``."""
    paths = (("ckpt", checkpoint), ("images", images), ("out", out))
    return [*(f"{key}={quoted(path)}" for key, path in paths), *PREDICTING, *more]


def train_arguments(data: Path, out: Path, more: Iterable[str] = ()) -> list[str]:
    """Returns the arguments of ``make train``."""
    return [*TRAINING, "data=coco", f"data.root={quoted(data)}", f"out={quoted(out)}", *more]
