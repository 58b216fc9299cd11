from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from detectron2.modeling.sampling import subsample_labels as detectron2_subsample
from detectron2.utils.events import EventStorage

from deepacc_d2.modeling import image_seeds
from deepacc_d2.modeling.sampling import ANCHORS, PROPOSALS, generators, subsample_labels

Build = Callable[..., Any]
CPU = torch.device("cpu")


@pytest.mark.parametrize("positives", [0, 3, 40])
@pytest.mark.parametrize("negatives", [0, 5, 100])
def test_without_a_generator_it_is_detectron2s(positives: int, negatives: int) -> None:
    labels = torch.cat(
        [torch.full((positives,), 7), torch.full((negatives,), 24), torch.full((9,), -1)]
    )
    torch.manual_seed(3)
    expected = detectron2_subsample(labels, 32, 0.5, 24)
    torch.manual_seed(3)
    found = subsample_labels(labels, 32, 0.5, 24)
    for a, b in zip(found, expected, strict=True):
        assert a.tolist() == b.tolist()


def test_each_image_and_stream_has_numbers_of_its_own() -> None:
    with image_seeds([{"seed": 1}, {}, {"seed": 2}]):
        drawn = [
            None if g is None else torch.rand(4, generator=g).tolist()
            for stream in (ANCHORS, PROPOSALS)
            for g in generators(3, stream, CPU)
        ]
    assert drawn[1] is drawn[4] is None
    numbers = [tuple(d) for d in drawn if d is not None]
    assert len(set(numbers)) == 4


def test_no_seeds_outside_and_with_other_batches() -> None:
    assert list(generators(2, ANCHORS, CPU)) == [None, None]
    with image_seeds([{"seed": 1}]):
        assert list(generators(2, ANCHORS, CPU)) == [None, None]
    assert list(generators(1, ANCHORS, CPU)) == [None]


def _losses(model: Any, batch: list[dict[str, Any]]) -> dict[str, float]:
    with EventStorage(), image_seeds(batch), torch.no_grad():
        return {name: float(loss) for name, loss in model.train()(batch).items()}


def test_what_is_drawn_does_not_depend_on_what_was_drawn_before(
    make_rcnn: Build, make_item: Build
) -> None:
    model = make_rcnn()
    batch = [{**make_item(seed=i), "seed": 100 + i} for i in range(2)]
    torch.manual_seed(0)
    first = _losses(model, batch)
    torch.rand(17)
    again = _losses(model, batch)
    # Batch norm's running statistics have moved, but training does not use them.
    assert again == first
    other = _losses(model, [{**item, "seed": item["seed"] + 50} for item in batch])
    assert other != first


def test_the_order_of_a_batch_does_not_matter(make_rcnn: Build, make_item: Build) -> None:
    model = make_rcnn()
    batch = [{**make_item(seed=i), "seed": 100 + i} for i in range(2)]
    assert _losses(model, batch[::-1]) == pytest.approx(_losses(model, batch), rel=1e-5)
