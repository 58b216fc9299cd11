"""Eq. 2 against loops."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from deepacc_d2.errors import ConfigError
from deepacc_d2.modeling import SiameseInferenceBranch, local_centers
from deepacc_d2.modeling.local_centers import lie_apart

C, D = 6, 8
BACKGROUND = C - 1


def _seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _problem(counts: list[int], seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    n = sum(counts)
    scores = (3 * torch.randn(n, C, generator=_seeded(seed))).softmax(dim=1)
    features = F.normalize(torch.randn(n, D, generator=_seeded(seed + 1)), dim=1)
    return scores, features, F.normalize(torch.randn(C, D, generator=_seeded(seed + 2)), dim=1)


def _naive(scores: Tensor, counts: list[int], delta: float) -> list[list[int]]:
    """Which proposal of the image is each class's center; -1 for none."""
    result, start = [], 0
    for count in counts:
        image = scores[start : start + count].tolist()
        start += count
        sources = []
        for j in range(C):
            best = -1
            for i in range(count):
                if image[i][j] > delta and (best < 0 or image[i][j] > image[best][j]):
                    best = i
            sources.append(-1 if j == BACKGROUND else best)
        result.append(sources)
    return result


@pytest.mark.parametrize("delta", [0.0, 0.3, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("counts", [[12], [5, 7], [6, 0, 4], [0, 3], [1, 1, 1]])
def test_centers_by_loops(counts: list[int], delta: float) -> None:
    scores, features, glob = _problem(counts, seed=sum(counts))
    found = local_centers(scores, features, glob, counts, delta)
    expected = _naive(scores, counts, delta)
    assert found.source.tolist() == expected
    assert found.weights.shape == (len(counts), C, D)
    assert found.weights.dtype == torch.float32
    start = 0
    for image, count in enumerate(counts):
        for j in range(C):
            row = expected[image][j]
            center = glob[j] if row < 0 else features[start + row]
            assert torch.equal(found.weights[image, j], center)
        start += count


@pytest.mark.parametrize("delta", [0.9, 1.0])
def test_all_scores_below_delta_leave_the_global_centers(delta: float) -> None:
    _, features, glob = _problem([4, 5])
    scores = torch.full((9, C), 1 / C)
    found = local_centers(scores, features, glob, [4, 5], delta)
    assert (found.source == -1).all()
    assert torch.equal(found.weights, glob.expand(2, C, D))


def test_delta_is_exclusive() -> None:
    _, features, glob = _problem([1])
    scores = torch.tensor([[0.5, 0.25, 0.25, 0, 0, 0]])
    assert local_centers(scores, features, glob, [1], 0.5).source.tolist() == [[-1] * C]
    below = 0.5 - 2.0**-24
    assert local_centers(scores, features, glob, [1], below).source.tolist() == [[0] + [-1] * 5]
    # A score of exactly 1, which float32 reaches, is not above 1.
    sure = torch.eye(C)[:1]
    assert local_centers(sure, features, glob, [1], 1.0).source.tolist() == [[-1] * C]


def test_background_has_no_local_center() -> None:
    _, features, glob = _problem([3])
    scores = torch.eye(C)[[BACKGROUND, BACKGROUND, 1]]
    found = local_centers(scores, features, glob, [3], 0.5)
    assert found.source.tolist() == [[-1, 2, -1, -1, -1, -1]]
    assert torch.equal(found.weights[0, BACKGROUND], glob[BACKGROUND])


def test_one_proposal_may_stand_for_several_classes() -> None:
    _, features, glob = _problem([2])
    scores = torch.tensor([[0.5, 0.4, 0.1, 0, 0, 0], [0.3, 0.3, 0.1, 0.3, 0, 0]])
    found = local_centers(scores, features, glob, [2], 0.2)
    assert found.source.tolist() == [[0, 0, -1, 1, -1, -1]]


@pytest.mark.parametrize("counts", [[], [0], [0, 0]])
def test_no_proposals(counts: list[int]) -> None:
    scores, features, glob = _problem(counts)
    found = local_centers(scores, features, glob, counts, 0.5)
    assert found.weights.shape == (len(counts), C, D)
    assert found.source.shape == (len(counts), C)
    assert found.source.dtype == torch.int64
    assert torch.equal(found.weights, glob.expand(len(counts), C, D))


def test_images_do_not_see_each_other() -> None:
    scores, features, glob = _problem([6, 7], seed=4)
    whole = local_centers(scores, features, glob, [6, 7], 0.3)
    for image, rows in enumerate((slice(0, 6), slice(6, 13))):
        alone = local_centers(scores[rows], features[rows], glob, [len(scores[rows])], 0.3)
        assert torch.equal(alone.weights[0], whole.weights[image])
        assert torch.equal(alone.source[0], whole.source[image])
    # Not even if all of the surest proposals are the other image's.
    first = torch.full((2, C), 1 / C)
    scores = torch.cat([first, torch.eye(C)])
    _, features, glob = _problem([2, C])
    found = local_centers(scores, features, glob, [2, C], 0.5)
    assert found.source.tolist() == [[-1] * C, [0, 1, 2, 3, 4, -1]]


def test_order_does_not_matter() -> None:
    scores, features, glob = _problem([15], seed=7)
    order = torch.randperm(15, generator=_seeded(8))
    a = local_centers(scores, features, glob, [15], 0.3)
    b = local_centers(scores[order], features[order], glob, [15], 0.3)
    assert torch.equal(a.weights, b.weights)
    back = [[int(order[i]) if i >= 0 else -1 for i in row] for row in b.source.tolist()]
    assert back == a.source.tolist()


def test_gradient_goes_to_what_was_chosen_and_not_through_the_scores() -> None:
    scores, features, glob = _problem([5, 4], seed=3)
    leaves = [t.requires_grad_() for t in (scores, features, glob)]
    found = local_centers(scores, features, glob, [5, 4], 0.3)
    pull = torch.randn(found.weights.shape, generator=_seeded(9))
    (found.weights * pull).sum().backward()
    expected, expected_glob = torch.zeros(9, D), torch.zeros(C, D)
    for image, start in enumerate((0, 5)):
        for j in range(C):
            row = int(found.source[image, j])
            if row < 0:
                expected_glob[j] += pull[image, j]
            else:
                expected[start + row] += pull[image, j]
    assert expected.any()
    assert expected_glob[BACKGROUND].any()
    assert leaves[0].grad is None
    torch.testing.assert_close(features.grad, expected)
    torch.testing.assert_close(glob.grad, expected_glob)


def test_counts_that_are_not_of_these_rows() -> None:
    with pytest.raises(RuntimeError):
        local_centers(*_problem([5]), [2, 2], 0.5)


@pytest.mark.parametrize("delta", [-0.01, 1.01, math.nan, math.inf])
def test_impossible_delta(delta: float) -> None:
    with pytest.raises(ConfigError, match=r"^delta="):
        SiameseInferenceBranch(5, delta=delta)


def test_operators_grow_with_images_only(operators: Any) -> None:
    seen = []
    for n, c, images in ((4, 3, 2), (300, 60, 2), (300, 60, 3), (300, 60, 4)):
        counts = [n // images] * images
        scores = torch.rand(sum(counts), c)
        features, glob = torch.randn(sum(counts), 5), torch.randn(c, 5)
        with operators() as mode:
            local_centers(scores, features, glob, counts, 0.5)
        seen.append(mode.count)
    assert seen[0] == seen[1]
    assert seen[2] - seen[1] == seen[3] - seen[2]


def _iou(a: list[float], b: list[float]) -> float:
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    areas = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1])
    return width * height / (areas - width * height)


def _boxes(count: int, seed: int, room: float = 60.0) -> Tensor:
    """Boxes of 10 to 40 pixels in so little room that many overlap."""
    corner = room * torch.rand(count, 2, generator=_seeded(seed))
    return torch.cat([corner, corner + 10 + 30 * torch.rand(count, 2, generator=_seeded(9))], dim=1)


def _unit(v: Tensor) -> Tensor:
    return v / (v * v).sum().sqrt()


def _naive_centers(
    problem: tuple[Tensor, Tensor, Tensor],
    boxes: Tensor,
    counts: list[int],
    *,
    delta: float,
    pair: bool,
    share: float,
) -> tuple[list[list[Tensor]], list[list[int]]]:
    """Centers in float64 and partners, by loops over images, classes and proposals."""
    scores, features, glob = problem
    sources = _naive(scores, counts, delta)
    weights, partners, start = [], [], 0
    for image, count in enumerate(counts):
        score = scores[start : start + count].tolist()
        place = boxes[start : start + count].tolist()
        x = features[start : start + count].double()
        start += count
        centers, seconds = [], []
        for j, first in enumerate(sources[image]):
            second = -1
            if pair and first >= 0:
                for i in range(count):
                    better = second < 0 or score[i][j] > score[second][j]
                    if score[i][j] > 0.1 and _iou(place[i], place[first]) < 0.5 and better:
                        second = i
            seconds.append(second)
            fixed = glob[j].double()
            if first < 0:
                centers.append(fixed)
                continue
            local = x[first] if second < 0 else _unit(x[first] + x[second])
            centers.append(_unit(share * local + (1 - share) * fixed))
        weights.append(centers)
        partners.append(seconds)
    return weights, partners


@pytest.mark.parametrize("share", [0.0, 0.5, 0.8, 1.0])
@pytest.mark.parametrize("pair", [True, False])
@pytest.mark.parametrize("counts", [[12], [25, 17], [6, 0, 4], [0, 3], [1, 1, 1], [0, 0], []])
def test_pairs_and_shrinkage_by_loops(counts: list[int], pair: bool, share: float) -> None:
    problem, boxes = _problem(counts, seed=sum(counts)), _boxes(sum(counts), 11)
    kind: Any = "pair" if pair else "single"
    found = local_centers(*problem, counts, 0.3, boxes=boxes, center=kind, share=share)
    expected, partners = _naive_centers(problem, boxes, counts, delta=0.3, pair=pair, share=share)
    assert found.source.tolist() == _naive(problem[0], counts, 0.3)
    assert found.partner.tolist() == partners
    assert found.partner.dtype == torch.int64
    assert found.weights.shape == (len(counts), C, D)
    assert found.weights.dtype == torch.float32
    for image, centers in enumerate(expected):
        torch.testing.assert_close(
            found.weights[image].double(), torch.stack(centers), rtol=0, atol=3e-7
        )
    if pair and sum(counts) > 20:
        assert (found.partner >= 0).any()


def _pair_of(
    scores: list[float], corners: list[float], delta: float = 0.5
) -> tuple[int, int, Tensor, Tensor]:
    """Source, partner and center of class 0, and the features, of 20-pixel boxes side by side."""
    _, features, glob = _problem([len(scores)])
    table = torch.full((len(scores), C), 0.01)
    table[:, 0] = torch.tensor(scores)
    left = torch.tensor(corners)[:, None]
    boxes = torch.cat([left, torch.zeros_like(left), left + 20, torch.full_like(left, 20)], dim=1)
    found = local_centers(table, features, glob, [len(scores)], delta, boxes=boxes, center="pair")
    return (
        int(found.source[0, 0]),
        int(found.partner[0, 0]),
        found.weights[0, 0],
        features,
    )


@pytest.mark.parametrize(
    ("scores", "corners", "source", "partner"),
    [
        ([0.9], [0.0], 0, -1),  # one chromosome
        ([0.9, 0.8], [0.0, 6.0], 0, -1),  # IoU 14 / 26: the same one
        ([0.9, 0.8], [0.0, 7.0], 0, 1),  # IoU 13 / 27
        ([0.9, 0.8, 0.6], [0.0, 2.0, 50.0], 0, 2),  # the second best shows the same one
        ([0.4, 0.45], [0.0, 50.0], -1, -1),  # none above delta: no center, so no pair
        ([0.3, 0.7, 0.6], [0.0, 50.0, 100.0], 1, 2),  # of three copies the two best
        ([0.9, 0.1], [0.0, 50.0], 0, -1),  # a partner's score is above 0.1
        ([0.9, 0.11], [0.0, 50.0], 0, 1),
    ],
)
def test_who_is_a_partner(
    scores: list[float], corners: list[float], source: int, partner: int
) -> None:
    first, second, center, features = _pair_of(scores, corners)
    assert (first, second) == (source, partner)
    if partner >= 0:
        torch.testing.assert_close(center, _unit(features[source] + features[partner]))
    elif source >= 0:
        assert torch.equal(center, features[source])


def test_an_iou_of_exactly_a_half_is_the_same_chromosome() -> None:
    # Shared 1, union 2 of boxes 1 x 2 and 1 x 1.
    boxes = torch.tensor([[0.0, 0, 1, 2], [0, 0, 1, 1], [0, 0, 1, 0.999]])
    assert lie_apart(boxes, boxes[:1])[:, 0].tolist() == [False, False, True]


def test_boxes_apart_by_loops() -> None:
    a, b = _boxes(30, 1), _boxes(20, 2)
    expected = [[_iou(p, q) < 0.5 for q in b.tolist()] for p in a.tolist()]
    assert lie_apart(a, b).tolist() == expected
    assert any(not x for row in expected for x in row)
    # Without area: not apart from itself, apart from what has one.
    flat = torch.tensor([[5.0, 5, 5, 9]])
    assert lie_apart(flat, flat).tolist() == [[False]]
    assert lie_apart(flat, a[:1]).tolist() == [[True]]


@pytest.mark.parametrize("share", [0.5, 1.0])
def test_pairs_of_an_image_do_not_see_the_others(share: float) -> None:
    counts = [6, 0, 7]
    problem, boxes = _problem(counts, seed=4), _boxes(13, 3)
    options: dict[str, Any] = {"center": "pair", "share": share}
    whole = local_centers(*problem, counts, 0.2, boxes=boxes, **options)
    scores, features, glob = problem
    for image, rows in ((0, slice(0, 6)), (1, slice(6, 6)), (2, slice(6, 13))):
        alone = local_centers(
            *(scores[rows], features[rows], glob, [len(scores[rows])], 0.2),
            boxes=boxes[rows],
            **options,
        )
        for a, b in zip(alone, whole, strict=True):
            assert torch.equal(a[0], b[image])
    assert (whole.partner >= 0).any()
    assert (whole.partner[1] == -1).all()


def test_single_with_a_share_of_1_is_the_papers_letter_bit_by_bit() -> None:
    scores, features, glob = _problem([9, 5], seed=2)
    plain = local_centers(scores, features, glob, [9, 5], 0.3)
    said = local_centers(
        *(scores, features, glob, [9, 5], 0.3), boxes=_boxes(14, 1), center="single", share=1.0
    )
    for image, rows in enumerate((slice(0, 9), slice(9, 14))):
        best = scores[rows].argmax(dim=0)
        local = scores[rows].amax(dim=0) > 0.3
        local[BACKGROUND] = False
        letter = torch.where(local[:, None], features[rows][best], glob)
        assert torch.equal(plain.weights[image], letter)
    assert all(torch.equal(a, b) for a, b in zip(plain, said, strict=True))
    assert (plain.partner == -1).all()


def test_gradient_of_pairs_and_shrinkage_by_loops() -> None:
    counts = [9, 6]
    scores, features, glob = _problem(counts, seed=3)
    boxes = _boxes(15, 6)
    leaves = [t.clone().requires_grad_() for t in (features, glob)]
    found = local_centers(*(scores, *leaves, counts, 0.25), boxes=boxes, center="pair", share=0.4)
    pull = torch.randn(found.weights.shape, generator=_seeded(9))
    (found.weights * pull).sum().backward()
    exact = [t.double().requires_grad_() for t in (features, glob)]
    naive, partners = _naive_centers(
        (scores, *exact), boxes, counts, delta=0.25, pair=True, share=0.4
    )
    assert any(i >= 0 for row in partners for i in row)
    total = sum((torch.stack(c) * p).sum() for c, p in zip(naive, pull.double(), strict=True))
    total.backward()
    for leaf, other in zip(leaves, exact, strict=True):
        torch.testing.assert_close(leaf.grad.double(), other.grad, rtol=0, atol=2e-6)


def test_pairs_need_boxes() -> None:
    with pytest.raises(ConfigError, match="center='pair' needs the boxes"):
        local_centers(*_problem([3]), [3], 0.5, center="pair")


def test_operators_of_pairs_grow_with_images_only(operators: Any) -> None:
    seen = []
    for n, c, images in ((4, 3, 2), (300, 60, 2), (300, 60, 3), (300, 60, 4)):
        counts = [n // images] * images
        rows = sum(counts)
        problem = torch.rand(rows, c), torch.randn(rows, 5), torch.randn(c, 5)
        boxes = _boxes(rows, 1)
        with operators() as mode:
            local_centers(*problem, counts, 0.5, boxes=boxes, center="pair", share=0.5)
        seen.append(mode.count)
    assert seen[0] == seen[1]
    assert seen[3] - seen[2] == seen[2] - seen[1]
