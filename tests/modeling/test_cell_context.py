"""Cell context: what it may depend on, and what it does to boxes that it does not keep."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from deepacc_d2.errors import ConfigError
from deepacc_d2.modeling import CellContext
from deepacc_d2.modeling.cell_context import box_shapes, evidence, median_shape

D, K = 12, 24
N = 9


def make(**options: Any) -> CellContext:
    """A small context whose last layer is not zero, so that it corrects something."""
    torch.manual_seed(0)
    context = CellContext(D, K, width=16, layers=2, heads=2, **options).eval()
    torch.nn.init.normal_(context.head.weight)
    torch.nn.init.normal_(context.head.bias)
    return context


def cell(n: int = N, seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Features, margin logits, logits and boxes of n chromosomes that lie apart."""
    g = torch.Generator().manual_seed(seed)
    logits = torch.randn(n, K + 1, generator=g)
    logits[:, -1] = -6
    corner = torch.arange(n)[:, None] * torch.tensor([100.0, 60.0])
    sides = 10 + 40 * torch.rand(n, 2, generator=g)
    boxes = torch.cat([corner, corner + sides], dim=1)
    features = torch.randn(n, D, generator=g)
    return features, torch.randn(n, K + 1, generator=g), logits, boxes


def test_untrained_it_changes_no_probability_of_a_kept_box() -> None:
    features, margin, logits, boxes = cell()
    context = CellContext(D, K, width=16, layers=2, heads=2).eval()
    found = context(features, margin, logits, boxes, [N])
    assert torch.allclose(found.softmax(1), logits.softmax(1), atol=1e-6)


def test_it_does_correct() -> None:
    features, margin, logits, boxes = cell()
    found = make()(features, margin, logits, boxes, [N])
    assert (found.softmax(1) - logits.softmax(1)).abs().max() > 0.01


def test_the_order_of_boxes_does_not_matter() -> None:
    parts = cell()
    order = torch.randperm(N, generator=torch.Generator().manual_seed(1))
    context = make()
    found = context(*parts, [N])
    shuffled = context(*(t[order] for t in parts), [N])
    assert torch.allclose(found[order], shuffled, atol=1e-4)


@pytest.mark.parametrize("factor", [0.25, 3.0])
def test_neither_magnification_nor_place_matter(factor: float) -> None:
    features, margin, logits, boxes = cell()
    context = make()
    found = context(features, margin, logits, boxes, [N])
    moved = context(features, margin, logits, boxes * factor + 50, [N])
    assert torch.allclose(found, moved, atol=1e-3)


def test_sizes_relative_to_the_cell_do_matter() -> None:
    features, margin, logits, boxes = cell()
    larger = boxes.clone()
    larger[0, 2:] += 30
    context = make()
    one, two = (context(features, margin, logits, b, [N]) for b in (boxes, larger))
    assert not torch.allclose(one[0], two[0], atol=1e-3)


def test_a_box_is_read_in_the_light_of_the_others_of_its_image_only() -> None:
    one, two = cell(seed=0), cell(seed=1)
    context = make()
    alone = context(*one, [N])
    together = context(*(torch.cat(pair) for pair in zip(one, two, strict=True)), [N, N])
    assert torch.allclose(alone, together[:N], atol=1e-4)
    changed = [t.clone() for t in one]
    changed[0][3] = -changed[0][3]
    assert (context(*changed, [N])[0] - alone[0]).abs().max() > 1e-4


def test_without_layers_each_box_stands_alone() -> None:
    torch.manual_seed(0)
    context = CellContext(D, K, width=16, layers=0, heads=2).eval()
    torch.nn.init.normal_(context.head.weight)
    one = cell()
    changed = [t.clone() for t in one]
    changed[0][3] = -changed[0][3]
    assert torch.allclose(context(*changed, [N])[0], context(*one, [N])[0])


def test_duplicates_and_boxes_on_nothing_are_surely_background() -> None:
    features, margin, logits, boxes = cell()
    logits[0, 5] = 12.0  # sure, but a chromosome all the same
    boxes[1] = boxes[0] + 1  # the same chromosome once more, less sure
    logits[2] = -8.0
    logits[2, -1] = 8.0
    found = make()(features, margin, logits, boxes, [N]).softmax(1)
    assert found[1, -1] > 1 - 1e-6
    assert found[2, -1] > 1 - 1e-6
    assert found[0, -1] < 1 - 1e-6


