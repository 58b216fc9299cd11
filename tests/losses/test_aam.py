"""Eq. 1 against loops in float64 with a true arc cosine: cos(acos(c) + m)."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from deepacc_d2.errors import ConfigError
from deepacc_d2.losses import (
    AdditiveAngularMarginLoss,
    add_angular_margin,
    additive_angular_margin_loss,
    cosine_similarity,
)

LOW = [torch.float32, torch.bfloat16, torch.float16]
# Of gradients, relative to the largest entry. Everything is computed in float32 whatever autocast
# says; what remains is the rounding of a gradient to the type of the features it belongs to.
GRADIENT = {torch.float32: 2e-5, torch.bfloat16: 2.0**-8, torch.float16: 2.0**-11 + 2e-5}
LOSS = 2e-6  # relative, in every type


def _naive_cosine(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum() / ((a * a).sum() * (b * b).sum()).sqrt()


def _naive_loss(
    x: Tensor, w: Tensor, targets: list[int], *, s: float, m: float, background: bool = True
) -> Tensor:
    """Mean over proposals of -log softmax; float64 in, float64 autograd out."""
    total = x.new_zeros(())
    for i, y in enumerate(targets):
        logits = []
        for j in range(len(w)):
            c = _naive_cosine(x[i], w[j])
            if j == y and (background or j < len(w) - 1):
                theta = torch.acos(c)
                past = theta.item() + m > math.pi
                c = c - m * math.sin(m) if past else torch.cos(theta + m)
            logits.append(s * c)
        total = total + torch.stack(logits).logsumexp(0) - logits[y]
    return total / len(targets)


def _close(found: Tensor, expected: Tensor, tolerance: float) -> None:
    """Agreement relative to the largest entry."""
    scale = float(expected.abs().max())
    assert scale > 0
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=tolerance * scale)


def _at_angle(center: Tensor, theta: float, length: float, seed: int) -> Tensor:
    """A vector of that length at an angle of theta to a center."""
    unit = F.normalize(center.double(), dim=0)
    other = torch.randn(len(unit), dtype=torch.double, generator=_seeded(seed))
    other = F.normalize(other - (other @ unit) * unit, dim=0)
    return length * (math.cos(theta) * unit + math.sin(theta) * other)


def _seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# Angles to the own center: near it, ordinary, on either side of pi - m, nearly opposite.
ANGLES = [0.1, 0.3, 1.0, 1.6, 2.3, 2.6, 2.95, 3.1]
TARGETS = [0, 3, 5, 1, 5, 2, 4, 5]  # 5 is background


def _problem(dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    w = 0.3 * torch.randn(6, 10, generator=_seeded(0))
    rows = [
        _at_angle(w[y], theta, 0.5 + i, i)
        for i, (y, theta) in enumerate(zip(TARGETS, ANGLES, strict=True))
    ]
    return torch.stack(rows).to(dtype), w, torch.tensor(TARGETS)


@pytest.mark.parametrize("background", [True, False])
@pytest.mark.parametrize(("s", "m"), [(64.0, 0.25), (30.0, 0.5), (8.0, 1.5), (64.0, 0.0)])
@pytest.mark.parametrize("dtype", LOW)
def test_loss_and_gradients_by_loops(
    dtype: torch.dtype, s: float, m: float, background: bool
) -> None:
    x, w, targets = _problem(dtype)  # as a head under autocast hands it on
    x.requires_grad_()
    w.requires_grad_()
    with torch.autocast("cpu", dtype=dtype, enabled=dtype != torch.float32):
        logits = s * cosine_similarity(x, w)
        loss = AdditiveAngularMarginLoss(s=s, m=m, margin_on_background=background)(logits, targets)
    assert logits.dtype == loss.dtype == torch.float32
    loss.backward()

    x64, w64 = (t.detach().double().requires_grad_() for t in (x, w))
    expected = _naive_loss(x64, w64, TARGETS, s=s, m=m, background=background)
    expected.backward()
    torch.testing.assert_close(loss.double(), expected, rtol=LOSS, atol=0)
    assert x.grad is not None
    assert w.grad is not None
    _close(x.grad, x64.grad, GRADIENT[dtype])
    _close(w.grad, w64.grad, GRADIENT[torch.float32])
    # No proposal is too far off or too close to learn anything: the gradient of each by itself.
    for found, wanted in zip(x.grad, x64.grad, strict=True):
        if wanted.abs().max() > 1e-4:
            _close(found, wanted, 4 * GRADIENT[dtype])


@pytest.mark.parametrize("theta", [0.003, 0.01, 0.03])
def test_gradient_at_a_small_angle_by_loops(theta: float) -> None:
    w = torch.randn(3, 10, generator=_seeded(8))
    x = _at_angle(w[1], theta, 2.0, 9)[None].float().requires_grad_()
    additive_angular_margin_loss(
        8 * cosine_similarity(x, w), torch.tensor([1]), s=8.0, m=0.25
    ).backward()
    x64 = x.detach().double().requires_grad_()
    _naive_loss(x64, w.double(), [1], s=8.0, m=0.25).backward()
    assert x.grad is not None
    assert x64.grad is not None
    # A float32 cosine near 1 knows sin^2 to about 2^-23, and the gradient is as 1 / sin.
    _close(x.grad, x64.grad, 2.0**-22 / math.sin(theta) ** 2)


def test_cosines_by_loops() -> None:
    a, b = torch.randn(5, 7, generator=_seeded(1)), torch.randn(3, 7, generator=_seeded(2))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = cosine_similarity(a, b)
    assert found.dtype == torch.float32
    for i in range(5):
        for j in range(3):
            expected = float(_naive_cosine(a[i].double(), b[j].double()))
            assert float(found[i, j]) == pytest.approx(expected, abs=2e-7)


@pytest.mark.parametrize("m", [0.0, 0.1, 0.25, 0.5, 1.0, 1.5, 2.0])
def test_margin_at_every_angle(m: float) -> None:
    # Both sides of pi - m, where the formula changes, and the ends.
    edge = math.cos(math.pi - m)
    grid = torch.cat([torch.linspace(-1, 1, 2001), torch.tensor([edge - 1e-6, edge + 1e-6])])
    grid = grid.clamp(-1, 1).requires_grad_()
    found = add_angular_margin(grid, m)
    (gradient,) = torch.autograd.grad(found.sum(), grid)
    for c, value, slope in zip(grid.tolist(), found.tolist(), gradient.tolist(), strict=True):
        theta = math.acos(c)
        past = theta + m > math.pi
        expected = c - m * math.sin(m) if past else math.cos(theta + m)
        # At the ends alone the sine is held above zero: EPS is 1e-7.
        ends = abs(c) == 1
        assert value == pytest.approx(expected, abs=3.2e-4 * math.sin(m) if ends else 2e-6)
        assert math.isfinite(slope)
        if not ends:
            wanted = 1.0 if past else math.sin(theta + m) / math.sin(theta)
            assert slope == pytest.approx(wanted, rel=1e-4, abs=1e-4)


@pytest.mark.parametrize("m", [0.0, 0.1, 0.25, 0.5, 1.0, 2.0])
def test_margin_never_rewards_a_wider_angle(m: float) -> None:
    values = add_angular_margin(torch.linspace(1, -1, 4001), m)
    assert (values.diff() <= 1e-6).all()
    assert (values <= torch.linspace(1, -1, 4001) + 1e-6).all()


@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize("m", [0.0, 0.25, 1.0])
def test_cosine_of_plus_and_minus_one(sign: float, m: float) -> None:
    s = 64.0
    w = torch.eye(3, 4, requires_grad=True)
    x = (sign * torch.tensor([[2.0, 0, 0, 0], [0, 0, 5.0, 0]])).requires_grad_()
    logits = s * cosine_similarity(x, w)
    assert logits[0, 0] == logits[1, 2] == sign * s
    loss = additive_angular_margin_loss(logits, torch.tensor([0, 2]), s=s, m=m)
    own = math.cos(m) if sign > 0 else -1.0 - m * math.sin(m)
    if m == 0:
        own = sign
    expected = math.log(math.exp(s * own) + 2) - s * own  # the other two cosines are 0
    # 64 sqrt(EPS) sin(m), by which the logit may be off.
    assert loss.item() == pytest.approx(expected, rel=LOSS, abs=64 * 3.2e-4 * math.sin(m))
    loss.backward()
    for gradient in (x.grad, w.grad):
        assert gradient is not None
        assert gradient.isfinite().all()
        assert gradient.abs().max() <= s  # d cos / d x has length sin(theta) / |x|
    if sign < 0:  # the other centers still pull a proposal off the wrong pole
        assert x.grad is not None
        assert x.grad.abs().max() > 1


@pytest.mark.parametrize("dtype", LOW)
def test_gradients_of_nearly_aligned_features_are_finite(dtype: torch.dtype) -> None:
    w = torch.randn(4, 16, generator=_seeded(3), requires_grad=True)
    step = torch.logspace(-9, -1, 33)[:, None] * torch.randn(33, 16, generator=_seeded(4))
    rows = torch.cat([w.detach()[1] + step, -w.detach()[1] + step])
    x = rows.to(dtype).requires_grad_()
    with torch.autocast("cpu", dtype=dtype, enabled=dtype != torch.float32):
        logits = 64 * cosine_similarity(x, w)
        additive_angular_margin_loss(logits, torch.full((66,), 1), s=64.0, m=0.25).backward()
    for gradient in (x.grad, w.grad):
        assert gradient is not None
        assert gradient.isfinite().all()
        assert gradient.abs().max() < 64  # of 66 proposals' mean


def test_a_feature_of_zeros_has_finite_gradients() -> None:
    """A region that no unit of the head answers to."""
    w = torch.randn(4, 8, generator=_seeded(5), requires_grad=True)
    x = torch.zeros(2, 8)
    x[1, 0] = 1.0
    x.requires_grad_()
    cosines = cosine_similarity(x, w)
    assert not cosines[0].any()
    additive_angular_margin_loss(64 * cosines, torch.tensor([1, 2]), s=64.0, m=0.25).backward()
    for gradient in (x.grad, w.grad):
        assert gradient is not None
        assert gradient.isfinite().all()


@pytest.mark.parametrize("s", [64.0, 30.0])
def test_without_margin_it_is_a_normalized_softmax(s: float) -> None:
    x, w, targets = _problem(torch.float32)
    x.requires_grad_()
    found = additive_angular_margin_loss(s * cosine_similarity(x, w), targets, s=s, m=0.0)
    (gradient,) = torch.autograd.grad(found, x)
    x64, w64 = x.detach().double().requires_grad_(), w.double()
    logits = s * (x64 / x64.norm(dim=1, keepdim=True)) @ (w64 / w64.norm(dim=1, keepdim=True)).T
    expected = F.cross_entropy(logits, targets)
    expected.backward()
    torch.testing.assert_close(found.double(), expected, rtol=LOSS, atol=0)
    assert x64.grad is not None
    _close(gradient, x64.grad, GRADIENT[torch.float32])


def test_length_of_features_does_not_matter() -> None:
    x, w, targets = _problem(torch.float32)
    lengths = torch.logspace(-3, 3, 8)[:, None]

    def loss(features: Tensor) -> Tensor:
        return additive_angular_margin_loss(
            64 * cosine_similarity(features, w), targets, s=64.0, m=0.25
        )

    torch.testing.assert_close(loss(x), loss(x * lengths), rtol=LOSS, atol=0)
    plain, scaled = x.clone().requires_grad_(), (x * lengths).requires_grad_()
    (a,) = torch.autograd.grad(loss(plain), plain)
    (b,) = torch.autograd.grad(loss(scaled), scaled)
    _close(b * lengths, a.double(), GRADIENT[torch.float32])


def test_background_margin_is_a_choice_and_touches_background_only() -> None:
    _, w, _ = _problem(torch.float32)
    x, background = torch.randn(6, 10, generator=_seeded(6)), torch.full((6,), 5)
    foreground = torch.tensor([0, 1, 2, 3, 4, 0])
    logits = 64 * cosine_similarity(x, w)

    def loss(targets: Tensor, on: bool) -> Tensor:
        return additive_angular_margin_loss(
            logits, targets, s=64.0, m=0.25, margin_on_background=on
        )

    assert loss(foreground, True) == loss(foreground, False)
    assert loss(background, True) > loss(background, False)  # no positives at all
    torch.testing.assert_close(loss(background, False), F.cross_entropy(logits, background))


def test_no_proposals() -> None:
    w = torch.randn(4, 8, requires_grad=True)
    x = torch.zeros(0, 8, requires_grad=True)
    loss = AdditiveAngularMarginLoss(s=64.0, m=0.25)(
        64 * cosine_similarity(x, w), torch.zeros(0, dtype=torch.long)
    )
    loss.backward()
    assert loss.item() == 0.0
    assert w.grad is not None  # DDP waits for every parameter
    assert not w.grad.any()


def test_order_and_batching_of_proposals_do_not_matter() -> None:
    x, w, targets = _problem(torch.float32)
    logits = 64 * cosine_similarity(x, w)
    options: dict[str, Any] = {"s": 64.0, "m": 0.25}
    whole = additive_angular_margin_loss(logits, targets, **options)
    order = torch.randperm(8, generator=_seeded(7))
    shuffled = additive_angular_margin_loss(logits[order], targets[order], **options)
    torch.testing.assert_close(shuffled, whole, rtol=LOSS, atol=0)
    parts = [
        additive_angular_margin_loss(logits[r], targets[r], **options)
        for r in (slice(0, 3), slice(3, 8))
    ]
    torch.testing.assert_close((3 * parts[0] + 5 * parts[1]) / 8, whole, rtol=LOSS, atol=0)


def test_targets_logits_are_left_as_they_were() -> None:
    x, w, targets = _problem(torch.float32)
    logits = 64 * cosine_similarity(x, w)
    before = logits.clone()
    additive_angular_margin_loss(logits, targets, s=64.0, m=0.25)
    assert torch.equal(logits, before)  # the scores of the branch have no margin


def test_operators_do_not_grow_with_proposals_or_classes(operators: Any) -> None:
    counts = []
    for n, c in ((3, 4), (200, 60)):
        x, w = torch.randn(n, 5, requires_grad=True), torch.randn(c, 5, requires_grad=True)
        with operators() as seen:
            logits = 64 * cosine_similarity(x, w)
            additive_angular_margin_loss(
                logits, torch.randint(0, c, (n,)), s=64.0, m=0.25
            ).backward()
        counts.append(seen.count)
    assert counts[0] == counts[1]


@pytest.mark.parametrize("s", [0.0, -1.0, math.nan, math.inf])
def test_impossible_scale(s: float) -> None:
    with pytest.raises(ConfigError, match=r"^s="):
        AdditiveAngularMarginLoss(s=s, m=0.25)


@pytest.mark.parametrize("m", [-0.1, math.pi, 4.0, math.nan, math.inf, -math.inf])
def test_impossible_margin(m: float) -> None:
    with pytest.raises(ConfigError, match=r"^m="):
        AdditiveAngularMarginLoss(s=64.0, m=m)


def test_limits_that_are_allowed() -> None:
    assert AdditiveAngularMarginLoss(s=1e-3, m=0.0).m == 0.0
    assert AdditiveAngularMarginLoss(s=1e3, m=3.14).s == 1e3
