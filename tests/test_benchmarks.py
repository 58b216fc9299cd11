"""The benchmarks' own code where `make bench` on a machine without a GPU would not run it."""

from __future__ import annotations

import importlib
import json
import math
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from deepacc_d2.errors import DataError

TINY = (
    "scale=quick",
    "scale.image_size=96",
    "scale.backbone.stem_channels=8",
    "scale.backbone.res2_channels=8",
    "scale.fpn.out_channels=32",
    "scale.roi.fc_dims=[16,16]",
    "scale.roi.batch_size_per_image=32",
    "scale.rpn.pre_nms_topk=[100,100]",
    "scale.rpn.post_nms_topk=[40,40]",
)


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch):
    """Imports a module of tests/benchmarks as its runner does."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent / "benchmarks"))

    def load(name: str) -> ModuleType:
        return importlib.import_module(name)

    return load


def test_the_gpu_benchmark_runs_wherever_torch_does(
    benchmark, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = benchmark("bench_gpu")
    monkeypatch.delenv("DEEPACC_DATA", raising=False)
    monkeypatch.setattr(bench, "IMAGES", 2)
    monkeypatch.setattr(bench, "WARM_UP", 1)
    monkeypatch.setattr(bench, "auto_precision", lambda: "bf16-mixed")
    results = bench.run(
        device="cpu",
        overrides=TINY,
        shape=(96, 96),
        sizes=(1, 2),
        steps=1,
        backend="eager",
        workers=0,
    )
    found = {r.name: r for r in results}
    rates = [r for r in results if r.unit == "images/s"]
    assert len(rates) == 4  # two precisions, two sizes
    for rate in rates:
        assert rate.value > 0
        # Flops an image do not depend on how many go at a time, nor on the precision.
        assert rate.details["flops_per_image"] == rates[0].details["flops_per_image"] > 1e6
        assert rate.details["flops_per_second"] == pytest.approx(
            rate.value * rate.details["flops_per_image"]
        )
        assert rate.details["share_of_peak"] is None
    assert sum(" / neither" in name for name in found) == 6
    waits = [r.value for name, r in found.items() if name.startswith("share of time")]
    assert len(waits) == 2
    assert all(0 < wait < 1 for wait in waits)


def test_flops_are_counted_forward_and_backward(benchmark) -> None:
    bench = benchmark("bench_gpu")

    class Losses(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Conv2d(3, 5, 3, padding=1, bias=False)

        def forward(self, batch: list[Tensor]) -> dict[str, Tensor]:
            return {"loss": self.layer(torch.stack(batch)).sum()}

    class Step:
        model = Losses()
        bf16 = False

    # A multiply and an add for each weight, channel and pixel; the input wants no gradient.
    forward = 2 * 5 * 3 * 9 * 8 * 8
    assert bench._flops_per_image(Step(), [torch.ones(3, 8, 8)] * 4) == 2 * forward


def test_the_wait_for_data_is_what_passes_between_two_steps(benchmark) -> None:
    wait = benchmark("bench_gpu").DataWait(warm_up=1)
    # Steps begin at 0, 10, 13, 17 and end at 9, 12, 16, 20; the first does not count.
    wait.marks = [0.0, 9.0, 10.0, 12.0, 13.0, 16.0, 17.0, 20.0]
    assert wait.fraction() == pytest.approx(3 / 11)


@pytest.mark.parametrize(
    ("card", "precision", "teraflops"),
    [
        ("NVIDIA A100-SXM4-80GB", "bf16-mixed", 312),
        ("NVIDIA A100 80GB PCIe", "32-true", 156),
        ("NVIDIA H100 80GB HBM3", "32-true", 494.7),
        ("NVIDIA H200", "bf16-mixed", 989.4),
        ("NVIDIA L4", "bf16-mixed", 121),
        ("NVIDIA L40S", "bf16-mixed", 362),
        ("NVIDIA A10G", "bf16-mixed", None),  # not the A10
        ("cpu", "32-true", None),
    ],
)
def test_peaks_are_of_the_card_and_precision(
    benchmark, card: str, precision: str, teraflops: float | None
) -> None:
    found = benchmark("gpu_peaks").peak_flops(card, precision)
    assert found == (teraflops and pytest.approx(teraflops * 1e12))


class _Line(pl.LightningModule):
    """Sleeps in each step, so that a block's length is known."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(1, 1)

    def training_step(self, batch: Tensor, number: int) -> Tensor:
        time.sleep(0.02)
        return self.layer(batch).sum()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.0)


