"""Every notebook runs from top to bottom on a tiny data set, and shows what it says it shows."""

from __future__ import annotations

import ast
import io
import json
import runpy
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import pandas as pd
import pytest
import torch
from matplotlib.figure import Figure

from deepacc_d2.data.synthetic import SyntheticConfig, ensure_dataset
from deepacc_d2.data.validate import Check
from deepacc_d2.evaluation.explain.cosines import read_chromosomes
from deepacc_lightning import train
from deepacc_lightning.core.config import compose_config

TESTS = Path(__file__).resolve().parents[1]
NOTEBOOKS = {path.stem: path for path in sorted((TESTS.parent / "notebooks").glob("*.ipynb"))}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = SyntheticConfig(size=(224, 208), cells_per_case=1, num_batches=2, seed=3)
    root = tmp_path_factory.mktemp("notebooks") / "data"
    ensure_dataset(root, config, {"train": 4, "val": 2, "test": 2}, num_workers=1, progress=False)
    return root


@pytest.fixture(scope="module")
def tiny_overrides() -> list[str]:
    return list(runpy.run_path(str(TESTS / "lightning" / "conftest.py"))["TINY"])


@pytest.fixture(scope="module")
def run_dir(tiny: Path, tiny_overrides: list[str]) -> Path:
    out = tiny.parent / "run"
    # A model of one epoch is sure of nothing: thresholds that it reaches all the same.
    overrides = ["data=coco", "experiment=siamese_gia", "s=4", "delta=0.05"]
    overrides += [f"data.root={tiny}", f"out={out}"]
    overrides += ["model.roi_heads.box_predictor.test_score_thresh=0.0"]
    train.run(compose_config("train", [*tiny_overrides, *overrides]))
    return out


@pytest.fixture(autouse=True)
def same_threads() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def run_cell(source: str, name: str, scope: dict[str, Any]) -> Any:
    """Runs a cell as Jupyter does: what its last line evaluates to is its value."""
    body = ast.parse(source)
    last = body.body.pop() if isinstance(body.body[-1], ast.Expr) else None
    exec(compile(body, name, "exec"), scope)
    return eval(compile(ast.Expression(last.value), name, "eval"), scope) if last else None


def run_notebook(path: Path) -> tuple[dict[str, Any], int]:
    """Runs all cells and draws all figures; returns the variables and the number of figures."""
    mpl.use("Agg")
    scope: dict[str, Any] = {}
    drawn = 0
    for number, cell in enumerate(json.loads(path.read_text(encoding="utf-8"))["cells"]):
        if cell["cell_type"] != "code":
            continue
        value = run_cell("".join(cell["source"]), f"{path.stem}[{number}]", scope)
        figures = [plt.figure(n) for n in plt.get_fignums()]
        if isinstance(value, Figure):
            figures.append(value)
        elif value is not None:
            assert repr(value)
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)  # such as a layout without room
            for figure in figures:
                figure.savefig(io.BytesIO(), format="png")
        assert all(
            axes.get_xlabel() and axes.get_ylabel()
            for figure in figures
            for axes in figure.axes
            if axes.lines and not axes.images
        ), f"cell {number} has a plot without labels"
        drawn += len(figures)
        plt.close("all")
    return scope, drawn


@pytest.mark.parametrize("path", NOTEBOOKS.values(), ids=list(NOTEBOOKS))
def test_is_committed_without_outputs(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    cells = [cell for cell in json.loads(text)["cells"] if cell["cell_type"] == "code"]
    # An output would carry pictures of somebody's data, or paths of somebody's machine.
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in cells)
    assert str(TESTS.parent) not in text
    assert str(Path.home()) not in text


