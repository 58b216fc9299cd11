"""Torchvision's Faster R-CNN, trained for a given time."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models import detection
from torchvision.models.detection.transform import GeneralizedRCNNTransform

from deepacc_d2.chromosomes import NUM_CLASSES
from deepacc_d2.data.dataset import read_split, to_dicts
from deepacc_d2.images.read import read_gray

LR, WARM_UP = 1e-3, 0.05
"""AdamW's learning rate, that of our own detectors, and the share of the time over which it rises.
"""


class _AsItIs(GeneralizedRCNNTransform):
    """Normalizes and pads, but leaves an image at its size: views have theirs already."""

    def resize(
        self, image: Tensor, target: dict[str, Tensor] | None = None
    ) -> tuple[Tensor, dict[str, Tensor] | None]:
        return image, target


def _builder(build: Callable[..., nn.Module]) -> Callable[[int], nn.Module]:
    def made(image_size: int) -> nn.Module:
        network = build(
            weights=None,
            weights_backbone=None,
            num_classes=NUM_CLASSES + 1,
            trainable_backbone_layers=None,  # from random weights, no layer is frozen
            box_detections_per_img=100,
        )
        # One gray channel, three times.
        network.transform = _AsItIs(image_size, image_size, [0.88] * 3, [0.17] * 3)
        return network

    return made


TORCHVISION: dict[str, Callable[[int], nn.Module]] = {
    "faster_rcnn": _builder(detection.fasterrcnn_resnet50_fpn),
    "faster_rcnn_mobilenet": _builder(detection.fasterrcnn_mobilenet_v3_large_fpn),
}


def batches(
    views: Path, batch_size: int, seed: int
) -> Iterator[tuple[list[Tensor], list[dict[str, Tensor]]]]:
    """Yields images (3, H, W) in 0..1 and their boxes and labels, shuffled anew in each pass.

    Each is mirrored and turned by chance: a chromosome may point anywhere.
    """
    items = to_dicts(read_split(views, "train"), views)
    rng = torch.Generator().manual_seed(seed)
    while True:
        order = torch.randperm(len(items), generator=rng).tolist()
        for start in range(0, len(order) - batch_size + 1, batch_size):
            images, targets = [], []
            for row in order[start : start + batch_size]:
                item = items[row]
                image = torch.from_numpy(read_gray(item["file_name"])).float().div(255)
                boxes = torch.from_numpy(item["boxes"]).float()
                image, boxes = _turned(image, boxes, torch.rand(3, generator=rng) < 0.5)
                images.append(image.expand(3, -1, -1))
                targets.append({"boxes": boxes, "labels": torch.from_numpy(item["classes"]) + 1})
            yield images, targets


def _turned(image: Tensor, boxes: Tensor, by_chance: Tensor) -> tuple[Tensor, Tensor]:
    """Mirrors an image (H, W) and boxes (G, 4) left-right, up-down and across, each if asked."""
    height, width = image.shape
    across, down, transposed = by_chance.tolist()
    x0, y0, x1, y1 = boxes.unbind(dim=1)
    if across:
        image, x0, x1 = image.flip(1), width - x1, width - x0
    if down:
        image, y0, y1 = image.flip(0), height - y1, height - y0
    if transposed:
        image, (x0, y0, x1, y1) = image.T, (y0, x0, y1, x1)
    return image, torch.stack([x0, y0, x1, y1], dim=1)


def train_torchvision(
    name: str,
    views: Path,
    *,
    seconds: float,
    batch_size: int,
    image_size: int,
    device: str,
    seed: int,
) -> tuple[nn.Module, int]:
    """Trains a detector from random weights by AdamW, whose rate is a cosine over the time.

    Returns:
        The network, and how many images it was shown.
    """
    torch.manual_seed(seed)
    network: Any = TORCHVISION[name](image_size).train().to(device)
    optimizer = torch.optim.AdamW(network.parameters(), lr=LR, weight_decay=0.05)
    seen, began = 0, time.monotonic()
    for images, targets in batches(views, batch_size, seed):
        share = (time.monotonic() - began) / seconds
        if share >= 1:
            break
        rate = min(share / WARM_UP, 1) * (1 + math.cos(math.pi * share)) / 2
        for group in optimizer.param_groups:
            group["lr"] = LR * max(rate, 1e-3)
        placed = [{k: v.to(device) for k, v in target.items()} for target in targets]
        with torch.autocast(device, dtype=torch.bfloat16):
            losses = network([image.to(device) for image in images], placed)
            loss = sum(losses.values())
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 10.0)
        optimizer.step()
        seen += len(images)
    return network, seen
