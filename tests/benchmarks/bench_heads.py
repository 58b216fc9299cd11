"""A step of the ``heads`` protocol against a step end to end.

Both are steps of the ``sep`` preset at quick scale on the same images: the one reads its batch from
the cache and trains the heads, the other has its images decoded in memory already and trains the
whole detector. They are taken in turn. Run as a script: ``python tests/benchmarks/bench_heads.py``.
"""

from __future__ import annotations

import contextlib
import io
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.utils.events import EventStorage
from hydra.utils import instantiate
from measurement import Measurement, jpeg_dataset
from torch import nn

from deepacc_lightning.core.config import compose_config
from deepacc_lightning.train import build_datamodule, fill_in_data, quiet
from deepacc_lightning.training.heads_protocol import build_caches, heads_of

GOAL = 8.0
IMAGES = 16


class Step:
    """Autocast, backward, clipping, AdamW on one model."""

    def __init__(self, model: nn.Module, cfg: Any) -> None:
        self.model = model.train()
        self.optimizer = instantiate(cfg.optim.optimizer)(model.parameters())
        self.clip = cfg.optim.gradient_clip_val
        self.bf16 = str(cfg.trainer.precision).startswith("bf16")

    def __call__(self, batch: list[dict[str, Any]]) -> None:
        """Trains on one batch."""
        device = next(self.model.parameters()).device.type
        with EventStorage(0), torch.autocast(device, torch.bfloat16, enabled=self.bf16):
            losses = self.model(batch)
        self.optimizer.zero_grad()
        sum(losses.values()).backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), self.clip)
        self.optimizer.step()
        if torch.cuda.is_available():
            torch.cuda.synchronize()


def run(turns: int = 12) -> list[Measurement]:
    """Times both steps in turn and returns the median of the ratios."""
    quiet()
    torch.manual_seed(0)
    with jpeg_dataset(IMAGES) as (root, what), tempfile.TemporaryDirectory() as folder:
        overrides = ["experiment=sep", "data=coco", f"data.root={root}", "data.max_val_images=1"]
        cfg = compose_config("ablation", [*overrides, "scale.num_workers=0"])
        datamodule = build_datamodule(cfg)
        fill_in_data(cfg, datamodule.info())
        for stage in ("train", "val", "test"):
            coco = datamodule.coco(stage)
            coco["images"] = coco["images"][:IMAGES]
            kept = {image["id"] for image in coco["images"]}
            coco["annotations"] = [a for a in coco["annotations"] if a["image_id"] in kept]
        whole, frozen = (
            instantiate(cfg.model).to(memory_format=torch.channels_last) for _ in range(2)
        )
        with contextlib.redirect_stderr(io.StringIO()):
            cache = build_caches(cfg, frozen, datamodule, Path(folder))["train"]
        size = cfg.scale.batch_size
        batches = list(datamodule.train_dataloader())
        views = len(cache.layout.views)
        end_to_end, heads = Step(whole, cfg), Step(heads_of(frozen), cfg)
        seconds: dict[str, list[float]] = {"heads": [], "end_to_end": []}
        for turn in range(turns + 2):
            began = time.perf_counter()
            records = [(turn * size + i) % len(cache) for i in range(size)]
            heads([cache.read(record) for record in records])
            middle = time.perf_counter()
            end_to_end(batches[turn % len(batches)])
            if turn >= 2:  # the first ones warm up
                seconds["heads"].append(middle - began)
                seconds["end_to_end"].append(time.perf_counter() - middle)
    ratio = np.array(seconds["end_to_end"]) / np.array(seconds["heads"])
    return [
        Measurement(
            name="training step end to end / step of the heads protocol",
            value=float(np.median(ratio)),
            goal=f">= {GOAL:g}",
            unit="x",
            how=f"sep at quick scale, {size} images a step, {what}, median of {turns} turns",
            details={
                **{f"{name}_seconds": float(np.median(s)) for name, s in seconds.items()},
                "threads": torch.get_num_threads(),
                "cache_megabytes_an_image": cache.nbytes / len(cache.layout.images) / 1e6,
                "views": views,
            },
        )
    ]


if __name__ == "__main__":
    print(run()[0])
