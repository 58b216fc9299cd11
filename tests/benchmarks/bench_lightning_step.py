"""A training step under Lightning against the same step in a bare loop.

Both train their own copy of one model (``conf/train.yaml`` at quick scale, with its default
callbacks and the CSV logger) on the same batches, which are in memory. The bare step runs after
each step of Lightning, from within the loader that Lightning reads: with the same random numbers,
so that both do the same work (the weights are compared after the first). A ratio is taken over
each ten steps, a whole period of logging. The ratio of CPU times is kept next to it: other load
disturbs it less.

Run as a script: ``python tests/benchmarks/bench_lightning_step.py``.
"""

from __future__ import annotations

import contextlib
import copy
import io
import itertools
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from detectron2.solver.build import get_default_optimizer_params
from detectron2.utils.events import EventStorage
from hydra.utils import instantiate
from measurement import Measurement, jpeg_dataset
from omegaconf import DictConfig
from torch import nn

from deepacc_d2.data.dataset import DatasetInfo, read_info
from deepacc_d2.modeling import image_seeds
from deepacc_lightning.core.config import compose_config, instantiate_all
from deepacc_lightning.train import build_datamodule, build_model, build_module, fill_in_data, quiet
from deepacc_lightning.training.schedule import make_schedule

GOAL = 1.03
GROUP = 10
WARM_UP = 5

Batch = list[dict[str, Any]]


def _synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def _clocks() -> tuple[float, float]:
    return time.perf_counter(), time.process_time()


def _random_state() -> tuple[torch.Tensor, list[torch.Tensor]]:
    return torch.get_rng_state(), torch.cuda.get_rng_state_all()


def _set_random_state(state: tuple[torch.Tensor, list[torch.Tensor]]) -> None:
    torch.set_rng_state(state[0])
    if state[1]:
        torch.cuda.set_rng_state_all(state[1])


class BareLoop:
    """The step that one writes by hand: autocast, backward, clipping, optimizer, schedule."""

    def __init__(self, model: nn.Module, cfg: DictConfig, total_steps: int) -> None:
        self.model = model.train()
        groups = get_default_optimizer_params(model, weight_decay_norm=cfg.optim.weight_decay_norm)
        self.optimizer = instantiate(cfg.optim.optimizer)(groups)
        self.schedule = make_schedule(
            self.optimizer,
            instantiate(cfg.optim.course),
            total_steps=total_steps,
            warmup_steps=cfg.optim.warmup_steps,
            warmup_start=cfg.optim.warmup_start,
        )
        self.clip = cfg.optim.gradient_clip_val
        self.bf16 = str(cfg.scale.precision).startswith("bf16")
        self.count = 0

    def step(self, batch: Batch) -> None:
        device = next(self.model.parameters()).device.type
        with (
            EventStorage(self.count),
            image_seeds(batch),
            torch.autocast(device, dtype=torch.bfloat16, enabled=self.bf16),
        ):
            losses = self.model(batch)
        self.optimizer.zero_grad()
        sum(losses.values()).backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), self.clip)
        self.optimizer.step()
        self.schedule.step()
        self.count += 1


class AlternatingLoader:
    """Hands batches to Lightning and, each time it comes back for more, runs the bare step."""

    def __init__(self, batches: list[Batch], steps: int, bare: BareLoop, model: nn.Module) -> None:
        self.batches = batches
        self.steps = steps
        self.bare = bare
        self.model = model
        self.seconds: dict[str, list[float]] = {"lightning": [], "bare": []}
        self.cpu_seconds: dict[str, list[float]] = {"lightning": [], "bare": []}
        self.difference = float("nan")

    def __len__(self) -> int:
        return self.steps + 1

    def __iter__(self) -> Iterator[Batch]:
        for number in range(self.steps):
            batch = self.batches[number % len(self.batches)]
            state = _random_state()
            began = _clocks()
            yield batch
            self._note("lightning", began)
            _set_random_state(state)
            began = _clocks()
            self.bare.step(batch)
            self._note("bare", began)
            if number == 0:
                self._compare()
        # One more, so that Lightning comes back after the last step that counts.
        yield self.batches[0]

    def _compare(self) -> None:
        """Only after one step: bf16 makes a rounding error of the first a different second."""
        pairs = list(zip(self.model.parameters(), self.bare.model.parameters(), strict=True))
        self.difference = max(float((a - b).detach().abs().max()) for a, b in pairs)
        assert self.difference < 1e-6, f"the two steps differ by {self.difference}"

    def _note(self, which: str, began: tuple[float, float]) -> None:
        _synchronize()
        wall, cpu = _clocks()
        self.seconds[which].append(wall - began[0])
        self.cpu_seconds[which].append(cpu - began[1])


