"""Training at paper scale on a GPU: images a second, share of the card's peak, wait for data.

The step (autocast, forward, backward, clipping, SGD) runs on batches of 800 x 1067 in memory; it
is timed with the GPU's work included, so absolute times count. FLOPs are those of convolutions and
matrix products, forward and backward, as torch's counter finds them. How long the GPU waits for
data is timed by the GPU itself, in a training by the default command whose loader does its work:
from the end of one step's kernels to the moment when the next batch is there.

Without a GPU nothing is measured. Run as a script: ``python tests/benchmarks/bench_gpu.py``.
"""

from __future__ import annotations

import contextlib
import gc
import io
import itertools
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from bench_heads import Step
from detectron2.utils.events import EventStorage
from gpu_peaks import peak_flops
from measurement import Measurement, jpeg_dataset
from omegaconf import DictConfig
from pytorch_lightning.callbacks import Callback
from torch.utils.flop_counter import FlopCounterMode
from turns import NEVER

from deepacc_lightning.core.config import auto_precision, compose_config, instantiate_all
from deepacc_lightning.train import build_datamodule, build_model, build_module, fill_in_data, quiet
from deepacc_lightning.training.trainer import build_trainer

PAPER = ("scale=paper", "init_weights=null")
IMAGES = 64
WARM_UP = 5
Batch = list[dict[str, Any]]


class Bench:
    """What is trained, where and on which batches.

    Args:
        root: of the data set.
        device: to train on.
        overrides: of ``conf/train.yaml``.
        shape: height and width of the images of the timed steps.
    """

    def __init__(
        self, root: Path, device: str, overrides: Sequence[str], shape: tuple[int, int]
    ) -> None:
        self.device = torch.device(device)
        self.shared = ["experiment=baseline", "logger=csv", "data=coco", f"data.root={root}"]
        self.shared += [f"trainer.accelerator={'gpu' if device == 'cuda' else device}", *overrides]
        height, width = shape
        self.resize = (
            "scale.train_augmentations="
            f"[{{_target_: detectron2.data.transforms.Resize, shape: [{height},{width}]}}]"
        )

    def compose(self, *overrides: str) -> DictConfig:
        """Returns the config of a training, the data's gray levels filled in."""
        cfg = compose_config("train", [*self.shared, *overrides])
        fill_in_data(cfg, build_datamodule(cfg).info())
        return cfg

    def batches(self, size: int) -> list[Batch]:
        """Returns four batches of images of one size."""
        cfg = self.compose(self.resize, f"scale.batch_size={size}", "scale.num_workers=0")
        return list(itertools.islice(build_datamodule(cfg).train_dataloader(), 4))

    def step(self, precision: str, *, channels_last: bool = True, backend: str = "") -> Step:
        """Returns a training step of a new model.

        Args:
            precision: ``bf16-mixed`` or ``32-true``.
            channels_last: how weights and so feature maps are in memory.
            backend: of ``torch.compile`` for the backbone; empty for none.
        """
        pl.seed_everything(0, verbose=False)
        cfg = self.compose(f"trainer.precision={precision}")
        model = build_model(cfg).to(self.device)
        if not channels_last:
            model = model.to(memory_format=torch.contiguous_format)
        if backend:
            model.backbone.compile(backend=backend, dynamic=False)
        return Step(model, cfg)


def _images_per_second(step: Step, batches: list[Batch], steps: int) -> float:
    """Of the median step; each one ends when the device is done."""
    seconds = []
    for number, batch in zip(range(WARM_UP + steps), itertools.cycle(batches), strict=False):
        began = time.perf_counter()
        step(batch)
        if number >= WARM_UP:
            seconds.append(time.perf_counter() - began)
    return len(batches[0]) / float(np.median(seconds))


def _flops_per_image(step: Step, batch: Batch) -> float:
    device = next(step.model.parameters()).device.type
    with FlopCounterMode(display=False) as counter, EventStorage(0):
        with torch.autocast(device, torch.bfloat16, enabled=step.bf16):
            losses = step.model(batch)
        sum(losses.values()).backward()
    return counter.get_total_flops() / len(batch)


@contextlib.contextmanager
def _memory_given_back() -> Iterator[None]:
    """Frees what was trained within, and lets a card be too small."""
    try:
        yield
    except torch.cuda.OutOfMemoryError:
        print("(a batch that the card has no memory for is left out)", end=" ", flush=True)
    finally:
        gc.collect()
        torch.cuda.empty_cache()


def _by_batch_size(
    bench: Bench, precisions: Sequence[str], sizes: Sequence[int], steps: int, card: str
) -> list[Measurement]:
    results = []
    for precision in precisions:
        step = bench.step(precision)
        for size in sizes:
            with _memory_given_back():
                batches = bench.batches(size)
                flops = _flops_per_image(step, batches[0])
                rate = _images_per_second(step, batches, steps)
                achieved, peak = flops * rate, peak_flops(card, precision)
                share = f", {achieved / peak:.1%} of the card's peak" if peak else ""
                results.append(
                    Measurement(
                        name=f"training at paper scale, {precision}, {size} images a step",
                        value=rate,
                        goal="-",
                        unit="images/s",
                        how=f"{achieved / 1e12:.3g} TFLOP/s{share}; median of {steps} steps",
                        details={
                            "flops_per_image": flops,
                            "flops_per_second": achieved,
                            "share_of_peak": achieved / peak if peak else None,
                            "card": card,
                        },
                    )
                )
        del step
    return results


