"""Eq. 4 as a whole against loops in float64, and what the parts need of each other."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from detectron2.modeling.meta_arch.retinanet import RetinaNet
from detectron2.modeling.roi_heads import FastRCNNOutputLayers
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage
from torch import Tensor

from deepacc_d2.chromosomes import CLASSES, DENVER_GROUPS, NUM_CLASSES
from deepacc_d2.errors import ConfigError
from deepacc_d2.losses import GroupInnerAdjacencyLoss
from deepacc_d2.modeling import (
    AngularMarginBranch,
    DeepACCOutput,
    DeepACCPredictor,
    LinearBranch,
    SiameseInferenceBranch,
)

Build = Callable[..., Any]
K, D, S, M = NUM_CLASSES, 24, 16.0, 0.25
GROUPS = [[CLASSES.index(n) for n in names] for names in DENVER_GROUPS.values()]
LOW = [torch.float32, torch.bfloat16, torch.float16]
LOSS = 3e-6  # relative: what is computed of the features is float32 whatever autocast says
# Of gradients, relative to the largest entry: rounding to the features' type.
GRADIENT = {torch.float32: 2e-5, torch.bfloat16: 2.0**-8 + 2e-5, torch.float16: 2.0**-11 + 2e-5}
PARTS: dict[str, tuple[str | None, bool, bool]] = {
    "none": (None, False, False),
    "aam": ("angular", False, False),
    "siamese": ("linear", True, False),
    "siamese_aam": ("angular", True, False),
    "aam_gia": ("angular", False, True),
    "siamese_gia": ("angular", True, True),
}
KEYS = {
    "none": {"loss_cls", "loss_box_reg"},
    "aam": {"loss_margin", "loss_box_reg"},
    "siamese": {"loss_margin", "loss_inference", "loss_box_reg"},
    "siamese_aam": {"loss_margin", "loss_inference", "loss_box_reg"},
    "aam_gia": {"loss_margin", "loss_gia", "loss_box_reg"},
    "siamese_gia": {"loss_margin", "loss_inference", "loss_gia", "loss_box_reg"},
}


def _seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _proposals(targets: Tensor, counts: list[int], seed: int = 0) -> list[Instances]:
    result = []
    for labels in targets.split(counts):
        corner = torch.rand(len(labels), 2, generator=_seeded(seed)) * 40
        side = 10 + 20 * torch.rand(len(labels), 2, generator=_seeded(seed + 1))
        x = Instances((80, 90))
        x.proposal_boxes = Boxes(torch.cat([corner, corner + side], dim=1))
        x.gt_boxes = Boxes(torch.cat([corner + 1.5, corner + side - 0.5], dim=1))
        x.gt_classes = labels
        result.append(x)
    return result


# Groups A, B and G, a C and background.
LABELS = [0, 1, 1, 20, 23, K, K, 3, 4, 4, 3, 0, 2, 2, K, 7]
# Rows that also look like another class of their group.
CONFUSED = {0: 1, 2: 0, 3: 23, 4: 20, 8: 3, 12: 0, 13: 1}


def _problem(predictor: Any, n: int = 16) -> tuple[Tensor, Tensor, Tensor]:
    """Features near their class's center, box features and labels."""
    targets = torch.tensor((2 * LABELS)[:n], dtype=torch.long)
    weight = predictor.margin_branch.weight.detach() if predictor.margin_branch else None
    centers = torch.randn(K + 1, D, generator=_seeded(2)) if weight is None else weight
    noise = 0.15 if isinstance(predictor.margin_branch, AngularMarginBranch) else 0.3
    x = centers[targets] + noise * torch.randn(n, D, generator=_seeded(3))
    for row, other in CONFUSED.items():
        if row < n:
            x[row] += 0.9 * centers[other]
    x = x * (0.5 + 4 * torch.rand(n, 1, generator=_seeded(4)))
    return x, torch.randn(n, D, generator=_seeded(5)), targets


def _losses(predictor: Any, output: Any, proposals: list[Instances]) -> dict[str, Tensor]:
    with EventStorage():
        result: dict[str, Tensor] = predictor.losses(output, proposals)
    return result


