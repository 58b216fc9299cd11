from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from deepacc_d2.chromosomes import CLASSES
from deepacc_d2.distributed import GatheredBatchNorm2d, count_per_process, gather_batch_norm
from deepacc_d2.losses import GroupInnerAdjacencyLoss


@pytest.fixture
def run_twice() -> Callable[..., list[Any]]:
    path = Path(__file__).with_name("two_processes.py")
    spec = importlib.util.spec_from_file_location("two_processes", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["two_processes"] = module
    spec.loader.exec_module(module)
    return module.run_twice


def _norm(kind: type[nn.BatchNorm2d], momentum: float | None) -> nn.BatchNorm2d:
    norm = kind(3, momentum=momentum)
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([1.0, 2.0, -0.5]))
        norm.bias.copy_(torch.tensor([0.0, 1.0, 3.0]))
    return norm


def _maps() -> list[torch.Tensor]:
    """Two steps of five images, the mean far from zero."""
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(5, 3, 4, 6, generator=generator) * 3 + 50 for _ in range(2)]


def _loss(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return ((output - target) ** 2).sum()


def _share(rank: int) -> slice:
    return slice(0, 2) if rank == 0 else slice(2, 5)  # not the same number of images


def _normalize_share(rank: int, momentum: float | None) -> dict[str, Any]:
    norm = _norm(GatheredBatchNorm2d, momentum)
    result: dict[str, Any] = {"outputs": [], "inputs": []}
    for maps in _maps():
        share = maps[_share(rank)].clone().requires_grad_()
        output = norm(share)
        _loss(output, maps[_share(rank)] * 0.01).backward()
        result["outputs"].append(output.detach().numpy())
        result["inputs"].append(share.grad.numpy())
    result["weight"] = norm.weight.grad.numpy()
    result["bias"] = norm.bias.grad.numpy()
    norm.eval()
    result["evaluated"] = norm(_maps()[0]).detach().numpy()
    return result


@pytest.mark.parametrize("momentum", [0.1, None])
def test_batch_norm_of_two_processes_is_that_of_one(
    run_twice: Callable[..., list[Any]], momentum: float | None
) -> None:
    shares = run_twice(_normalize_share, momentum)
    norm = _norm(nn.BatchNorm2d, momentum)
    for step, maps in enumerate(_maps()):
        whole = maps.clone().requires_grad_()
        output = norm(whole)
        _loss(output, maps * 0.01).backward()
        for name, expected in (("outputs", output.detach()), ("inputs", whole.grad)):
            found = torch.cat([torch.from_numpy(share[name][step]) for share in shares])
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    # Gradients of weights are summed over the processes afterwards, as DDP does.
    for name in ("weight", "bias"):
        found = sum(torch.from_numpy(share[name]) for share in shares)
        torch.testing.assert_close(found, getattr(norm, name).grad, rtol=1e-4, atol=1e-3)
    norm.eval()
    for share in shares:
        found = torch.from_numpy(share["evaluated"])
        torch.testing.assert_close(found, norm(_maps()[0]).detach(), rtol=1e-5, atol=1e-5)


def test_one_process_alone_is_plain_batch_norm() -> None:
    norm, plain = _norm(GatheredBatchNorm2d, 0.1), _norm(nn.BatchNorm2d, 0.1)
    for maps in _maps():
        assert torch.equal(norm(maps), plain(maps))
    assert torch.equal(norm.running_var, plain.running_var)


def test_every_batch_norm_is_exchanged_and_its_weights_stay() -> None:
    model = nn.Sequential(nn.Conv2d(1, 3, 1), nn.Sequential(nn.BatchNorm2d(3)), nn.GroupNorm(1, 3))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    gather_batch_norm(model)
    assert isinstance(model[1][0], GatheredBatchNorm2d)
    assert not isinstance(model[2], GatheredBatchNorm2d)
    after = model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def _count(rank: int, counts: list[int]) -> float:
    return float(count_per_process(torch.tensor(counts[rank])))


@pytest.mark.parametrize(("counts", "expected"), [([3, 8], 5.5), ([0, 4], 2.0), ([0, 0], 0.5)])
def test_counts_are_shared_out(
    run_twice: Callable[..., list[Any]], counts: list[int], expected: float
) -> None:
    assert run_twice(_count, counts) == [expected, expected]


@pytest.mark.parametrize(("count", "expected"), [(0, 1.0), (7, 7.0)])
def test_a_count_of_one_process_is_its_own(count: int, expected: float) -> None:
    assert float(count_per_process(torch.tensor(count))) == expected


def _proposals() -> tuple[torch.Tensor, torch.Tensor]:
    """Two images of 40 proposals; the second one has far fewer positives."""
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(80, len(CLASSES) + 1, generator=generator) * 3
    targets = torch.randint(0, len(CLASSES), (80,), generator=generator)
    targets[50:] = len(CLASSES)
    return logits, targets


def _gia_of_share(rank: int) -> dict[str, Any]:
    logits, targets = _proposals()
    share = logits[rank * 40 : rank * 40 + 40].clone().requires_grad_()
    loss = GroupInnerAdjacencyLoss()(share, targets[rank * 40 : rank * 40 + 40], [40])
    loss.backward()
    return {"loss": float(loss), "gradient": share.grad.numpy()}


def test_gia_of_two_processes_is_that_of_one(run_twice: Callable[..., list[Any]]) -> None:
    logits, targets = _proposals()
    logits.requires_grad_()
    loss = GroupInnerAdjacencyLoss()(logits, targets, [40, 40])
    loss.backward()
    shares = run_twice(_gia_of_share)
    assert sum(s["loss"] for s in shares) / 2 == pytest.approx(float(loss), rel=1e-5)
    found = torch.cat([torch.from_numpy(s["gradient"]) for s in shares]) / 2
    torch.testing.assert_close(found, logits.grad)
