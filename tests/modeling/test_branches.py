"""The branches against loops in float64."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from deepacc_d2.errors import ConfigError
from deepacc_d2.modeling import AngularMarginBranch, LinearBranch, SiameseInferenceBranch

K, C, D = 5, 6, 12
S = 8.0
LOW = [torch.float32, torch.bfloat16, torch.float16]
VALUE = 2e-6  # relative to the largest entry: everything is float32 whatever autocast says
# Of gradients, relative to the largest entry: rounding to the features' type.
GRADIENT = {torch.float32: 1e-5, torch.bfloat16: 2.0**-8 + 1e-5, torch.float16: 2.0**-11 + 1e-5}


def _seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _close(found: Tensor | None, expected: Tensor | None, tolerance: float) -> None:
    assert found is not None
    assert expected is not None
    scale = float(expected.detach().abs().max())
    assert scale > 0
    torch.testing.assert_close(found.double(), expected.double(), rtol=0, atol=tolerance * scale)


def _unit(v: Tensor) -> Tensor:
    return v / (v * v).sum().sqrt()


def _naive_margin_logits(x: Tensor, w: Tensor, s: float = S) -> Tensor:
    return torch.stack(
        [
            torch.stack([s * (_unit(x[i]) * _unit(w[j])).sum() for j in range(C)])
            for i in range(len(x))
        ]
    )


def _naive_inference(
    x: Tensor,
    margin_logits: Tensor,
    w: Tensor,
    bias: Tensor,
    *,
    counts: list[int],
    delta: float,
    detach: bool,
    boxes: Tensor | None = None,
    share: float = 1.0,
) -> tuple[Tensor, list[list[int]]]:
    """Eq. 2 and x W_I^T + b, proposal by proposal and class by class; float64 autograd.

    With boxes, which are 10 pixels wide and side by side, centers are pairs.
    """
    rows, sources, start = [], [], 0
    for count in counts:
        image = range(start, start + count)
        start += count
        score = {i: margin_logits[i].softmax(0).tolist() for i in image}
        centers, source = [], []
        for j in range(C):
            best = max(image, key=lambda i: score[i][j], default=None)
            if j < K and best is not None and score[best][j] > delta:
                center = _unit(x[best])
                if boxes is not None:
                    # Of width 10, an IoU below a half is a distance above 10 / 3.
                    apart = [i for i in image if abs(float(boxes[i, 0] - boxes[best, 0])) > 10 / 3]
                    second = max(apart, key=lambda i: score[i][j], default=None)
                    if second is not None and score[second][j] > 0.1:
                        center = _unit(center + _unit(x[second]))
                center = center.detach() if detach else center
                centers.append(_unit(share * center + (1 - share) * _unit(w[j])))
                source.append(best - image.start)
            else:
                centers.append(_unit(w[j]))
                source.append(-1)
        sources.append(source)
        for i in image:
            dots = [(x[i] * c).sum() for c in centers]
            rows.append(torch.stack(dots) + bias)
    return torch.stack(rows), sources


def _problem(n: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Features near their class's center, of different lengths, and the centers."""
    w = torch.randn(C, D, generator=_seeded(seed))
    labels = torch.randint(0, C, (n,), generator=_seeded(seed + 1))
    x = w[labels] + 0.7 * torch.randn(n, D, generator=_seeded(seed + 2))
    return x * (0.3 + 3 * torch.rand(n, 1, generator=_seeded(seed + 3))), w


def _angular(w: Tensor, **options: Any) -> AngularMarginBranch:
    branch = AngularMarginBranch(D, K, **{"m": 0.25, "s": S, **options})
    branch.weight.data.copy_(w)
    return branch


def _inference(**options: Any) -> SiameseInferenceBranch:
    branch = SiameseInferenceBranch(K, **options)
    branch.bias.data.copy_(0.3 * torch.randn(C, generator=_seeded(50)))
    return branch