def _naive(
    x: Tensor, w: Tensor, bias: Tensor, *, targets: list[int], counts: list[int], detach: bool
) -> dict[str, Tensor]:
    """The three classification losses, unweighted: float64 in, float64 autograd out."""

    def unit(v: Tensor) -> Tensor:
        return v / (v * v).sum().sqrt()

    n, normal, weights = len(x), [unit(v) for v in x], [unit(v) for v in w]
    zero = x.new_zeros(())
    margin, inference, gia, positives, start = zero, zero, zero, 0, 0
    logits = [[S * (a * b).sum() for b in weights] for a in normal]
    for i, y in enumerate(targets):
        theta = torch.acos(logits[i][y] / S)
        assert theta.item() + M < math.pi
        own = S * torch.cos(theta + M)
        row = [own if j == y else z for j, z in enumerate(logits[i])]
        margin = margin + torch.stack(row).logsumexp(0) - own
    for count in counts:
        image = range(start, start + count)
        start += count
        rows = {i: torch.stack(logits[i]) for i in image}
        score = {i: rows[i].softmax(0).tolist() for i in image}
        vector = {i: rows[i][:K].softmax(0) for i in image}
        confidence = {i: vector[i].tolist() for i in image}
        centers = []
        for j in range(K + 1):
            best = max(image, key=lambda i: score[i][j], default=None)
            local = j < K and best is not None and score[best][j] > 0.5
            center = normal[best] if local else weights[j]
            centers.append(center.detach() if local and detach else center)
        for i in image:
            final = torch.stack([(x[i] * c).sum() for c in centers]) + bias
            inference = inference + final.logsumexp(0) - final[targets[i]]
            if targets[i] == K:
                continue
            positives += 1
            (group,) = [g for g in GROUPS if targets[i] in g]
            for j in group:
                labelled = [r for r in image if targets[r] == j]
                if j != targets[i] and labelled:
                    anchor = max(labelled, key=lambda r: confidence[r][j])
                    gia = gia + (vector[i] * vector[anchor]).sum()
    return {
        "loss_margin": margin / n,
        "loss_inference": inference / n,
        "loss_gia": gia / positives,
    }


@pytest.mark.parametrize(
    ("dtype", "detach"), [(LOW[0], True), (LOW[0], False), (LOW[1], True), (LOW[2], False)]
)
def test_losses_and_gradients_by_loops(
    make_deepacc_predictor: Build, dtype: torch.dtype, detach: bool
) -> None:
    weight = {"loss_margin": 0.3, "loss_inference": 0.7, "loss_gia": 2.0}
    predictor = make_deepacc_predictor(alpha=0.3, beta=0.7, gamma=2.0, detach_centers=detach)
    bias = predictor.inference_branch.bias
    bias.data.copy_(0.1 * torch.randn(K + 1, generator=_seeded(6)))
    x, regression, targets = _problem(predictor)
    x = x.to(dtype).requires_grad_()  # as a head under autocast hands it on
    counts = [7, 9, 0]
    with torch.autocast("cpu", dtype=dtype, enabled=dtype != torch.float32):
        output = predictor((x, regression.to(dtype)), counts)
        losses = _losses(predictor, output, _proposals(targets, counts))
    assert all(v.dtype == torch.float32 for v in losses.values())
    assert (output.centers.source >= 0).any()

    x64 = x.detach().double().requires_grad_()
    w = predictor.margin_branch.weight
    w64, bias64 = (p.detach().double().requires_grad_() for p in (w, bias))
    expected = _naive(x64, w64, bias64, targets=targets.tolist(), counts=counts, detach=detach)
    for name, value in expected.items():
        assert value > 1e-3, name
        torch.testing.assert_close(
            losses[name].double(), weight[name] * value, rtol=LOSS, atol=1e-7
        )
        low = torch.autograd.grad(losses[name], (x, w, bias), retain_graph=True, allow_unused=True)
        high = torch.autograd.grad(value, (x64, w64, bias64), retain_graph=True, allow_unused=True)
        for which, a, b in zip(("x", "weight", "bias"), low, high, strict=True):
            if b is None or not b.any():
                assert a is None or not a.any(), (name, which)
                continue
            assert a is not None, (name, which)
            scale = weight[name] * float(b.abs().max())
            tolerance = GRADIENT[dtype if which == "x" else torch.float32]
            torch.testing.assert_close(a.double(), weight[name] * b, rtol=0, atol=tolerance * scale)


def _reached(predictor: Any, loss: Tensor) -> set[str]:
    names, parameters = zip(*predictor.named_parameters(), strict=True)
    grads = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
    return {n for n, g in zip(names, grads, strict=True) if g is not None and g.any()}