def test_what_is_not_kept_does_not_shake_what_is() -> None:
    parts = cell()
    context = make()
    found = context(*parts, [N])
    copies = [torch.cat([t, t[:1]]) for t in parts]
    copies[2][-1] *= 0.5  # less sure of its class, so it is the one to go
    copies[2][-1, -1] = -6
    assert torch.allclose(context(*copies, [N + 1])[:N], found, atol=1e-4)


def test_images_without_boxes() -> None:
    parts = cell()
    context = make()
    found = context(*parts, [0, N, 0])
    assert torch.allclose(found, context(*parts, [N]), atol=1e-5)
    empty = [t[:0] for t in parts]
    assert context(*empty, [0]).shape == (0, K + 1)
    nothing = parts[2].clone()
    nothing[:, -1] = 20
    assert (context(parts[0], parts[1], nothing, parts[3], [N]).argmax(1) == K).all()


def test_padding_changes_nothing() -> None:
    features, margin, logits, boxes = cell()
    context = make()
    shapes = box_shapes(boxes)
    known, shapes = evidence(features, margin, logits), shapes - median_shape(shapes)
    plain = context.correct(known[None], shapes[None])[0]
    padded = [torch.cat([t, torch.ones(4, t.shape[1])])[None] for t in (known, shapes)]
    hidden = torch.arange(N + 4)[None] >= N
    assert torch.allclose(context.correct(*padded, hidden)[0, :N], plain, atol=1e-5)


def test_evidence_by_hand() -> None:
    features, margin, logits, _ = cell(2)
    found = evidence(features, margin, logits).double().numpy()
    for n in range(2):
        x = features[n].double().numpy()
        length = math.sqrt(sum(v * v for v in x))
        parts = [x / length, [math.log(length)]]
        for each in (margin, logits):
            row = each[n].double().numpy()
            logs = row - math.log(sum(math.exp(v) for v in row))
            parts.append(np.maximum(logs, -20))
        assert np.allclose(found[n], np.concatenate(parts), atol=1e-5)


def test_shapes_by_hand() -> None:
    boxes = torch.tensor([[0.0, 0, 4, 9], [10, 10, 18, 12], [1, 1, 2, 2]])
    expected = np.log([[6, 9, 4], [4, 8, 2], [1, 1, 1]])
    assert np.allclose(box_shapes(boxes).numpy(), expected, atol=1e-6)
    assert np.allclose(median_shape(box_shapes(boxes)).numpy(), np.log([4, 8, 2]), atol=1e-6)
    assert median_shape(torch.zeros(0, 3)).tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    "options",
    [{"width": 10, "heads": 3}, {"layers": -1}, {"iou": 1.5}, {"min_foreground": -0.1}],
)
def test_bad_numbers_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="context"):
        CellContext(D, K, **options)


def test_the_predictor_uses_it_when_testing_only(make_deepacc_predictor: Any) -> None:
    context = CellContext(24, K, width=16, layers=1, heads=2)
    torch.nn.init.normal_(context.head.weight, std=3)
    predictor = make_deepacc_predictor(context=context)
    assert not any(p.requires_grad for p in predictor.context.parameters())
    boxes = cell()[3]
    x = torch.randn(N, 24)
    predictor.train()
    trained = predictor((x, x), [N], boxes)
    assert torch.equal(trained.predictions[0], trained.inference_logits)
    predictor.eval()
    tested = predictor((x, x), [N], boxes)
    placed = predictor.best_boxes(tested.inference_logits, tested.predictions[1], boxes)
    expected = predictor.context(x, tested.margin_logits, tested.inference_logits, placed, [N])
    assert torch.equal(tested.predictions[0], expected)
    assert not torch.equal(tested.predictions[0], tested.inference_logits)
    with pytest.raises(ConfigError, match="boxes"):
        predictor((x, x), [N])


def test_best_boxes_are_those_of_the_best_class(make_deepacc_predictor: Any) -> None:
    predictor = make_deepacc_predictor()
    logits, deltas, proposals = torch.randn(5, K + 1), torch.randn(5, 4 * K), cell(5)[3]
    found = predictor.best_boxes(logits, deltas, proposals)
    every = predictor.box2box_transform.apply_deltas(deltas, proposals)
    for n in range(5):
        k = int(logits[n, :-1].argmax())
        assert torch.equal(found[n], every[n, 4 * k : 4 * k + 4])