@pytest.mark.parametrize("dtype", LOW)
def test_margin_logits_by_loops(dtype: torch.dtype) -> None:
    x, w = _problem(7)
    x = x.to(dtype).requires_grad_()
    branch = _angular(w)
    pull = torch.randn(7, C, generator=_seeded(4))
    with torch.autocast("cpu", dtype=dtype, enabled=dtype != torch.float32):
        logits = branch(x)
    assert logits.dtype == torch.float32
    (logits * pull).sum().backward()
    x64, w64 = x.detach().double().requires_grad_(), w.double().requires_grad_()
    expected = _naive_margin_logits(x64, w64)
    (expected * pull).sum().backward()
    _close(logits, expected, VALUE)
    _close(x.grad, x64.grad, GRADIENT[dtype])
    _close(branch.weight.grad, w64.grad, GRADIENT[torch.float32])


@pytest.mark.parametrize("background", [True, False])
def test_margin_loss_is_harder_than_the_scores(background: bool) -> None:
    x, w = _problem(9)
    branch = _angular(w, margin_on_background=background, s=64.0)
    targets = torch.tensor([0, 1, 2, 3, 4, K, K, K, K])
    logits = branch(x)
    expected = 0.0
    for row, y in zip(logits.tolist(), targets.tolist(), strict=True):
        own = row[y]
        if background or y < K:
            theta = math.acos(own / 64)
            past = theta + 0.25 > math.pi
            own = own - 64 * 0.25 * math.sin(0.25) if past else 64 * math.cos(theta + 0.25)
        terms = [own if j == y else z for j, z in enumerate(row)]
        top = max(terms)
        expected += top + math.log(sum(math.exp(t - top) for t in terms)) - own
    assert float(branch.loss(logits, targets)) == pytest.approx(expected / 9, rel=2e-6)


@pytest.mark.parametrize("detach", [True, False])
@pytest.mark.parametrize("counts", [[11], [6, 8], [5, 0, 7], [0, 4]])
@pytest.mark.parametrize("dtype", LOW)
def test_inference_logits_and_gradients_by_loops(
    dtype: torch.dtype, counts: list[int], detach: bool
) -> None:
    n = sum(counts)
    low, w = _problem(n, seed=n)
    low = low.to(dtype).requires_grad_()  # as a head under autocast hands it on
    targets = torch.randint(0, C, (n,), generator=_seeded(5))
    margin, inference = _angular(w), _inference(delta=0.5, detach_centers=detach)
    with torch.autocast("cpu", dtype=dtype, enabled=dtype != torch.float32):
        x = low.float()
        found, centers = inference(x, margin(x), margin.weight, counts)
        loss = F.cross_entropy(found, targets)
    assert found.dtype == torch.float32
    loss.backward()

    x64, w64 = low.detach().double().requires_grad_(), w.double().requires_grad_()
    bias64 = inference.bias.detach().double().requires_grad_()
    logits64 = _naive_margin_logits(x64, w64)
    expected, sources = _naive_inference(
        x64, logits64, w64, bias64, counts=counts, delta=0.5, detach=detach
    )
    F.cross_entropy(expected, targets).backward()
    assert centers.source.tolist() == sources
    assert any(row >= 0 for source in sources for row in source)
    _close(found, expected, VALUE)
    _close(low.grad, x64.grad, GRADIENT[dtype])
    _close(inference.bias.grad, bias64.grad, GRADIENT[torch.float32])
    # Background's global center learns either way.
    assert w64.grad is not None
    assert w64.grad[K].any()
    _close(margin.weight.grad, w64.grad, GRADIENT[torch.float32])


def _side_by_side(count: int, seed: int) -> Tensor:
    left = torch.randint(0, 30, (count, 1), generator=_seeded(seed)).float()
    zero = torch.zeros_like(left)
    return torch.cat([left, zero, left + 10, zero + 10], dim=1)