@pytest.mark.parametrize("detach", [True, False])
def test_which_parameters_a_loss_reaches(make_deepacc_predictor: Build, detach: bool) -> None:
    predictor = make_deepacc_predictor(detach_centers=detach)
    x, regression, targets = _problem(predictor)
    x.requires_grad_()
    regression.requires_grad_()
    losses = _losses(predictor, predictor((x, regression), [16]), _proposals(targets, [16]))
    weight, bias = "margin_branch.weight", "inference_branch.bias"
    assert _reached(predictor, losses["loss_margin"]) == {weight}
    assert _reached(predictor, losses["loss_gia"]) == {weight}
    assert _reached(predictor, losses["loss_inference"]) == {bias, weight}
    assert _reached(predictor, losses["loss_box_reg"]) == {"bbox_pred.weight", "bbox_pred.bias"}
    for name, loss in losses.items():
        a, b = torch.autograd.grad(loss, (x, regression), retain_graph=True, allow_unused=True)
        own, other = (b, a) if name == "loss_box_reg" else (a, b)
        assert own is not None, name
        assert own.any(), name
        assert other is None or not other.any(), name


CASES = {
    "ordinary": ([7, 9], LABELS),
    "one image empty": ([0, 16], LABELS),
    "no positives": ([2, 3], [K] * 5),
    "no proposals": ([0, 0], []),
    "one": ([1], [3]),
}


@pytest.mark.parametrize("parts", PARTS)
@pytest.mark.parametrize("case", CASES)
def test_keys_are_constant_and_every_parameter_gets_a_finite_gradient(
    make_deepacc_predictor: Build, parts: str, case: str
) -> None:
    predictor = make_deepacc_predictor(*PARTS[parts])
    counts, labels = CASES[case]
    x, regression, _ = _problem(predictor, len(labels))
    targets = torch.tensor(labels, dtype=torch.long)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = predictor((x, regression), counts)
        losses = _losses(predictor, output, _proposals(targets, counts))
    assert set(losses) == KEYS[parts]
    assert all(value.shape == () for value in losses.values())
    sum(losses.values()).backward()  # type: ignore[union-attr]
    for name, parameter in predictor.named_parameters():
        assert parameter.grad is not None, name  # DDP waits for every parameter
        assert parameter.grad.isfinite().all(), name
        assert labels or not parameter.grad.any(), name
    for name, value in losses.items():
        assert value.isfinite(), name
        if not labels or (case == "no positives" and name in ("loss_gia", "loss_box_reg")):
            assert float(value) == 0.0, name
        elif name != "loss_gia":
            assert float(value) > 0.0, name


@pytest.mark.parametrize(
    ("weight", "loss"),
    [("alpha", "loss_margin"), ("beta", "loss_inference"), ("gamma", "loss_gia")],
)
def test_a_weight_scales_its_own_loss(
    make_deepacc_predictor: Build, weight: str, loss: str
) -> None:
    predictor = make_deepacc_predictor()
    assert (predictor.alpha, predictor.beta, predictor.gamma) == (0.1, 1.0, 0.1)  # the paper's
    x, regression, targets = _problem(predictor)
    output, proposals = predictor((x, regression), [7, 9]), _proposals(targets, [7, 9])
    before = _losses(predictor, output, proposals)
    setattr(predictor, weight, 4 * getattr(predictor, weight))
    after = _losses(predictor, output, proposals)
    for name in KEYS["siamese_gia"]:
        torch.testing.assert_close(after[name], before[name] * (4 if name == loss else 1))
    setattr(predictor, weight, 0.0)
    none = _losses(predictor, output, proposals)
    assert set(none) == KEYS["siamese_gia"]
    assert float(none[loss]) == 0.0


@pytest.mark.parametrize("parts", PARTS)
def test_result_is_inferences_else_margins_else_a_plain_layers(
    make_deepacc_predictor: Build, parts: str
) -> None:
    predictor = make_deepacc_predictor(*PARTS[parts]).eval()
    x, regression, _ = _problem(predictor)
    output = predictor((x, regression), [7, 9])
    logits, deltas = output.predictions
    margin = x @ predictor.cls_score.weight.T if parts == "none" else predictor.margin_branch(x)
    torch.testing.assert_close(deltas, regression @ predictor.bbox_pred.weight.T)
    if PARTS[parts][1]:
        expected, _ = predictor.inference_branch(x, margin, predictor.margin_branch.weight, [7, 9])
        assert not torch.equal(expected, margin)
        torch.testing.assert_close(output.inference_logits, expected)
        torch.testing.assert_close(output.margin_logits, margin)
    else:
        expected = margin
        assert output.inference_logits is None
        assert output.centers is None
    torch.testing.assert_close(logits, expected)
    # The scores of what is detected are these logits' softmax.
    proposals = _proposals(torch.full((16,), K), [7, 9])
    found = predictor.proposals(output.predictions, proposals)
    torch.testing.assert_close(torch.cat([p.probabilities for p in found]), expected.softmax(dim=1))
    assert hasattr(predictor, "cls_score") == (parts == "none")


