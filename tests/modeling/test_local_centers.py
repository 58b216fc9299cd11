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