@pytest.mark.parametrize("detach", [True, False])
@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("counts", [[14], [9, 0, 11], [0, 6]])
def test_pair_logits_and_gradients_by_loops(counts: list[int], share: float, detach: bool) -> None:
    n = sum(counts)
    x, w = _problem(n, seed=n)
    x.requires_grad_()
    boxes = _side_by_side(n, 7)
    targets = torch.randint(0, C, (n,), generator=_seeded(5))
    margin = _angular(w)
    inference = _inference(delta=0.4, detach_centers=detach, center="pair", center_share=share)
    # What the inference loss alone teaches: the margin branch's logits are constants here.
    found, centers = inference(x, margin(x).detach(), margin.weight, counts, boxes)
    F.cross_entropy(found, targets).backward()
    assert (centers.partner >= 0).any()

    x64, w64 = x.detach().double().requires_grad_(), w.double().requires_grad_()
    bias64 = inference.bias.detach().double().requires_grad_()
    logits64 = _naive_margin_logits(x64, w64).detach()
    expected, sources = _naive_inference(
        *(x64, logits64, w64, bias64),
        counts=counts,
        delta=0.4,
        detach=detach,
        boxes=boxes,
        share=share,
    )
    F.cross_entropy(expected, targets).backward()
    assert centers.source.tolist() == sources
    _close(found, expected, VALUE)
    _close(x.grad, x64.grad, GRADIENT[torch.float32])
    _close(inference.bias.grad, bias64.grad, GRADIENT[torch.float32])
    _close(margin.weight.grad, w64.grad, GRADIENT[torch.float32])
    # A center of the image alone teaches its global one nothing; a mixed one does.
    for j in range(K):
        learns = share < 1 or any(
            s[j] < 0 for s, count in zip(sources, counts, strict=True) if count
        )
        assert bool(margin.weight.grad[j].any()) == learns


def test_single_with_a_share_of_1_is_the_papers_letter_bit_by_bit() -> None:
    """Logits and gradients, against Eq. 2 as it stood before there were pairs."""
    counts, gradients, logits = [8, 6], [], []
    data, w = _problem(14, seed=3)
    for letter in (True, False):
        x, margin = data.clone().requires_grad_(), _angular(w)
        inference = _inference(delta=0.5)
        margin_logits = margin(x)
        if letter:
            units, fixed = (F.normalize(v, dim=1, eps=1e-6) for v in (x, margin.weight))
            parts = []
            for rows in (slice(0, 8), slice(8, 14)):
                scores = margin_logits[rows].softmax(dim=1).detach()
                local = scores.amax(dim=0) > 0.5
                local[K] = False
                weights = torch.where(local[:, None], units[rows][scores.argmax(dim=0)], fixed)
                weights = torch.where(local[:, None], weights.detach(), weights)
                parts.append(F.linear(x[rows], weights, inference.bias))
            found = torch.cat(parts)
        else:
            found, centers = inference(
                x, margin_logits, margin.weight, counts, _side_by_side(14, 1)
            )
            assert (centers.source >= 0).any()
        F.cross_entropy(found, torch.arange(14) % C).backward()
        logits.append(found)
        gradients.append((x.grad, margin.weight.grad, inference.bias.grad))
    assert torch.equal(*logits)
    for a, b in zip(*gradients, strict=True):
        assert torch.equal(a, b)


def test_a_pair_without_boxes_is_refused() -> None:
    x, w = _problem(4)
    margin, inference = _angular(w), _inference(center="pair")
    with pytest.raises(ConfigError, match="needs the boxes"):
        inference(x, margin(x), margin.weight, [4])


def test_settings_are_shown() -> None:
    shown = repr(_inference(center="pair", center_share=0.5))
    assert "center='pair', center_share=0.5" in shown


