"""The code cells of every notebook run, in order, on a tiny data set."""

from __future__ import annotations

import json
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import pytest

from deepacc_d2.data.synthetic import SyntheticConfig, ensure_dataset

NOTEBOOKS = sorted((Path(__file__).resolve().parents[2] / "notebooks").glob("*.ipynb"))


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    config = SyntheticConfig(size=(224, 208), cells_per_case=1, num_batches=2, seed=3)
    root = tmp_path / "data"
    ensure_dataset(root, config, {"train": 3, "val": 2, "test": 2}, num_workers=1, progress=False)
    return root


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_runs_and_is_committed_without_outputs(
    path: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mpl.use("Agg")
    monkeypatch.setenv("DATA_DIR", str(tiny))
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    scope: dict = {}
    for cell in cells:
        if cell["cell_type"] != "code":
            continue
        assert cell["outputs"] == [], "an output would carry pictures of somebody's data"
        exec(compile("".join(cell["source"]), path.name, "exec"), scope)
    assert len(plt.get_fignums()) > 0, "a notebook that shows nothing"
    plt.close("all")
