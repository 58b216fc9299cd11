"""Eq. 3 against loops in float64, and answers known by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from deepacc_d2.chromosomes import CLASSES, DENVER_GROUPS, NUM_CLASSES, adjacency_matrix
from deepacc_d2.errors import ConfigError
from deepacc_d2.losses import GroupInnerAdjacencyLoss, group_inner_adjacency_loss

BACKGROUND = NUM_CLASSES
GROUPS = [[CLASSES.index(n) for n in names] for names in DENVER_GROUPS.values()]
LOW = [torch.float32, torch.bfloat16, torch.float16]
LOSS = 2e-6  # relative, in every type: the sums are float32 whatever autocast says
# Of gradients, relative to the largest entry: rounding to the logits' type.
GRADIENT = {torch.float32: 5e-6, torch.bfloat16: 2.0**-8 + 5e-6, torch.float16: 2.0**-11 + 5e-6}


def _seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _naive(
    logits: Tensor, targets: list[int], counts: list[int], anchor: str = "labelled"
) -> Tensor:
    """Eq. 3 proposal by proposal and class by class; float64 in, float64 autograd out."""
    k = logits.shape[1] - 1
    total, positives, start = logits.new_zeros(()), 0, 0
    for count in counts:
        rows = range(start, start + count)
        start += count
        m = {}
        for i in rows:
            exponents = (logits[i, :k] - logits[i, :k].max().detach()).exp()
            m[i] = exponents / exponents.sum()
        values = {i: m[i].tolist() for i in rows}
        highest = {i: max(range(k + 1), key=logits[i].tolist().__getitem__) for i in rows}
        for i in rows:
            if targets[i] == k:
                continue
            positives += 1
            (group,) = [g for g in GROUPS if targets[i] in g]
            for j in group:
                named = targets if anchor == "labelled" else highest
                candidates = [r for r in rows if named[r] == j]
                if j == targets[i] or not candidates:
                    continue
                best = max(candidates, key=lambda r: values[r][j])
                total = total + (m[i] * m[best]).sum()
    return total / max(positives, 1)


def _problem(counts: list[int], seed: int = 0) -> tuple[Tensor, Tensor]:
    """Proposals of groups B, E, G and background; class "17" and half of G's are absent."""
    n = sum(counts)
    names = torch.tensor([CLASSES.index(c) for c in ("4", "5", "16", "18", "21", "Y")])
    names = torch.cat([names, torch.tensor([BACKGROUND, BACKGROUND])])
    targets = names[torch.randint(0, len(names), (n,), generator=_seeded(seed))]
    logits = 2 * torch.randn(n, NUM_CLASSES + 1, generator=_seeded(seed + 1))
    return logits, targets


@pytest.fixture(scope="module")
def adjacency() -> Tensor:
    return torch.from_numpy(adjacency_matrix())


@pytest.mark.parametrize("counts", [[17], [9, 12], [8, 0, 7], [0, 9]])
@pytest.mark.parametrize("anchor", ["labelled", "predicted"])
@pytest.mark.parametrize("dtype", LOW)
def test_loss_and_gradients_by_loops(dtype: torch.dtype, anchor: Any, counts: list[int]) -> None:
    logits, targets = _problem(counts)
    logits = logits.to(dtype).requires_grad_()  # as a plain layer under autocast hands them on
    with torch.autocast("cpu", dtype=dtype, enabled=dtype != torch.float32):
        loss = GroupInnerAdjacencyLoss(anchor=anchor)(logits, targets, counts)
    assert loss.dtype == torch.float32
    loss.backward()
    logits64 = logits.detach().double().requires_grad_()
    expected = _naive(logits64, targets.tolist(), counts, anchor)
    expected.backward()
    assert expected > 0.01
    torch.testing.assert_close(loss.double(), expected, rtol=LOSS, atol=0)
    assert logits.grad is not None
    assert logits64.grad is not None
    largest = float(logits64.grad.abs().max())
    torch.testing.assert_close(
        logits.grad.double(), logits64.grad, rtol=0, atol=GRADIENT[dtype] * largest
    )


def _one_hot(*classes: int, height: float = 60.0) -> Tensor:
    logits = torch.zeros(len(classes), NUM_CLASSES + 1)
    for i, j in enumerate(classes):
        logits[i, j] = height
    return logits


