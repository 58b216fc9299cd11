"""Writes the mean of the weights of checkpoints of one network.

    python -m deepacc_d2.mean_of_checkpoints A.ckpt B.ckpt --out mean.ckpt

Of two trainings of which one continues the other, the mean is often better than either on images
that neither has seen (Wortsman et al. 2022).
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from deepacc_d2.checkpoint import read_checkpoint
from deepacc_d2.errors import ConfigError, run_cli
from deepacc_d2.files import whole_file


def mean_of(paths: list[Path]) -> dict[str, object]:
    """Returns a checkpoint's content, with the config of the first.

    Raises:
        ConfigError: there are fewer than two, or they are not of one network.
    """
    if len(paths) < 2:
        raise ConfigError("a mean needs two checkpoints or more")
    contents = [read_checkpoint(path) for path in paths]
    first = contents[0]["model"]
    for path, content in zip(paths, contents, strict=True):
        shapes = {key: value.shape for key, value in content["model"].items()}
        if shapes != {key: value.shape for key, value in first.items()}:
            raise ConfigError(f"{path} has other weights than {paths[0]}: no mean can be made")
    mean = {}
    for key, value in first.items():
        stacked = torch.stack([content["model"][key].double() for content in contents])
        mean[key] = stacked.mean(dim=0).to(value.dtype) if value.is_floating_point() else value
    return {"model": mean, "deepacc_config": contents[0]["deepacc_config"]}


def main(arguments: list[str] | None = None) -> int:
    """Command line: reads, averages, writes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoints", nargs="+", type=Path)
    parser.add_argument("--out", required=True, type=Path)
    options = parser.parse_args(arguments)
    content = mean_of(options.checkpoints)
    with whole_file(options.out) as temporary:
        torch.save(content, temporary)
    print(f"mean of {len(options.checkpoints)} checkpoints: {options.out}")
    return 0


if __name__ == "__main__":
    run_cli(main)
