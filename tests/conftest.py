"""What tests of several packages share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from torch.utils._python_dispatch import TorchDispatchMode

TESTS = Path(__file__).parent
# Files and folders whose tests train, start other processes, export models, read huge pictures or
# run notebooks; the longest first, so that the last one of a process is short.
SLOW = (
    "lightning/test_ablation.py",
    "lightning/training/test_resume.py",
    "lightning/test_ends.py",
    "lightning/test_ddp.py",
    "notebooks",
    "lightning/test_sweep_launchers.py",
    "lightning/test_sweep.py",
    "lightning/test_train.py",
    "lightning/test_several_sets.py",
    "detection/export",
    "detection/test_runners.py",
    "lightning/test_compare.py",
    "lightning/test_predict.py",
    "lightning/test_configs.py",
    "lightning/test_masks.py",
    "lightning/test_context.py",
    "lightning/test_dashboard.py",
    "lightning/test_explain.py",
    "lightning/test_export.py",
    "lightning/test_karyotype.py",
    "lightning/wandb",
    "images/test_spread_fields.py",
    "prediction/test_shipped.py",
    "review/test_kill.py",
    "review/test_keys.py",
    "review/test_main.py",
    "review/test_pages.py",
    "review/test_upload_page.py",
    "test_benchmarks.py",
    "test_distributed.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks the tests of SLOW, which `-m "not slow"` leaves out, and has them begin first."""
    ranks = {TESTS / name: rank for rank, name in enumerate(SLOW)}

    def rank(item: pytest.Item) -> int:
        places = (item.path, *item.path.parents)
        return min((ranks[place] for place in places if place in ranks), default=len(SLOW))

    for item in items:
        if rank(item) < len(SLOW):
            item.add_marker(pytest.mark.slow)
    items.sort(key=rank)


class _Operators(TorchDispatchMode):
    """Counts the operators that torch calls within it."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += 1
        return func(*args, **(kwargs or {}))


@pytest.fixture
def operators() -> type[_Operators]:
    """A context manager whose ``count`` is that of the operators called within it."""
    return _Operators


TINY = (
    *("pixel_mean=228", "pixel_std=45", "data.root=unused", "out=unused"),
    *("scale.backbone.stem_channels=8", "scale.backbone.res2_channels=8"),
    *("scale.fpn.out_channels=32", "scale.roi.fc_dims=[16,16]"),
    *("scale.rpn.pre_nms_topk=[100,100]", "scale.rpn.post_nms_topk=[40,40]"),
)


def tiny_content(
    *overrides: str, preset: str = "siamese_gia", scale: str = "lab"
) -> dict[str, Any]:
    """Returns the content of a checkpoint of a tiny model with random weights."""
    import torch
    from hydra.utils import instantiate

    from deepacc_lightning.core.config import compose_config, to_plain

    cfg = to_plain(
        compose_config("train", [f"scale={scale}", *TINY, f"experiment={preset}", *overrides])
    )
    torch.manual_seed(5)
    model: torch.nn.Module = instantiate(cfg["model"])
    return {"model": model.state_dict(), "deepacc_config": cfg}


@pytest.fixture(scope="session")
def make_content() -> Callable[..., dict[str, Any]]:
    """Makes the content of a checkpoint of a tiny model."""
    return tiny_content