class InMemory(pl.LightningDataModule):
    """What our module asks of a data module for training."""

    def __init__(self, loader: AlternatingLoader, batch_size: int, info: DatasetInfo) -> None:
        super().__init__()
        self.loader = loader
        self.batch_size = batch_size
        self._info = info

    def info(self) -> DatasetInfo:
        return self._info

    def train_dataloader(self) -> AlternatingLoader:
        return self.loader


def _compose(root: Path, out: Path) -> DictConfig:
    overrides = [
        "scale=quick",
        "experiment=baseline",
        "logger=csv",
        "data=coco",
        f"data.root={root}",
        f"out={out}",
        "trainer.max_epochs=1",
        "scale.num_workers=0",
    ]
    return compose_config("train", overrides)


def _prepare(
    cfg: DictConfig, steps: int
) -> tuple[pl.Trainer, pl.LightningModule, AlternatingLoader]:
    pl.seed_everything(0, verbose=False)
    datamodule = build_datamodule(cfg)
    fill_in_data(cfg, datamodule.info())
    batches = list(itertools.islice(datamodule.train_dataloader(), 4))
    module = build_module(cfg, build_model(cfg), {})
    trainer = instantiate(
        cfg.trainer, callbacks=instantiate_all(cfg.callbacks), logger=instantiate_all(cfg.logger)
    )
    twin = copy.deepcopy(module.model).to(trainer.strategy.root_device)
    bare = BareLoop(twin, cfg, total_steps=steps + 1)
    return trainer, module, AlternatingLoader(batches, steps, bare, module.model)


def run(groups: int = 4) -> list[Measurement]:
    """Trains in both ways for ``groups`` times ten steps after a warm-up."""
    quiet()
    steps = WARM_UP + groups * GROUP
    with jpeg_dataset(16) as (root, source), tempfile.TemporaryDirectory() as out:
        cfg = _compose(root, Path(out))
        trainer, module, loader = _prepare(cfg, steps)
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            data = InMemory(loader, cfg.scale.batch_size, read_info(root))
            trainer.fit(module, datamodule=data)
    lightning, bare = (
        np.array(loader.seconds[which][WARM_UP:]).reshape(groups, GROUP)
        for which in ("lightning", "bare")
    )
    cpu = {which: np.sum(x[WARM_UP:]) for which, x in loader.cpu_seconds.items()}
    return [
        Measurement(
            name="training step under Lightning / bare loop",
            value=float(np.median(lightning.sum(axis=1) / bare.sum(axis=1))),
            goal=f"<= {GOAL}",
            unit="x",
            how=f"same work step by step in turn, median over {groups} groups of {GROUP} steps",
            details={
                "lightning_seconds": float(lightning.mean()),
                "bare_seconds": float(bare.mean()),
                "median_of_single_steps": float(np.median(lightning / bare)),
                "ratio_of_cpu_time": float(cpu["lightning"] / cpu["bare"]),
                "ratios": [float(r) for r in lightning.sum(axis=1) / bare.sum(axis=1)],
                "difference_of_weights_after_a_step": loader.difference,
                "device": str(module.device),
                "batch_size": int(cfg.scale.batch_size),
                "images": source,
            },
        )
    ]


if __name__ == "__main__":
    print(run()[0])
