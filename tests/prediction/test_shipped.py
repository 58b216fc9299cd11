"""The checkpoint that comes along."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from deepacc_d2.checkpoint import read_checkpoint
from deepacc_d2.data.synthetic import SyntheticConfig, render_metaphase
from deepacc_d2.detection.detector import DEFAULT_CHECKPOINT
from deepacc_d2.prediction.predictor import Predictor, load_predictor
from deepacc_d2.release import CARD_KEYS


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return load_predictor()


def test_what_it_is() -> None:
    assert DEFAULT_CHECKPOINT.stat().st_size <= 32 * 2**20
    content = read_checkpoint(DEFAULT_CHECKPOINT)
    assert content["deepacc_config"]["preset"] == "deepacc"
    assert all(content["card"][key] for key in CARD_KEYS)
    assert "Tseng" in content["card"]["data"]
    kinds = {v.dtype for v in content["model"].values() if v.is_floating_point() and v.ndim > 1}
    assert kinds == {torch.bfloat16}


@pytest.mark.parametrize("zoom", [1.0, 0.5])
def test_it_finds_drawn_chromosomes(predictor: Predictor, zoom: float) -> None:
    # It never saw a drawing: this shows that it works at all, not how well.
    config = SyntheticConfig(seed=4)
    found = total = 0
    for index in range(2):
        image, record = render_metaphase(config, index, 0)
        cell = predictor.cell(image[:: round(1 / zoom), :: round(1 / zoom)].copy())
        truth = np.array([a["bbox"] for a in record["annotations"]]) * zoom
        centers = truth[:, :2] + truth[:, 2:] / 2
        for x, y in centers:
            inside = [c.box[0] < x < c.box[2] and c.box[1] < y < c.box[3] for c in cell.chromosomes]
            found += any(inside)
        total += len(truth)
        assert len(cell.chromosomes) < 1.3 * len(truth)
    assert found > 0.8 * total