def test_data(tiny: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.setenv("DATA_DIR", str(tiny))
    scope, drawn = run_notebook(NOTEBOOKS["1_data"])
    assert drawn == 7
    printed = capsys.readouterr().out
    assert "cases in more than one split: 0" in printed
    assert "the same in another order:      True" in printed
    assert "the same from a loader process: True" in printed
    assert "the same in the next epoch:     False" in printed
    assert "no defects" in printed  # of the data set itself
    damage = {Check.BAD_IMAGE, Check.CASE_IN_TWO_SPLITS, Check.FINGERPRINT}
    assert {finding.check for finding in scope["findings"]} == damage
    assert scope["counts"].loc["1", "train"] == 2


def test_training(
    tiny: Path,
    tiny_overrides: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    runs = tmp_path / "runs"
    smaller = [o for o in tiny_overrides if o.startswith("scale.") and "epoch" not in o]
    monkeypatch.setenv("DATA_DIR", str(tiny))
    monkeypatch.setenv("RUNS_DIR", str(runs))
    monkeypatch.setenv("TRAIN_ARGS", " ".join(smaller))
    scope, drawn = run_notebook(NOTEBOOKS["2_training"])
    assert drawn == 4

    built = scope["built"]
    assert (built.alpha, built.inference_branch.delta) == (0.2, 0.3)
    assert [len(job.values) for job in scope["plan"].jobs] == [2] * 4

    printed = capsys.readouterr().out
    assert "status: interrupted" in printed
    assert 0 < scope["done"] < scope["facts_of_whole"]["steps"]
    assert (scope["loss_difference"], scope["weight_difference"]) == (0, 0)
    assert len(scope["whole"]) == scope["facts_of_whole"]["steps"]
    for name in ("sep", "siamese_gia", "sep-resumed"):
        assert json.loads((runs / name / "run.json").read_text())["status"] == "finished"

    assert scope["comparison"].table["preset"].tolist() == ["sep", "siamese_gia"]
    assert (runs / "compare" / "compare.html").is_file()
    # The evaluated checkpoint is that of the best epoch, on the same images.
    curve = pd.read_csv(runs / "siamese_gia" / "csv" / "metrics.csv")["val/map50"]
    assert scope["metrics"]["map50"] == pytest.approx(curve.max(), abs=1e-3)

    assert f"-m deepacc_lightning.train resume={runs / 'sep-resumed'}" in printed
    assert scope["config"]["alpha"] == 0.1
    assert "train/loss_gia" in scope["summary"]


def test_errors(tiny: Path, run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATA_DIR", str(tiny))
    monkeypatch.setenv("RUN_DIR", str(run_dir))
    scope, drawn = run_notebook(NOTEBOOKS["3_errors"])
    assert drawn >= 3
    summary = json.loads((run_dir / "test" / "metrics.json").read_text())
    assert scope["metrics"].map50 == pytest.approx(summary["map50"], abs=1e-3)


def test_method(tiny: Path, run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATA_DIR", str(tiny))
    monkeypatch.setenv("RUN_DIR", str(run_dir))
    other = run_dir.parent / "copy"
    shutil.copytree(run_dir, other, dirs_exist_ok=True)
    monkeypatch.setenv("COMPARE_DIR", str(other))
    monkeypatch.setenv("MIN_IOU", "0.05")  # proposals of a model of one epoch show little
    scope, drawn = run_notebook(NOTEBOOKS["4_method"])
    assert drawn == 2
    found, table = scope["found"], scope["table"]
    coco = json.loads((tiny / "annotations" / "test.json").read_text())
    assert len(table) + found.missing == len(coco["annotations"])
    # Every chromosome gains or loses in one staining class and one group.
    for by in (scope["by_distance"], scope["by_group"], scope["by_case"]):
        assert by["chromosomes"].sum() == len(table)
        total = (by["chromosomes"] * by["gain"]).sum()
        assert total == pytest.approx(table["gain"].sum(), abs=1e-6)
    assert scope["summary"].loc["named right, %", "local"] == pytest.approx(
        scope["summary"].loc["named right, %", "learned"] + table["gain"].mean()
    )
    assert set(scope["differences"].to_numpy().ravel()) == {"+0 [+0, +0]"}

    tried = scope["tried"]
    assert len(tried) == 15
    branch = scope["model"].roi_heads.box_predictor.inference_branch
    assert (branch.center, branch.center_share, branch.delta) == ("single", 1.0, 0.05)
    for row in tried.iloc[[0, 6, 14]].itertuples():
        branch.center, branch.center_share, branch.delta = row.center, row.center_share, row.delta
        batches = ([scope["mapper"](item)] for item in scope["chosen"])
        again = read_chromosomes(scope["model"], batches, coco, iou_threshold=0.05)
        assert row.chromosomes == len(again.classes) == len(table)
        # Background counts as a wrong name there, not here.
        assert row.sure <= row.right <= 100 * (again.inference == again.classes).mean() + 1e-9