@pytest.mark.parametrize("parts", PARTS)
@pytest.mark.parametrize("counts", [[0], [0, 0], [0, 3]])
def test_testing_without_proposals(
    make_deepacc_predictor: Build, parts: str, counts: list[int]
) -> None:
    predictor = make_deepacc_predictor(*PARTS[parts]).eval()
    x, regression, targets = _problem(predictor, sum(counts))
    proposals = _proposals(targets, counts)
    with torch.no_grad():
        predictions = predictor((x, regression), counts).predictions
        found, _ = predictor.inference(predictions, proposals)
        best = predictor.proposals(predictions, proposals)
    assert predictions[0].shape == (sum(counts), K + 1)
    assert [len(t) for t in best] == counts
    assert all(len(f) == 0 for f, count in zip(found, counts, strict=True) if not count)


@pytest.mark.parametrize("parts", PARTS)
def test_predictions_are_float32_under_autocast(make_deepacc_predictor: Build, parts: str) -> None:
    predictor = make_deepacc_predictor(*PARTS[parts])
    x, regression, _ = _problem(predictor)
    exact = predictor((x, regression), [7, 9])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = predictor((x, regression), [7, 9])
    for found, expected in (
        (output.predictions[0], exact.predictions[0]),
        (output.margin_logits, exact.margin_logits),
        (output.inference_logits, exact.inference_logits),
    ):
        assert (found is None) == (expected is None)
        if found is not None:
            torch.testing.assert_close(found, expected)  # float32's tolerance
    assert output.predictions[1].dtype == output.features.dtype == torch.float32


def test_a_batch_is_its_images(make_deepacc_predictor: Build) -> None:
    predictor = make_deepacc_predictor()
    x, regression, targets = _problem(predictor)
    whole = predictor((x, regression), [7, 9])
    losses = _losses(predictor, whole, _proposals(targets, [7, 9]))
    expected = dict.fromkeys(("loss_margin", "loss_inference", "loss_gia"), 0.0)
    logits = []
    for rows in (slice(0, 7), slice(7, 16)):
        labels = targets[rows]
        output = predictor((x[rows], regression[rows]), [len(labels)])
        logits.append(output.predictions[0])
        alone = _losses(predictor, output, _proposals(labels, [len(labels)]))
        for name in expected:
            share = (labels < K) if name == "loss_gia" else (labels <= K)
            total = (targets < K) if name == "loss_gia" else (targets <= K)
            expected[name] += float(alone[name]) * int(share.sum()) / int(total.sum())
    torch.testing.assert_close(whole.predictions[0], torch.cat(logits), rtol=1e-5, atol=1e-6)
    for name, value in expected.items():
        assert float(losses[name]) == pytest.approx(value, rel=5e-6)


def test_order_of_proposals_does_not_matter(make_deepacc_predictor: Build) -> None:
    predictor = make_deepacc_predictor(s=64.0)
    x, regression, targets = _problem(predictor)
    order = torch.randperm(16, generator=_seeded(9))
    (proposals,) = _proposals(targets, [16])
    a = predictor((x, regression), [16])
    b = predictor((x[order], regression[order]), [16])
    for one, two in zip(a.predictions, b.predictions, strict=True):
        torch.testing.assert_close(two, one[order], rtol=1e-5, atol=1e-5)
    found = _losses(predictor, b, [proposals[order]])
    for name, value in _losses(predictor, a, [proposals]).items():
        torch.testing.assert_close(found[name], value, rtol=1e-5, atol=1e-7)


def test_without_parts_it_is_detectron2s(make_deepacc_predictor: Build) -> None:
    predictor = make_deepacc_predictor(*PARTS["none"])
    reference = FastRCNNOutputLayers(
        D, box2box_transform=predictor.box2box_transform, num_classes=K, smooth_l1_beta=1.0
    )
    reference.load_state_dict(predictor.state_dict())
    x, _, targets = _problem(predictor)
    proposals = _proposals(targets, [7, 9])
    output = predictor(x, [7, 9])
    assert isinstance(output, DeepACCOutput)
    expected = reference(x)
    for a, b in zip(output.predictions, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)
    found = _losses(predictor, output, proposals)
    for name, value in _losses(reference, expected, proposals).items():
        assert found[name] == value