def test_gradient_through_centers_by_finite_differences() -> None:
    """Of the float64 loops, so that no autograd takes part: each feature as center, too."""
    x, w = _problem(6)
    targets = torch.tensor([0, 1, 2, 3, 4, 5])
    margin, inference = _angular(w), _inference(delta=0.4, detach_centers=False)
    bias = inference.bias.detach().double()

    def loss(features: Tensor, weights: Tensor) -> float:
        logits = _naive_margin_logits(features, weights)
        found, _ = _naive_inference(
            features, logits, weights, bias, counts=[3, 3], delta=0.4, detach=False
        )
        return float(F.cross_entropy(found, targets))

    x.requires_grad_()
    found, centers = inference(x, margin(x), margin.weight, [3, 3])
    assert (centers.source >= 0).sum() >= 2
    F.cross_entropy(found, targets).backward()
    step = 1e-5
    for leaf, which in ((x, 0), (margin.weight, 1)):
        assert leaf.grad is not None
        values = [x.detach().double(), w.double()]
        for i in range(6):
            for k in (0, 5, 11):
                sides = []
                for sign in (1, -1):
                    moved = [v.clone() for v in values]
                    moved[which][i, k] += sign * step
                    sides.append(loss(*moved))
                slope = (sides[0] - sides[1]) / (2 * step)
                assert float(leaf.grad[i, k]) == pytest.approx(slope, rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("build", [_angular, None])
def test_below_delta_the_centers_are_the_global_ones_exactly(build: Any) -> None:
    x, w = _problem(8)
    if build is None:
        margin: Any = LinearBranch(D, K)
        margin.weight.data.copy_(w)
    else:
        margin = build(w)
    inference = _inference(delta=1.0)
    found, centers = inference(x, margin(x), margin.weight, [3, 5])
    unit = F.normalize(w, dim=1)
    assert (centers.source == -1).all()
    assert torch.equal(centers.weights[0], unit)
    assert torch.equal(centers.weights[1], unit)
    torch.testing.assert_close(found, x @ unit.T + inference.bias, rtol=1e-6, atol=1e-6)


def test_length_of_features_counts_in_the_inference_branch_only() -> None:
    x, w = _problem(10)
    margin, inference = _angular(w), _inference()
    plain, a = inference(x, margin(x), margin.weight, [4, 6])
    longer, b = inference(3 * x, margin(3 * x), margin.weight, [4, 6])
    torch.testing.assert_close(margin(3 * x), margin(x), rtol=0, atol=S * 3e-7)
    assert torch.equal(a.source, b.source)
    torch.testing.assert_close(a.weights, b.weights, rtol=0, atol=3e-7)
    bias = inference.bias
    torch.testing.assert_close(longer - bias, 3 * (plain - bias), rtol=1e-5, atol=1e-5)
    assert (longer - plain).abs().max() > 1


def test_a_batch_is_its_images() -> None:
    x, w = _problem(13)
    margin, inference = _angular(w), _inference()
    whole, _ = inference(x, margin(x), margin.weight, [6, 7])
    alone = [inference(p, margin(p), margin.weight, [len(p)])[0] for p in x.split([6, 7])]
    torch.testing.assert_close(whole, torch.cat(alone), rtol=1e-6, atol=1e-6)
    # The other image's features do not matter, whatever they are.
    other = torch.cat([x[:6], 9 * x[6:].flip(0).roll(1, dims=1)])
    found, _ = inference(other, margin(other), margin.weight, [6, 7])
    torch.testing.assert_close(found[:6], whole[:6], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("scale", [S, 64.0])
def test_order_of_proposals_does_not_matter(scale: float) -> None:
    """At 64, float32 rounds the score of every proposal that is well placed to 1."""
    w = F.normalize(torch.eye(C, D) + 0.05 * torch.randn(C, D, generator=_seeded(6)), dim=1)
    x = w[torch.arange(12) % 3] + 0.1 * torch.randn(12, D, generator=_seeded(7))
    margin, inference = _angular(w, s=scale), _inference()
    scores = margin(x).softmax(dim=1)
    if scale == 64:
        assert ((scores == 1).sum(dim=0)[:3] >= 3).all()
    found, centers = inference(x, margin(x), margin.weight, [12])
    for seed in range(4):
        order = torch.randperm(12, generator=_seeded(seed))
        again, others = inference(x[order], margin(x[order]), margin.weight, [12])
        torch.testing.assert_close(again, found[order], rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(others.weights, centers.weights, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("scale", [S, 64.0])
def test_the_surest_proposal_is_the_center(scale: float) -> None:
    """In float64, where no score is rounded to 1; gaps stay below the 36 that it resolves."""
    w = F.normalize(torch.randn(C, D, generator=_seeded(8)).abs() + 0.5, dim=1)
    x = w[torch.arange(18) % C] + 0.08 * torch.randn(18, D, generator=_seeded(9))
    margin, inference = _angular(w, s=scale), _inference(delta=0.3)
    _, centers = inference(x, margin(x), margin.weight, [18])
    logits = _naive_margin_logits(x.double(), w.double(), scale)
    _, expected = _naive_inference(
        x.double(), logits, w.double(), inference.bias.double(), counts=[18], delta=0.3, detach=True
    )
    assert centers.source.tolist() == expected


@pytest.mark.parametrize("counts", [[], [0], [0, 0]])
def test_no_proposals(counts: list[int]) -> None:
    margin, inference = _angular(_problem(1)[1]), _inference()
    x = torch.zeros(0, D, requires_grad=True)
    logits = margin(x)
    found, centers = inference(x, logits, margin.weight, counts)
    assert found.shape == logits.shape == (0, C)
    assert centers.weights.shape == (len(counts), C, D)
    none = torch.zeros(0, dtype=torch.long)
    (margin.loss(logits, none) + found.sum()).backward()
    assert margin.weight.grad is not None
    assert not margin.weight.grad.any()
    if counts:
        assert inference.bias.grad is not None
        assert not inference.bias.grad.any()


@pytest.mark.parametrize("dtype", LOW)
def test_linear_branch_by_loops(dtype: torch.dtype) -> None:
    x, w = _problem(5)
    branch = LinearBranch(D, K)
    assert branch.weight.shape == (C, D)
    assert not branch.bias.any()
    branch.weight.data.copy_(w)
    targets = torch.tensor([0, 4, K, 2, 2])
    # Its logits are autocast's; the loss of them is not.
    with torch.autocast("cpu", dtype=dtype, enabled=dtype != torch.float32):
        logits = branch(x)
        loss = branch.loss(logits, targets)
    assert loss.dtype == torch.float32
    epsilon = {torch.float32: 1e-6, torch.bfloat16: 2.0**-6, torch.float16: 2.0**-9}[dtype]
    _close(logits, x.double() @ w.double().T, epsilon)
    expected = 0.0
    for row, y in zip(logits.tolist(), targets.tolist(), strict=True):
        expected += math.log(sum(math.exp(z - row[y]) for z in row))
    assert loss.item() == pytest.approx(expected / 5, rel=2e-6)


def test_linear_branch_without_proposals() -> None:
    branch = LinearBranch(D, K)
    loss = branch.loss(branch(torch.zeros(0, D)), torch.zeros(0, dtype=torch.long))
    loss.backward()
    assert loss.item() == 0.0
    for parameter in branch.parameters():
        assert parameter.grad is not None
        assert not parameter.grad.any()


def test_weights_start_about_unit_length() -> None:
    torch.manual_seed(0)
    branch = AngularMarginBranch(1024, 24, m=0.25, s=64.0)
    assert branch.weight.shape == (25, 1024)
    lengths = branch.weight.norm(dim=1)
    assert 0.9 < float(lengths.min()) < float(lengths.max()) < 1.1
    assert not SiameseInferenceBranch(24).bias.any()


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: AngularMarginBranch(4, 2, m=0.25, s=0.0), "^s="),
        (lambda: AngularMarginBranch(4, 2, m=0.25, s=math.nan), "^s="),
        (lambda: AngularMarginBranch(4, 2, m=-0.1, s=64.0), "^m="),
        (lambda: AngularMarginBranch(4, 2, m=math.pi, s=64.0), "^m="),
        (lambda: AngularMarginBranch(4, 2, m=math.nan, s=64.0), "^m="),
        (lambda: SiameseInferenceBranch(2, delta=-0.1), "^delta="),
        (lambda: SiameseInferenceBranch(2, delta=1.1), "^delta="),
        (lambda: SiameseInferenceBranch(2, delta=math.nan), "^delta="),
        (lambda: SiameseInferenceBranch(2, center="trio"), "^center='trio': choose single or pair"),
        (lambda: SiameseInferenceBranch(2, center_share=1.1), "^center_share="),
        (lambda: SiameseInferenceBranch(2, center_share=-0.1), "^center_share="),
        (lambda: SiameseInferenceBranch(2, center_share=math.nan), "^center_share="),
    ],
)
def test_impossible_settings(build: Callable[[], Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build()


def test_operators_do_not_grow_with_proposals_or_classes(operators: Any) -> None:
    seen = []
    for n, k in ((4, 3), (300, 60)):
        margin = AngularMarginBranch(5, k, m=0.25, s=64.0)
        inference = SiameseInferenceBranch(k)
        x = torch.randn(n, 5)
        with operators() as mode:
            logits = margin(x)
            inference(x, logits, margin.weight, [n // 2, n // 2])
        seen.append(mode.count)
    assert seen[0] == seen[1]