def _by_layout(
    bench: Bench, precisions: Sequence[str], size: int, steps: int, backend: str
) -> list[Measurement]:
    """Channels-last and compiled or not, each over neither."""
    results = []
    batches = bench.batches(size)
    for precision in precisions:
        rates: dict[tuple[bool, str], float] = {}
        for channels_last, compiler in itertools.product((False, True), ("", backend)):
            with _memory_given_back():
                step = bench.step(precision, channels_last=channels_last, backend=compiler)
                rates[channels_last, compiler] = _images_per_second(step, batches, steps)
                del step
        plain = rates.pop((False, ""), None)
        for (channels_last, compiler), rate in rates.items():
            parts = ["channels last"] * channels_last + ["compiled backbone"] * bool(compiler)
            if plain:
                results.append(
                    Measurement(
                        name=f"{' and '.join(parts)} / neither, {precision}",
                        value=rate / plain,
                        goal="-",
                        unit="x",
                        how=f"images/s, {size} images a step: {rate:.3g} against {plain:.3g}",
                    )
                )
    return results


class DataWait(Callback):
    """Sums up how long a device had nothing to do between two steps.

    On a GPU by its own clock: an event at the end of a step comes after all of its kernels, the
    next when the new batch is there, or right after the first where it came in time.
    """

    def __init__(self, warm_up: int) -> None:
        self.warm_up = warm_up
        self.marks: list[Any] = []

    def _mark(self, device: torch.device) -> None:
        if device.type != "cuda":
            self.marks.append(time.perf_counter())
            return
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        self.marks.append(event)

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """The batch is there."""
        self._mark(pl_module.device)

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """All work of the step was given to the device."""
        self._mark(pl_module.device)

    def fraction(self) -> float:
        """Returns the share of the time after the warm-up that was waited."""
        marks = self.marks[2 * self.warm_up - 1 :]  # begins with the end of a step
        spans = [_span(a, b) for a, b in itertools.pairwise(marks)]
        return sum(spans[::2]) / sum(spans)


def _span(begin: Any, end: Any) -> float:
    if isinstance(begin, float):
        return end - begin
    end.synchronize()
    return begin.elapsed_time(end) / 1e3


def _data_wait(bench: Bench, size: int, steps: int, workers: int | None) -> Measurement:
    given = [] if workers is None else [f"scale.num_workers={workers}"]
    with tempfile.TemporaryDirectory() as out:
        cfg = bench.compose(
            *(f"out={out}", f"scale.batch_size={size}", *given),
            *("trainer.max_epochs=-1", f"trainer.max_steps={WARM_UP + steps}"),
            # No validation and no checkpoint within the steps that are timed.
            f"trainer.check_val_every_n_epoch={NEVER}",
            *("callbacks.last_checkpoint=null", "callbacks.timed_checkpoint=null"),
            "callbacks.progress=null",
            "+trainer.enable_progress_bar=false",
        )
        trainer = build_trainer(cfg, instantiate_all(cfg.logger))
        wait = DataWait(WARM_UP)
        trainer.callbacks.append(wait)
        module = build_module(cfg, build_model(cfg), {})
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            trainer.fit(module, datamodule=build_datamodule(cfg))
    return Measurement(
        name=f"share of time that the device waits for data, {size} images a step",
        value=wait.fraction(),
        goal="-",
        unit="x",
        how=f"{cfg.scale.num_workers} loader processes, {cfg.trainer.precision}, {steps} steps",
    )


def run(
    *,
    device: str = "cuda",
    overrides: Sequence[str] = PAPER,
    shape: tuple[int, int] = (800, 1067),
    sizes: Sequence[int] = (1, 2, 4, 8),
    steps: int = 20,
    backend: str = "inductor",
    workers: int | None = None,
) -> list[Measurement]:
    """Measures on a GPU; elsewhere only to try this code, by ``device="cpu"`` and a tiny model.

    Args:
        device: ``cuda`` or ``cpu``.
        overrides: scale, and whatever makes it smaller.
        shape: height and width of images of the timed steps.
        sizes: images a step.
        steps: that are timed, after a warm-up.
        backend: of ``torch.compile``.
        workers: loader processes where the wait for data is timed; those of the scale by default.
    """
    quiet()
    if device == "cuda" and not torch.cuda.is_available():
        print("no GPU here: skipped", end=" ", flush=True)
        return []
    card = torch.cuda.get_device_name() if device == "cuda" else device
    bf16 = ["bf16-mixed"] if auto_precision() == "bf16-mixed" else []
    precisions = [*bf16, "32-true"]
    middle = sizes[len(sizes) // 2]
    with jpeg_dataset(IMAGES) as (root, _):
        bench = Bench(root, device, overrides, shape)
        results = _by_batch_size(bench, precisions, sizes, steps, card)
        results += _by_layout(bench, precisions, middle, steps, backend)
        for size in sorted({sizes[0], sizes[-1]}):
            with _memory_given_back():
                results.append(_data_wait(bench, size, 5 * steps, workers))
    return results


if __name__ == "__main__":
    print(*run(), sep="\n")
