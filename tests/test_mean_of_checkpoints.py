"""The mean of checkpoints, weight by weight."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from deepacc_d2.errors import ConfigError
from deepacc_d2.mean_of_checkpoints import main, mean_of


@pytest.fixture
def pair(make_content: Callable[..., dict[str, Any]], tmp_path: Path) -> list[Path]:
    paths = []
    for number in range(2):
        content = make_content()
        content["model"] = {
            key: torch.full_like(value, number + 1) for key, value in content["model"].items()
        }
        torch.save(content, tmp_path / f"{number}.ckpt")
        paths.append(tmp_path / f"{number}.ckpt")
    return paths


def test_floats_are_averaged_and_counters_are_the_first(pair: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "mean.ckpt"
    assert main([*map(str, pair), "--out", str(out)]) == 0
    written = torch.load(out, weights_only=True)
    assert written["deepacc_config"]
    for key, value in written["model"].items():
        expected = 1.5 if value.is_floating_point() else 1
        assert torch.all(value == expected), key


def test_other_networks_are_refused(pair: list[Path]) -> None:
    content = torch.load(pair[1], weights_only=True)
    content["model"].pop(next(iter(content["model"])))
    torch.save(content, pair[1])
    with pytest.raises(ConfigError, match=r"1\.ckpt has other weights than .*0\.ckpt"):
        mean_of(pair)
    with pytest.raises(ConfigError, match="needs two"):
        mean_of(pair[:1])
