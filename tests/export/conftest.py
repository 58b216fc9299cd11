"""Checkpoints of detectors small enough to be exported in a blink."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra.utils import instantiate
from torch import nn

from deepacc_lightning.config import compose_config, to_plain

TINY = (
    "pixel_mean=228",
    "pixel_std=45",
    "scale=quick",
    "scale.image_size=128",
    "scale.backbone.stem_channels=8",
    "scale.backbone.res2_channels=8",
    "scale.fpn.out_channels=32",
    "scale.roi.fc_dims=[16,16]",
    "scale.rpn.pre_nms_topk=[100,100]",
    "scale.rpn.post_nms_topk=[40,40]",
)


def tiny_content(*overrides: str, preset: str = "siamese_gia") -> dict[str, Any]:
    """Returns the content of a checkpoint of a tiny model with random weights."""
    options = [*TINY, "data.root=unused", "out=unused", f"experiment={preset}", *overrides]
    cfg = to_plain(compose_config("train", options))
    torch.manual_seed(5)
    model: nn.Module = instantiate(cfg["model"])
    return {"model": model.state_dict(), "deepacc_config": cfg}


@pytest.fixture(scope="session")
def make_content() -> Callable[..., dict[str, Any]]:
    """Makes the content of a checkpoint of a tiny model."""
    return tiny_content


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of a checkpoint of a tiny DeepACC, with settings that an export passes on."""
    path = tmp_path_factory.mktemp("checkpoint") / "best.ckpt"
    extra = {"karyotype": {"temperature": 1.5}, "card": {"name": "tiny"}}
    torch.save({**tiny_content(), **extra}, path)
    return path
