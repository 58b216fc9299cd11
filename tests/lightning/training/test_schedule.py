from __future__ import annotations

import pytest
import torch
from fvcore.common.param_scheduler import CosineParamScheduler, MultiStepParamScheduler

from deepacc_d2.errors import ConfigError
from deepacc_lightning.training.schedule import make_schedule, scaled_lr, warmup_factor


def rates(course, total: int, warmup: int, start: float = 0.1) -> list[float]:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=2.0)
    schedule = make_schedule(
        optimizer, course, total_steps=total, warmup_steps=warmup, warmup_start=start
    )
    seen = []
    for _ in range(total):
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return seen


def test_agrees_with_torch_cosine_after_warmup() -> None:
    total = 50
    reference = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=2.0)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(reference, T_max=total)
    expected = []
    for _ in range(total):
        expected.append(reference.param_groups[0]["lr"])
        reference.step()
        cosine.step()
    seen = rates(CosineParamScheduler(1.0, 0.0), total, warmup=10)
    assert seen[10:] == pytest.approx(expected[10:])
    assert seen[0] == pytest.approx(0.1 * expected[0])
    assert seen[5] == pytest.approx((0.1 + 0.9 * 0.5) * expected[5])


def test_steps_drop_where_the_milestones_are() -> None:
    course = MultiStepParamScheduler([1.0, 0.1, 0.01], num_updates=24, milestones=[16, 22])
    seen = rates(course, 240, warmup=1)
    assert seen[159] == pytest.approx(2.0)
    assert seen[160] == pytest.approx(0.2)
    assert seen[219] == pytest.approx(0.2)
    assert seen[220] == pytest.approx(0.02)


def test_warmup_is_cut_in_a_short_training() -> None:
    seen = rates(CosineParamScheduler(1.0, 1.0), 10, warmup=500)
    assert seen[:3] == pytest.approx([0.2, 1.1, 2.0])


def test_warmup_factor_is_linear() -> None:
    values = [warmup_factor(s, warmup_steps=4, start=0.2) for s in range(6)]
    assert values == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0, 1.0])


def test_rate_follows_the_batch() -> None:
    assert scaled_lr(0.02, 16, 16) == 0.02
    assert scaled_lr(0.02, 1, 16) == pytest.approx(0.00125)
    assert scaled_lr(0.02, 7, None) == 0.02


def test_no_steps_is_an_error() -> None:
    with pytest.raises(ConfigError, match=r"0 steps.*max_epochs"):
        rates(CosineParamScheduler(1.0, 0.0), 0, warmup=0)
