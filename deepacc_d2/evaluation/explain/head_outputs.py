"""What the heads of a detector say of every proposal of an image, as plain arrays, before any NMS.

Shapes: N proposals of an image, K = 24 foreground classes, C = K + 1 with background last, d
features. Boxes are XYXY in pixels of the original image.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from detectron2.structures import ImageList, Instances
from torch import Tensor, nn
from torch.nn import functional as F

from deepacc_d2.chromosomes import NUM_CLASSES
from deepacc_d2.errors import ConfigError
from deepacc_d2.losses.aam import NORM_EPS
from deepacc_d2.modeling.deepacc_predictor import DeepACCOutput
from deepacc_d2.modeling.roi_heads import ChromosomeROIHeads

Place = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True, eq=False)
class HeadOutput:
    """One image's proposals; what a preset has not is None.

    Attributes:
        proposal_boxes: (N, 4) float64, where the features were pooled.
        boxes: (N, K, 4) float64, the refined box of each class, clipped to the image.
        result: (N, C) float64, the probabilities that detections are made of.
        margin: (N, C) float64, those of the margin branch, without margin.
        inference: (N, C) float64, those of the inference branch.
        context: (N, C) float64, those after the cell's context, which are then the result.
        features: (N, d) float64 unit vectors, the classification stream's.
        global_centers: (K, d) float64 unit vectors: the margin branch's class centers, or, without
            that branch, the directions of the plain classifier's weights.
        local_centers: (K, d) float64 unit vectors that the inference branch compared with.
        source: (K,) int64, the proposal that each local center is of; -1 where it is the global
            center.
        partner: (K,) int64, the second proposal of a pair; -1 where there is none. None, too,
            where no center can be a pair.
        delta: score above which a proposal becomes a local center.
        input_boxes: (N, 4) float32 in pixels of the network's input, each of the result's class:
            with ``result``, what a detector chooses from.
    """

    proposal_boxes: np.ndarray
    boxes: np.ndarray
    result: np.ndarray
    margin: np.ndarray | None
    inference: np.ndarray | None
    features: np.ndarray
    global_centers: np.ndarray
    local_centers: np.ndarray | None = None
    source: np.ndarray | None = None
    partner: np.ndarray | None = None
    delta: float | None = None
    context: np.ndarray | None = None
    input_boxes: np.ndarray | None = None


def check_has_heads(model: nn.Module) -> None:
    """Checks that a model classifies proposals.

    Raises:
        ConfigError: it is RetinaNet, say, which has no ROI heads.
    """
    if not isinstance(getattr(model, "roi_heads", None), ChromosomeROIHeads):
        raise ConfigError(
            f"a {type(model).__name__} has no ROI heads, so no branches to look into: pass a "
            "checkpoint of another preset than retinanet"
        )


def read_heads(model: nn.Module, batch: Sequence[Mapping[str, Any]]) -> list[HeadOutput]:
    """Runs a detector up to its heads on a batch of inputs.

    Args:
        model: with :class:`ChromosomeROIHeads` or heads derived from it; its mode is kept.
        batch: as the model takes it; each with ``image`` and, where the original has another size,
            ``height`` and ``width``.

    Raises:
        ConfigError: see :func:`check_has_heads`.
    """
    check_has_heads(model)
    was_training = model.training
    model.eval()
    try:
        images = model.preprocess_image(batch)  # type: ignore[operator]
        places = [_scaling(item, images.image_sizes[i]) for i, item in enumerate(batch)]
        return read_images(model, images, places)
    finally:
        model.train(was_training)


@torch.no_grad()
def read_images(model: nn.Module, images: ImageList, places: Sequence[Place]) -> list[HeadOutput]:
    """Runs a detector up to its heads on normalized images.

    Args:
        model: see :func:`read_heads`; in evaluation mode.
        images: as its backbone takes them.
        places: of each image, what brings boxes (n, 4) of it to pixels of the original.

    Raises:
        ConfigError: see :func:`check_has_heads`.
    """
    check_has_heads(model)
    heads: Any = model.roi_heads
    predictor: Any = heads.box_predictor
    regions: list[Any] = []
    # Detectron2's own predictor returns no features: its input is read instead.
    hook = predictor.register_forward_pre_hook(lambda _, inputs: regions.append(inputs[0]))
    try:
        proposals, output = model.read(images)  # type: ignore[operator]
    finally:
        hook.remove()
    predictions = heads.predictions(output)
    boxes = predictor.predict_boxes(predictions, proposals)
    chosen = predictor.proposals(predictions, proposals)
    features = regions[0][0] if isinstance(regions[0], tuple) else regions[0]
    parts: dict[str, list[Any]] = {
        "result": [_array(p.probabilities) for p in chosen],
        "input_boxes": [p.pred_boxes.tensor.cpu().numpy() for p in chosen],
        "features": _per_image(_unit(features.flatten(start_dim=1)), proposals),
        "margin": [None] * len(proposals),
        "inference": [None] * len(proposals),
    }
    centers = None
    if isinstance(output, DeepACCOutput):
        centers = output.centers
        for name in ("margin", "inference"):
            logits = getattr(output, f"{name}_logits")
            if logits is not None:
                parts[name] = _per_image(logits.softmax(dim=1), proposals)
        if predictor.context is not None:
            parts["context"] = parts["result"]
    found = []
    for i, place in enumerate(places):
        per_class = _array(_per_class(boxes[i]))
        local: dict[str, Any] = {}
        if centers is not None:
            local["local_centers"] = _array(centers.weights[i, :-1])
            local["source"] = centers.source[i, :-1].cpu().numpy()
            if predictor.inference_branch.center == "pair":
                local["partner"] = centers.partner[i, :-1].cpu().numpy()
            local["delta"] = predictor.inference_branch.delta
        found.append(
            HeadOutput(
                proposal_boxes=place(_array(proposals[i].proposal_boxes.tensor)),
                boxes=place(per_class.reshape(-1, 4)).reshape(per_class.shape),
                global_centers=_global_centers(predictor),
                **{name: values[i] for name, values in parts.items()},
                **local,
            )
        )
    return found


def _global_centers(predictor: Any) -> np.ndarray:
    margin = getattr(predictor, "margin_branch", None)
    weight = predictor.cls_score.weight if margin is None else margin.weight
    return _array(_unit(weight)[:NUM_CLASSES])


def _unit(x: Tensor) -> Tensor:
    return F.normalize(x.float(), dim=1, eps=NORM_EPS)


def _array(x: Tensor) -> np.ndarray:
    return x.detach().double().cpu().numpy()


def _per_image(x: Tensor, proposals: Sequence[Instances]) -> list[np.ndarray]:
    return [_array(part) for part in x.split([len(p) for p in proposals])]


def _per_class(boxes: Tensor) -> Tensor:
    """(N, 4K) or, from a class-agnostic regression, (N, 4) to (N, K, 4)."""
    return boxes.view(len(boxes), boxes.shape[1] // 4, 4).expand(-1, NUM_CLASSES, -1)


def _scaling(item: Mapping[str, Any], size: tuple[int, int]) -> Place:
    """Returns what scales boxes of an input of this size to the original's, and clips them."""
    height, width = item.get("height", size[0]), item.get("width", size[1])
    limit = np.array([width, height, width, height], dtype=np.float64)
    scale = limit / np.array([size[1], size[0], size[1], size[0]])
    return lambda boxes: np.clip(boxes * scale, 0.0, limit)