def test_box_loss_is_detectron2s_with_all_parts(make_deepacc_predictor: Build) -> None:
    predictor = make_deepacc_predictor()
    reference = FastRCNNOutputLayers(
        D, box2box_transform=predictor.box2box_transform, num_classes=K, smooth_l1_beta=1.0
    )
    reference.bbox_pred.load_state_dict(predictor.bbox_pred.state_dict())
    x, regression, targets = _problem(predictor)
    proposals = _proposals(targets, [7, 9])
    found = _losses(predictor, predictor((x, regression), [7, 9]), proposals)
    assert (
        found["loss_box_reg"]
        == _losses(reference, reference(regression), proposals)["loss_box_reg"]
    )


def test_retinanet_is_detectron2s(make_retinanet: Build, make_item: Build) -> None:
    """The one-stage detector has none of this: its losses are those of Detectron2's own class."""
    model = make_retinanet()
    names = ("backbone", "head", "head_in_features", "anchor_generator", "box2box_transform")
    reference = RetinaNet(
        **{name: getattr(model, name) for name in names},
        anchor_matcher=model.anchor_matcher,
        num_classes=NUM_CLASSES,
        pixel_mean=[200.0],
        pixel_std=[40.0],
    )
    batch = [make_item(seed=0), make_item(80, 64, seed=1)]
    losses = []
    for detector in (model, reference):
        with EventStorage():  # normalizers are running means, and start anew
            losses.append(detector.train()(batch))
    assert set(losses[0]) == {"loss_cls", "loss_box_reg"}
    torch.testing.assert_close(losses[0], losses[1])


def test_shared_features(make_deepacc_predictor: Build) -> None:
    predictor = make_deepacc_predictor()
    x, _, _ = _problem(predictor)
    for one, two in zip(
        predictor(x, [16]).predictions, predictor((x, x), [16]).predictions, strict=True
    ):
        assert torch.equal(one, two)
    assert torch.equal(
        predictor(x[:, :, None, None], [16]).predictions[0], predictor(x, [16]).predictions[0]
    )


@pytest.mark.parametrize(
    ("parts", "named"),
    [
        ((None, True, False), ["inference_branch"]),
        ((None, False, True), ["gia"]),
        ((None, True, True), ["inference_branch", "gia"]),
    ],
)
def test_parts_that_need_a_margin_branch(
    make_deepacc_predictor: Build, parts: tuple[Any, bool, bool], named: list[str]
) -> None:
    with pytest.raises(ConfigError) as caught:
        make_deepacc_predictor(*parts)
    message = str(caught.value)
    assert "\n" not in message
    assert "margin_branch" in message
    for name in ("inference_branch", "gia"):
        assert (f"{name}=null" in message) == (name in named)


@pytest.mark.parametrize("name", ["alpha", "beta", "gamma"])
@pytest.mark.parametrize("weight", [-0.1, float("nan")])
def test_weights_that_are_none(make_deepacc_predictor: Build, name: str, weight: float) -> None:
    with pytest.raises(ConfigError, match=f"^{name}=.*: a loss weight"):
        make_deepacc_predictor(**{name: weight})


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"margin_branch": AngularMarginBranch(D, 5, m=0.25, s=64.0)}, "margin_branch"),
        ({"margin_branch": LinearBranch(D, 5)}, "margin_branch"),
        ({"inference_branch": SiameseInferenceBranch(5)}, "inference_branch"),
        (
            {
                "num_classes": 5,
                "margin_branch": LinearBranch(D, 5),
                "inference_branch": None,
                "gia": GroupInnerAdjacencyLoss(),
            },
            "gia",
        ),
    ],
)
def test_parts_of_another_number_of_classes(
    make_deepacc_predictor: Build, options: dict[str, Any], name: str
) -> None:
    with pytest.raises(ConfigError, match=f"num_classes=.*{name}"):
        make_deepacc_predictor(**options)


def test_any_number_of_classes_without_gia(make_deepacc_predictor: Build) -> None:
    predictor: DeepACCPredictor = make_deepacc_predictor(
        num_classes=5,
        margin_branch=LinearBranch(D, 5),
        inference_branch=SiameseInferenceBranch(5),
        gia=None,
    )
    assert predictor(torch.randn(3, D), [3]).predictions[0].shape == (3, 6)
