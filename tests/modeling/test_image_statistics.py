"""Batch normalization that follows the image: against loops, and what it makes of a trunk."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from detectron2.layers import FrozenBatchNorm2d
from torch import nn

from deepacc_d2.errors import ConfigError
from deepacc_d2.modeling.image_statistics import ImageBatchNorm2d, use_image_statistics


@pytest.fixture
def norm() -> nn.BatchNorm2d:
    """With statistics and an affine map of its own, in evaluation."""
    made = nn.BatchNorm2d(3).eval()
    with torch.no_grad():
        assert made.running_mean is not None
        assert made.running_var is not None
        made.running_mean.copy_(torch.tensor([0.5, -1.0, 2.0]))
        made.running_var.copy_(torch.tensor([0.3, 2.0, 1.5]))
        made.weight.copy_(torch.tensor([1.5, 0.5, -1.0]))
        made.bias.copy_(torch.tensor([0.1, 0.2, -0.3]))
    return made


def images(n: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(n)
    return 3 * torch.randn(n, 3, 6, 8, generator=generator) + 1


def expected(x: np.ndarray, norm: nn.BatchNorm2d, share: float) -> np.ndarray:
    """The same by loops, in double precision."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    out = np.zeros_like(x, dtype=np.float64)
    for n in range(len(x)):
        for c in range(x.shape[1]):
            seen = [float(x[n, c, i, j]) for i in range(0, 6, 2) for j in range(0, 8, 2)]
            own_mean = sum(seen) / len(seen)
            own_var = sum((v - own_mean) ** 2 for v in seen) / len(seen)
            mean = (1 - share) * float(norm.running_mean[c]) + share * own_mean
            var = (1 - share) * float(norm.running_var[c]) + share * own_var
            out[n, c] = (x[n, c] - mean) / np.sqrt(var + norm.eps) * float(norm.weight[c]) + float(
                norm.bias[c]
            )
    return out


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("number", [1, 3])
def test_each_image_has_a_mixture_of_its_own(
    norm: nn.BatchNorm2d, share: float, number: int
) -> None:
    x = images(number)
    with torch.no_grad():
        found = ImageBatchNorm2d.of(norm, share)(x)
        by_loops = expected(x.numpy(), norm, share)
    np.testing.assert_allclose(found, by_loops, rtol=1e-4, atol=1e-5)


def test_wholly_of_the_image_it_undoes_another_stain(norm: nn.BatchNorm2d) -> None:
    x = images(1)
    ours = ImageBatchNorm2d.of(norm, 1.0)
    ours.eps = 0.0
    torch.testing.assert_close(ours(0.4 * x + 7), ours(x), rtol=1e-4, atol=1e-4)
    assert (norm(0.4 * x + 7) - norm(x)).abs().max() > 1


def test_in_training_it_is_plain_batch_normalization(norm: nn.BatchNorm2d) -> None:
    plain = nn.BatchNorm2d(3)
    plain.load_state_dict(norm.state_dict())
    ours = ImageBatchNorm2d.of(norm, 0.5).train()
    x = images(4)
    torch.testing.assert_close(ours(x), plain(x))
    torch.testing.assert_close(ours.running_mean, plain.running_mean)
    torch.testing.assert_close(ours.running_var, plain.running_var)


def test_all_of_a_trunk_follow_and_no_weight_has_another_name(norm: nn.BatchNorm2d) -> None:
    trunk = nn.Sequential(nn.Conv2d(1, 3, 1), norm, nn.Sequential(nn.BatchNorm2d(3), nn.ReLU()))
    names, weight = list(trunk.state_dict()), norm.weight
    use_image_statistics(trunk, 0.25)
    found = [m for m in trunk.modules() if isinstance(m, nn.BatchNorm2d)]
    assert [(type(m), m.share) for m in found] == [(ImageBatchNorm2d, 0.25)] * 2
    assert list(trunk.state_dict()) == names
    assert found[0].weight is weight
    assert not found[0].training
    assert found[1].training


def test_bad_input() -> None:
    with pytest.raises(ConfigError, match="no batch normalization"):
        use_image_statistics(nn.Sequential(nn.Conv2d(1, 3, 1), FrozenBatchNorm2d(3)), 0.5)
    with pytest.raises(ConfigError, match=r"statistics_share=1\.5"):
        use_image_statistics(nn.Sequential(nn.BatchNorm2d(3)), 1.5)


def test_a_detector_is_built_with_it(make_rcnn: Callable[..., Any]) -> None:
    torch.manual_seed(0)
    plain = make_rcnn().eval()
    torch.manual_seed(0)
    model = make_rcnn(statistics_share=0.5).eval()
    model.load_state_dict(plain.state_dict())
    image = torch.rand(1, 1, 64, 96)
    with torch.no_grad():
        before, after = plain.backbone(image), model.backbone(image)
    assert all((before[name] - after[name]).abs().max() > 1e-3 for name in before)
    found = [m for m in model.backbone.modules() if isinstance(m, ImageBatchNorm2d)]
    assert len(found) == sum(isinstance(m, nn.BatchNorm2d) for m in plain.backbone.modules()) > 0
