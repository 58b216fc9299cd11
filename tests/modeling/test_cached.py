"""The heads on cached trunk output do what the whole detector does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from detectron2.utils.events import EventStorage

from deepacc_d2.modeling.cached import CachedRCNN, encode, fingerprint, trunk_weights

Build = Callable[..., Any]


def cached_items(model: Any, items: list[dict], *, training: bool) -> list[dict]:
    result = []
    for item in items:  # one by one: each is padded as it is in the cache
        [(maps, proposals)] = encode(model, [item], ["p3", "p4"], training=training)
        result.append({**item, "maps": maps, "proposals": proposals})
    return result


def test_detections_are_the_whole_detectors(make_rcnn: Build, make_item: Build) -> None:
    model = make_rcnn().eval()
    items = [make_item(64, 96, seed=1), make_item(64, 96, seed=2)]
    for item in items:
        item.update(height=128, width=192)
    heads = CachedRCNN(model.roi_heads).eval()
    with torch.no_grad():
        expected = model(items)
        found = heads(cached_items(model, items, training=False))
    for ours, theirs in zip(found, expected, strict=True):
        names = {"instances": ("scores", "pred_classes"), "proposals": ("probabilities",)}
        for kind, fields in names.items():
            assert len(ours[kind]) == len(theirs[kind]) > 0
            for field in fields:
                torch.testing.assert_close(ours[kind].get(field), theirs[kind].get(field))
            torch.testing.assert_close(ours[kind].pred_boxes.tensor, theirs[kind].pred_boxes.tensor)
            assert ours[kind].image_size == (128, 192)


def test_losses_and_gradients_are_those_of_the_heads_on_a_frozen_trunk(
    make_rcnn: Build, make_item: Build
) -> None:
    model = make_rcnn().eval()
    items = [make_item(64, 96, seed=1), make_item(64, 96, seed=2)]
    inputs = cached_items(model, items, training=True)
    losses, gradients = [], []
    for whole in (False, True):
        model.zero_grad()
        torch.manual_seed(0)
        model.roi_heads.train()
        with EventStorage():
            if whole:
                images = model.preprocess_image(items)
                with torch.no_grad():
                    features = model.backbone(images.tensor)
                proposals = [item["proposals"] for item in inputs]
                targets = [item["instances"] for item in items]
                result = model.roi_heads(images, features, proposals, targets)[1]
            else:
                result = CachedRCNN(model.roi_heads)(inputs)
        sum(result.values()).backward()
        losses.append(result)
        gradients.append(model.roi_heads.box_head.fc1.weight.grad.clone())
        assert all(p.grad is None for p in model.backbone.parameters())
    assert losses[0].keys() == losses[1].keys()
    for name in losses[0]:
        torch.testing.assert_close(losses[0][name], losses[1][name], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-3, atol=1e-5)


def test_maps_of_several_sizes_are_padded_without_a_trace(
    make_rcnn: Build, make_item: Build
) -> None:
    model = make_rcnn().eval()
    items = [make_item(64, 96, seed=1), make_item(48, 80, seed=2), make_item(96, 64, seed=3)]
    inputs = cached_items(model, items, training=False)
    heads = CachedRCNN(model.roi_heads).eval()
    with torch.no_grad():
        together = heads(inputs)
        alone = [heads([item])[0] for item in inputs]
    for ours, theirs in zip(together, alone, strict=True):
        probabilities = (found["proposals"].probabilities for found in (ours, theirs))
        torch.testing.assert_close(*probabilities)


def test_training_records_keep_as_many_proposals_as_training_does(
    make_rcnn: Build, make_item: Build
) -> None:
    model = make_rcnn().eval()
    rpn = model.proposal_generator
    rpn.post_nms_topk = {True: 12, False: 5}
    kept = rpn.pre_nms_topk, rpn.post_nms_topk
    counts = [
        len(encode(model, [make_item()], ["p3"], training=training)[0][1])
        for training in (True, False)
    ]
    assert counts == [12, 5]
    assert (rpn.pre_nms_topk, rpn.post_nms_topk) == kept


def test_fingerprint_sees_names_and_values(make_rcnn: Build) -> None:
    weights = trunk_weights(make_rcnn().state_dict())
    assert weights
    assert not any(name.startswith("roi_heads") for name in weights)
    first = fingerprint(weights)
    assert fingerprint(dict(reversed(weights.items()))) == first
    name = next(iter(weights))
    assert fingerprint({**weights, name: weights[name] + 1e-3}) != first
    assert fingerprint({f"x{k}": v for k, v in weights.items()}) != first


def test_a_released_trunk_in_half_precision_is_the_same_trunk(make_rcnn: Build) -> None:
    """As ``release`` stores it: a resumed ablation compares it with what its model held."""
    stored = {
        name: value.to(torch.bfloat16) if value.is_floating_point() and value.ndim > 1 else value
        for name, value in make_rcnn().state_dict().items()
    }
    model = make_rcnn()
    model.load_state_dict(stored)
    held = trunk_weights(model.state_dict())
    assert fingerprint(trunk_weights(stored)) == fingerprint(held)