def test_a_training_waits_for_its_turn_and_times_its_steps_alone(benchmark, tmp_path: Path) -> None:
    turns = benchmark("turns")
    trainer = pl.Trainer(
        accelerator="cpu",
        max_steps=5,  # one to warm up, two blocks of two
        callbacks=[turns.TakeTurns(str(tmp_path), warm_up=1, block=2)],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
    )
    loader = torch.utils.data.DataLoader(torch.ones(8, 1))
    training = threading.Thread(target=trainer.fit, args=(_Line(), loader), daemon=True)
    training.start()

    def blocks_after(seconds: float) -> list[dict[str, float]]:
        path, until = tmp_path / "blocks.json", time.monotonic() + seconds
        while time.monotonic() < until:
            time.sleep(0.01)
        return json.loads(path.read_text())

    until = time.monotonic() + 30
    while not (tmp_path / "blocks.json").is_file() and time.monotonic() < until:
        time.sleep(0.01)
    assert blocks_after(0.3) == []
    assert trainer.global_step == 1
    for count in (1, 2):
        (tmp_path / "go").write_text(str(count))
        while len(blocks_after(0.02)) < count and time.monotonic() < until:
            pass
        assert len(blocks_after(0.3)) == count
        assert trainer.global_step == 1 + 2 * count
    training.join(10)
    assert not training.is_alive()
    for block in blocks_after(0):
        # Not the 0.3 seconds of waiting before it.
        assert 0.04 <= block["seconds"] < 0.3
        assert block["cpu_seconds"] < 0.3


