"""The code cells of every notebook run, in order, on a tiny data set and a tiny run."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import pytest

from deepacc_d2.data.synthetic import SyntheticConfig, ensure_dataset
from deepacc_lightning import train
from deepacc_lightning.config import compose_config

TESTS = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((TESTS.parent / "notebooks").glob("*.ipynb"))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = SyntheticConfig(size=(224, 208), cells_per_case=1, num_batches=2, seed=3)
    root = tmp_path_factory.mktemp("notebooks") / "data"
    ensure_dataset(root, config, {"train": 3, "val": 2, "test": 2}, num_workers=1, progress=False)
    return root


@pytest.fixture(scope="module")
def run_dir(tiny: Path) -> Path:
    out = tiny.parent / "run"
    overrides = [*runpy.run_path(str(TESTS / "lightning" / "conftest.py"))["TINY"], "data=coco"]
    # A model of one epoch is sure of nothing: thresholds that it reaches all the same.
    overrides += ["experiment=siamese_gia", "s=4", "delta=0.05", f"data.root={tiny}", f"out={out}"]
    overrides += ["model.roi_heads.box_predictor.test_score_thresh=0.0"]
    train.run(compose_config("train", overrides))
    return out


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_runs_and_is_committed_without_outputs(
    path: Path, tiny: Path, run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mpl.use("Agg")
    monkeypatch.setenv("DATA_DIR", str(tiny))
    monkeypatch.setenv("RUN_DIR", str(run_dir))
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    scope: dict = {}
    for cell in cells:
        if cell["cell_type"] != "code":
            continue
        assert cell["outputs"] == [], "an output would carry pictures of somebody's data"
        exec(compile("".join(cell["source"]), path.name, "exec"), scope)
    assert len(plt.get_fignums()) > 0, "a notebook that shows nothing"
    plt.close("all")