# Class indices: "1" is 0, "2" is 1, "3" is 2 (group A); "4" is 3, "5" is 4 (group B).
@pytest.mark.parametrize(
    ("logits", "labels", "expected"),
    [
        pytest.param(_one_hot(0, 1, 2), [0, 1, 2], 0.0, id="all right"),
        pytest.param(torch.zeros(2, 25), [3, 4], 1 / 24, id="uniform"),
        pytest.param(torch.zeros(3, 25), [0, 1, 2], 2 / 24, id="uniform, two others in the group"),
        pytest.param(_one_hot(0, 0), [0, 1], 1.0, id="a 2 taken for a 1"),
        pytest.param(_one_hot(0, 0, 0), [0, 1, BACKGROUND], 1.0, id="background does not count"),
        pytest.param(_one_hot(0, 0), [0, 3], 0.0, id="not of one group"),
        pytest.param(_one_hot(0, 0), [0, 0], 0.0, id="not of two classes"),
        pytest.param(_one_hot(0, 0, 1), [0, 1, 1], 0.0 + 1 / 3, id="only the best 2 stands for 2"),
        pytest.param(_one_hot(7), [0], 0.0, id="alone"),
    ],
)
def test_answers_known_by_hand(logits: Tensor, labels: list[int], expected: float) -> None:
    loss = GroupInnerAdjacencyLoss()(logits, torch.tensor(labels), [len(labels)])
    assert loss.item() == pytest.approx(expected, abs=1e-6)


def test_anchor_of_a_class_is_labelled_it_even_if_another_is_surer() -> None:
    """Proposals 1 and 2 are labelled 1 and 5; the latter is the surest of being a 2."""
    logits = _one_hot(0, 1)
    args = (logits, torch.tensor([0, 4]), [2])
    assert float(GroupInnerAdjacencyLoss()(*args)) == pytest.approx(0.0, abs=1e-6)
    assert float(GroupInnerAdjacencyLoss(anchor="predicted")(*args)) == pytest.approx(0, abs=1e-6)
    logits[0] = _one_hot(1)[0]  # now the 1 is taken for a 2
    assert float(GroupInnerAdjacencyLoss()(*args)) == pytest.approx(0.0, abs=1e-6)
    # Proposal 0, and not only proposal 1, is predicted 2: either has the vector of a sure 2.
    assert float(GroupInnerAdjacencyLoss(anchor="predicted")(*args)) == pytest.approx(0.5)


def test_predicted_anchors_are_not_predicted_background() -> None:
    logits = _one_hot(1)
    logits[0, BACKGROUND] = 61.0
    loss = GroupInnerAdjacencyLoss(anchor="predicted")(logits, torch.tensor([0]), [1])
    assert loss.item() == 0.0


def test_background_logit_is_no_part_of_the_vector() -> None:
    logits, targets = _problem([12])
    other = logits.clone()
    other[:, BACKGROUND] += 5.0
    other.requires_grad_()
    loss = GroupInnerAdjacencyLoss()
    found = loss(other, targets, [12])
    torch.testing.assert_close(found, loss(logits, targets, [12]), rtol=LOSS, atol=0)
    (gradient,) = torch.autograd.grad(found, other)
    assert not gradient[:, BACKGROUND].any()


def test_images_do_not_see_each_other(adjacency: Tensor) -> None:
    logits, targets = _one_hot(0, 0), torch.tensor([0, 1])
    assert float(group_inner_adjacency_loss(logits, targets, [1, 1], adjacency)) == 0.0
    assert float(group_inner_adjacency_loss(logits, targets, [2], adjacency)) == pytest.approx(1.0)

    # The second image's logits change nothing in the first one's gradient.
    logits, targets = _problem([9, 9])
    gradients = []
    for scale in (1.0, -3.0):
        x = torch.cat([logits[:9], scale * logits[9:]]).requires_grad_()
        group_inner_adjacency_loss(x, targets, [9, 9], adjacency).backward()
        assert x.grad is not None
        gradients.append(x.grad[:9])
    assert gradients[0].any()
    torch.testing.assert_close(*gradients, rtol=0, atol=0)


@pytest.mark.parametrize("anchor", ["labelled", "predicted"])
def test_a_batch_is_its_images(adjacency: Tensor, anchor: Any) -> None:
    logits, targets = _problem([10, 14], seed=5)
    parts = [
        (
            group_inner_adjacency_loss(logits[r], targets[r], [n], adjacency, anchor=anchor),
            int((targets[r] < BACKGROUND).sum()),
        )
        for r, n in ((slice(0, 10), 10), (slice(10, 24), 14))
    ]
    expected = sum(loss * n for loss, n in parts) / sum(n for _, n in parts)
    for counts in ([10, 14], [0, 10, 0, 14, 0]):
        whole = group_inner_adjacency_loss(logits, targets, counts, adjacency, anchor=anchor)
        torch.testing.assert_close(whole, expected, rtol=LOSS, atol=0)