def test_the_cpu_time_of_processes_below_is_counted(benchmark) -> None:
    turns = benchmark("turns")
    if math.isnan(turns._children_cpu_seconds()):
        pytest.skip("no /proc here")
    spin = "import time\nwhile time.process_time() < 0.3: pass\nprint('done', flush=True)\ninput()"
    before = turns._children_cpu_seconds()
    child = subprocess.Popen(
        [sys.executable, "-c", spin], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == b"done\n"
        assert turns._children_cpu_seconds() - before >= 0.25
    finally:
        child.communicate(b"\n")


def test_a_training_that_ends_early_is_reported_with_its_last_lines(
    benchmark, tmp_path: Path
) -> None:
    turns = benchmark("turns")
    (tmp_path / "one").mkdir()
    with (tmp_path / "one" / "output.txt").open("wb") as output:
        child = subprocess.Popen([sys.executable, "-c", "exit('no such key')"], stderr=output)
    stage = turns.Stage(tmp_path, {"one": child})
    with pytest.raises(RuntimeError, match="training one ended early:\nno such key"):
        stage.turn("one")
    with pytest.raises(RuntimeError, match="training one failed:\nno such key"):
        stage.finish()


def test_the_checkpoint_benchmark_writes_reads_and_leaves_nothing(
    benchmark, tmp_path: Path
) -> None:
    results = benchmark("bench_checkpoint").run(
        turns=1, scales={"tiny": TINY}, folder=tmp_path / "runs"
    )
    assert [r.name.split(",")[0] for r in results] == [
        "checkpoint saved / torch.save",
        "checkpoint read and checked / torch.load",
    ]
    details = results[0].details
    assert details["megabytes"] > 0.5
    # One turn: the ratio is that of the two times.
    assert results[0].value == pytest.approx(
        details["save_seconds"] / details["save_plain_seconds"]
    )
    assert list((tmp_path / "runs").iterdir()) == []


def test_names_of_benchmarks_are_those_of_files(benchmark) -> None:
    names = benchmark("run").NAMES
    files = sorted((Path(__file__).parent / "benchmarks").glob("bench_*.py"))
    assert [f"bench_{name}.py" for name in names] == [path.name for path in files]
    for name in ("processes", "precision", "logging", "checkpoint", "gpu"):
        assert callable(benchmark(f"bench_{name}").run)


def test_margins_of_boxes_are_those_of_chromosomes_apart_from_others(benchmark) -> None:
    margins = benchmark("box_margin").box_margins
    image = np.full((300, 400), 240, np.uint8)
    image[40:80, 50:70] = 60  # 20 x 40, its box a quarter larger each way
    image[150:190, 50:90] = 60  # 40 x 40, in a tight box
    image[100:140, 200:220] = 60  # two that touch: left out
    image[120:130, 220:260] = 60
    boxes = np.array(
        [[47.5, 35, 72.5, 85], [50, 150, 90, 190], [200, 100, 220, 140], [220, 120, 260, 130]]
    )
    assert margins(image, boxes).tolist() == pytest.approx([1.25, 1.0])
    assert margins(np.full((300, 400), 240, np.uint8), boxes).tolist() == []


def test_a_simulated_cluster_takes_as_long_as_can_be_worked_out_by_hand(benchmark) -> None:
    cluster = benchmark("cluster")
    costs = cluster.Costs(start=10.0, images=np.array([2.0]), bytes=1.0, files=1.0)
    # Eight tasks of five images on four workers: two each, every one with its own start.
    array = cluster.simulate(costs, 40, 4, 5, losses=0.0, new=True)
    assert array.hours * 3600 == pytest.approx(2 * (10 + 5 * 2))
    assert (array.core_hours * 3600, array.busy) == (pytest.approx(160), pytest.approx(1))
    # The same by actors that start once.
    actors = cluster.simulate(costs, 40, 4, 5, losses=0.0, new=False)
    assert actors.hours * 3600 == pytest.approx(10 + 2 * 5 * 2)
    # The last batch is smaller, and three workers have nothing to do meanwhile.
    rest = cluster.simulate(costs, 41, 4, 5, losses=0.0, new=False)
    assert rest.hours * 3600 == pytest.approx(30 + 2)
    assert rest.busy == pytest.approx((3 * 30 + 32) / (4 * 32))
    # An hour of work is lost twelve times on average, each time for a start and an image.
    lost = cluster.simulate(costs, 500_000, 1, 1000, losses=12.0, new=False)
    hours = 10 / 3600 + 500_000 * 2 / 3600 * (1 + 12 * (10 + 2) / 3600)
    assert lost.hours == pytest.approx(hours, rel=0.002)


def test_ablations_are_drawn_next_to_each_other(benchmark, tmp_path: Path) -> None:
    trunks = benchmark("trunks")

    def row(mark: str | None, model: str, value: float | None) -> dict[str, Any]:
        difference = value and {"value": value, "low": value - 1, "high": value + 2}
        metric = {"mean": 20.0, "difference": difference}
        return {"row": mark, "model": model, "metrics": {"aer": metric, "map50": metric}}

    rows = {
        "sep": row("b", "sep", None),
        "sep+center=pair": row("d'", "sep + siamese, center=pair", -3.0),
        "deepacc": row(None, "sep + AAM, pair centers", 4.0),
    }
    for name, presets in (("one", rows), ("two", {k: rows[k] for k in ("sep", "deepacc")})):
        content = {"reference": "sep", "presets": presets}
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    reports = dict(trunks.read(f"{n}={tmp_path / n}.json") for n in ("one", "two"))
    figure = trunks.draw(reports)
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == [
        "(b) sep",
        "(d') siamese branch, pair centers",
        "deepacc: margin, pair centers, shrinkage",
    ]
    first, second = figure.axes[0].containers
    np.testing.assert_allclose(first[0].get_xydata()[:, 0], [-3, 4])
    np.testing.assert_allclose(second[0].get_xydata()[:, 0], [4])
    ends = [segment[:, 0].tolist() for segment in first[2][0].get_segments()]
    assert ends == [[-4.0, -1.0], [3.0, 6.0]]
    # Of one row, a little apart.
    assert 0 < second[0].get_xydata()[0, 1] - first[0].get_xydata()[1, 1] < 0.5
    with pytest.raises(DataError, match="give NAME=<ablation>/report/metrics"):
        trunks.read(f"one={tmp_path / 'none.json'}")
