from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from deepacc_d2.cell import Cell
from deepacc_d2.errors import ConfigError
from deepacc_d2.prediction.folder import OutputFolder
from deepacc_d2.prediction.inputs import Input
from deepacc_lightning.jobs import predict_loop
from deepacc_lightning.jobs.lanes import MOST, Lanes
from deepacc_lightning.jobs.predict_loop import CellWriter, Loaded, Predicted

NO: Any = None  # the trainer and module, which the writer does not look at
NOTHING: dict[str, Any] = {"overlay": False, "karyogram": ()}


@pytest.fixture
def four_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


def predicted(name: str, *, error: str = "") -> Predicted:
    item = Input(Path(f"{name}.png"), name, None)
    if error:
        return Predicted(Loaded(item, error=error), None)
    gray = np.full((60, 80), 220, np.uint8)
    cell = Cell(
        name=name,
        path=str(item.path),
        width=80,
        height=60,
        chromosomes=[],
        karyotype="",
        karyotype_by_box="",
        confidence=0.0,
    )
    return Predicted(Loaded(item, gray), cell)


def folder(root: Path) -> OutputFolder:
    for name in ("cells", "overlays", "karyograms"):
        (root / name).mkdir()
    return OutputFolder(root)


def test_lanes_share_the_threads(four_threads: None) -> None:
    with Lanes() as lanes:
        assert (lanes.count, lanes.threads) == (4, 1)
        assert lanes.submit(torch.get_num_threads).result() == 1
    assert torch.get_num_threads() == 4
    with Lanes(2) as lanes:
        assert lanes.threads == 2
        assert lanes.submit(torch.get_num_threads).result() == 2
    torch.set_num_threads(4 * MOST)
    with Lanes() as lanes:
        assert (lanes.count, lanes.threads) == (MOST, 4)


def test_lanes_run_at_the_same_time(four_threads: None) -> None:
    meeting = threading.Barrier(3, timeout=60)
    with Lanes(3) as lanes:
        futures = [lanes.submit(meeting.wait) for _ in range(3)]
        assert sorted(f.result() for f in futures) == [0, 1, 2]


def test_cells_are_written_in_order_and_few_are_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[str] = []
    monkeypatch.setattr(
        predict_loop, "draw", lambda folder, gray, cell, options: drawn.append(cell.name) or ""
    )
    gates = [threading.Event() for _ in range(5)]

    def wait(number: int) -> Predicted:
        assert gates[number].wait(60)
        return predicted(f"cell{number}", error="it is empty" if number == 3 else "")

    lanes = Lanes(5)
    writer = CellWriter(OutputFolder(tmp_path), NOTHING, workers=0, ahead=2)
    with writer, lanes:
        for number in range(2):
            writer.on_predict_batch_end(NO, NO, lanes.submit(wait, number), NO, number)
        gates[1].set()
        assert drawn == []  # the second is ready, but waits for the first
        threading.Timer(0.2, gates[0].set).start()
        # A third image is one too many, so that the first is waited for.
        writer.on_predict_batch_end(NO, NO, lanes.submit(wait, 2), NO, 2)
        assert drawn[0] == "cell0"
        for gate in gates:
            gate.set()
        for number in (3, 4):
            writer.on_predict_batch_end(NO, NO, lanes.submit(wait, number), NO, number)
        writer.on_predict_epoch_end(NO, NO)
    assert drawn == ["cell0", "cell1", "cell2", "cell4"]
    assert writer.errors == [("cell3.png", "it is empty")]


def test_an_error_in_a_lane_ends_the_job(tmp_path: Path) -> None:
    def fail() -> Predicted:
        raise RuntimeError("a bug")

    with (
        CellWriter(OutputFolder(tmp_path), NOTHING, workers=0) as writer,
        Lanes(1) as lanes,
    ):
        writer._coming.append(lanes.submit(fail))
        with pytest.raises(RuntimeError, match="a bug"):
            writer.on_predict_epoch_end(NO, NO)


@pytest.mark.slow
def test_a_killed_drawing_process_loses_no_finished_cell(tmp_path: Path) -> None:
    out = folder(tmp_path)
    with CellWriter(out, NOTHING, workers=1) as writer, Lanes(1) as lanes:
        writer.on_predict_batch_end(NO, NO, lanes.submit(predicted, "first"), NO, 0)
        writer.on_predict_epoch_end(NO, NO)
    assert out.names() == ["first"]
    with pytest.raises(ConfigError, match=r"a drawing process was killed.*same command again"):
        _draw_until_killed(out)
    assert "first" in out.names()
    leftovers = [p for p in tmp_path.rglob("*") if p.name.startswith(".")]
    assert leftovers == []


def _draw_until_killed(out: OutputFolder) -> None:
    writer = CellWriter(out, NOTHING, workers=1)
    with writer, Lanes(1) as lanes:
        assert writer._pool is not None
        os.kill(writer._pool.submit(os.getpid).result(), signal.SIGKILL)
        while True:  # until the pool has noticed
            writer.on_predict_batch_end(NO, NO, lanes.submit(predicted, "second"), NO, 1)
            time.sleep(0.05)