@pytest.mark.parametrize("anchor", ["labelled", "predicted"])
def test_order_does_not_matter(adjacency: Tensor, anchor: Any) -> None:
    logits, targets = _problem([20], seed=3)
    order = torch.randperm(20, generator=_seeded(9))
    torch.testing.assert_close(
        group_inner_adjacency_loss(logits[order], targets[order], [20], adjacency, anchor=anchor),
        group_inner_adjacency_loss(logits, targets, [20], adjacency, anchor=anchor),
        rtol=LOSS,
        atol=0,
    )


def test_sure_proposals_in_any_order(adjacency: Tensor) -> None:
    """Scores that float32 rounds to 1: whichever stands for the class, the loss is the same."""
    logits = torch.cat([_one_hot(3, 3, 4, 4, height=40.0), _one_hot(3, height=3.0)])
    logits[1, 7] = 15.0
    targets = torch.tensor([3, 4, 4, 3, 3])
    losses = [
        float(group_inner_adjacency_loss(logits[o], targets[o], [5], adjacency))
        for o in (torch.randperm(5, generator=_seeded(s)) for s in range(6))
    ]
    assert max(losses) - min(losses) < 1e-6


@pytest.mark.parametrize("anchor", ["labelled", "predicted"])
@pytest.mark.parametrize("counts", [[], [0], [0, 0], [3], [2, 0, 3]])
def test_no_positives_or_no_proposals(anchor: Any, counts: list[int]) -> None:
    n = sum(counts)
    logits = torch.randn(n, NUM_CLASSES + 1, generator=_seeded(0), requires_grad=True)
    targets = torch.full((n,), BACKGROUND)
    loss = GroupInnerAdjacencyLoss(anchor=anchor)(logits, targets, counts)
    loss.backward()
    assert loss.item() == 0.0
    assert logits.grad is not None
    assert not logits.grad.any()


def test_extreme_logits_have_finite_gradients() -> None:
    logits = _one_hot(0, 0, 3, 4, height=64.0)
    logits[:, 1] = -64.0
    logits.requires_grad_()
    loss = GroupInnerAdjacencyLoss()(logits, torch.tensor([0, 1, 2, 4]), [4])
    loss.backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


def test_other_groups() -> None:
    everyone = {"all": list(CLASSES)}
    logits, targets = torch.zeros(3, 25), torch.tensor([0, 10, 23])
    assert float(GroupInnerAdjacencyLoss(groups=everyone)(logits, targets, [3])) == pytest.approx(
        2 / 24
    )
    single = {name: [name] for name in CLASSES}
    assert float(GroupInnerAdjacencyLoss(groups=single)(logits, targets, [3])) == 0.0


def test_groups_as_yaml_reads_them() -> None:
    """Unquoted, 1..22 are numbers there, and X is a string."""
    groups = {
        g: [int(n) if n.isdigit() else n for n in names] for g, names in DENVER_GROUPS.items()
    }
    found = GroupInnerAdjacencyLoss(groups=groups)  # type: ignore[arg-type]
    assert torch.equal(found.adjacency, GroupInnerAdjacencyLoss().adjacency)


@pytest.mark.parametrize(
    "groups",
    [
        pytest.param({}, id="none"),
        pytest.param({"A": ["1", "2"]}, id="classes left out"),
        pytest.param({**DENVER_GROUPS, "H": ["1"]}, id="a class twice"),
        pytest.param({**DENVER_GROUPS, "H": ["Z"]}, id="no class of these"),
        pytest.param({"A": [1, 2, "X"]}, id="numbers"),
    ],
)
def test_groups_that_do_not_cover_the_classes(groups: Any) -> None:
    with pytest.raises(ConfigError, match="groups must name each class once"):
        GroupInnerAdjacencyLoss(groups=groups)


def test_unknown_anchor() -> None:
    with pytest.raises(ConfigError, match=r"anchor='nearest': choose labelled or predicted"):
        GroupInnerAdjacencyLoss(anchor="nearest")  # type: ignore[arg-type]


def test_buffer_follows_the_module_but_not_the_checkpoint() -> None:
    loss = GroupInnerAdjacencyLoss()
    assert not loss.state_dict()
    assert loss.to("meta").adjacency.device.type == "meta"


def test_operators_grow_with_images_only(operators: Any) -> None:
    seen = []
    for n, k, images in ((4, 3, 2), (300, 60, 2), (300, 60, 3), (300, 60, 4)):
        adjacency = ~torch.eye(k, dtype=torch.bool)
        logits = torch.randn(n, k + 1, requires_grad=True)
        counts = [n // images] * images
        logits, targets = logits[: sum(counts)], torch.randint(0, k + 1, (sum(counts),))
        with operators() as mode:
            group_inner_adjacency_loss(logits, targets, counts, adjacency)
        seen.append(mode.count)
    assert seen[0] == seen[1]
    assert seen[2] - seen[1] == seen[3] - seen[2]
