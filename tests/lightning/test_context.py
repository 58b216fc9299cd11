"""``make context``: from a detector's checkpoint to one with cell context."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from hydra.utils import instantiate

from deepacc_d2.checkpoint import build_from_checkpoint, read_checkpoint
from deepacc_d2.context import ContextCell, Disturbance, pad_cells, read_cells
from deepacc_d2.data.dataset import read_split, to_dicts
from deepacc_d2.data.mapper import MetaphaseMapper
from deepacc_d2.detection.detector import load_detector
from deepacc_d2.errors import ConfigError
from deepacc_d2.images.read import read_image
from deepacc_d2.images.view import make_view
from deepacc_lightning import context
from deepacc_lightning.core.config import compose_config, to_plain
from deepacc_lightning.training import context_store
from deepacc_lightning.training.added_part import without_part
from deepacc_lightning.training.context_module import DisturbedCells

SMALL = (
    *("pixel_mean=228", "pixel_std=45", "scale=lab", "data.root=unused", "out=unused"),
    *("scale.backbone.stem_channels=8", "scale.backbone.res2_channels=8"),
    *("scale.fpn.out_channels=16", "scale.roi.fc_dims=[16,16]"),
    *("scale.rpn.pre_nms_topk=[60,60]", "scale.rpn.post_nms_topk=[20,20]"),
)


def save(path: Path, preset: str) -> Path:
    cfg = to_plain(compose_config("train", [*SMALL, f"experiment={preset}"]))
    torch.manual_seed(5)
    weights = instantiate(cfg["model"]).state_dict()
    torch.save({"model": weights, "deepacc_config": cfg}, path)
    return path


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("model") / "tiny.ckpt", "deepacc")


@pytest.fixture(scope="module")
def options(checkpoint: Path, tiny_data: Path) -> list[str]:
    small = ["context.width=16", "context.layers=1", "context.heads=2", "batch_size=4", "lr=0.01"]
    run = ["views=2", "epochs=8", "num_workers=0", "accelerator=cpu", "warmup_steps=1"]
    return [f"ckpt={checkpoint}", f"data.root={tiny_data}", *small, *run]


@pytest.fixture(scope="module")
def finished(options: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("out") / "job"
    context.run(compose_config("context", [*options, f"out={out}"]))
    return out


def test_the_detector_stays_and_the_context_learns(finished: Path, checkpoint: Path) -> None:
    before, after = (read_checkpoint(p) for p in (checkpoint, finished / "checkpoints/best.ckpt"))
    for name, value in before["model"].items():
        assert torch.equal(value, after["model"][name])
    new = set(after["model"]) - set(before["model"])
    assert new
    assert all(name.startswith("roi_heads.box_predictor.context.") for name in new)
    assert after["model"]["roi_heads.box_predictor.context.head.weight"].abs().max() > 0
    record = json.loads((finished / "context.json").read_text())
    assert len(record["history"]) == 8
    # Random weights call everything a chromosome; that few boxes are is quickly learnt.
    assert record["figures"]["nll_in_context"] < record["figures"]["nll_by_box"]


def test_the_figures_are_those_of_the_model_that_is_written(
    finished: Path, tiny_data: Path
) -> None:
    content = read_checkpoint(finished / "checkpoints/best.ckpt")
    model = build_from_checkpoint(content, "tiny").eval()
    nodes = content["deepacc_config"]["scale"]["test_augmentations"]
    mapper = MetaphaseMapper([instantiate(node) for node in nodes], is_train=True)
    predictor = model.roi_heads.box_predictor
    nll = boxes = 0.0
    for item in to_dicts(read_split(tiny_data, "val"), tiny_data):
        (cell,) = read_cells(model, [mapper(item)], predictor.context)
        known, shapes, hidden, labels = pad_cells([cell])
        logs = predictor.context.correct(known, shapes, hidden)[0].log_softmax(1)
        nll -= sum(float(logs[n, labels[0, n]]) for n in range(len(cell)))
        boxes += len(cell)
    record = json.loads((finished / "context.json").read_text())["figures"]
    assert nll / boxes == pytest.approx(record["nll_in_context"], abs=1e-3)


def test_the_checkpoint_predicts_with_its_context(
    finished: Path, checkpoint: Path, tiny_data: Path
) -> None:
    path = tiny_data / "images" / read_split(tiny_data, "test")["images"][0]["file_name"]
    gray = read_image(path).gray
    found = []
    for each in (checkpoint, finished / "checkpoints/best.ckpt"):
        detector = load_detector(each, device="cpu")
        found.append(detector.network(make_view(gray, detector.view).image))
    # Of the duplicates that a detector gives, the context leaves nothing.
    assert found[0][1].shape == found[1][1].shape
    kept = found[1][1][:, -1] < 0.999
    assert 0 < kept.sum() < len(kept)


def test_stored_cells_are_used_again_and_of_another_detector_made_anew(
    finished: Path, options: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("read again")

    monkeypatch.setattr(context_store, "read_cells", refuse)
    context.run(compose_config("context", [*options, f"out={finished}", "epochs=1"]))
    other = save(tmp_path / "other.ckpt", "siamese_aam")
    with pytest.raises(AssertionError, match="read again"):
        context.run(compose_config("context", [*options, f"out={finished}", f"ckpt={other}"]))


def test_a_context_is_trained_anew_not_twice(finished: Path, options: list[str]) -> None:
    content = read_checkpoint(finished / "checkpoints/best.ckpt")
    bare = without_part(content, context.PLACE)
    assert not any(".context." in name for name in bare["model"])
    assert "context" not in bare["deepacc_config"]["model"]["roi_heads"]["box_predictor"]
    assert any(".context." in name for name in content["model"])


def test_a_detector_of_another_kind_is_refused(options: list[str], tmp_path: Path) -> None:
    other = save(tmp_path / "sep.ckpt", "sep")
    with pytest.raises(ConfigError, match="DeepACC"):
        context.run(compose_config("context", [*options, f"out={tmp_path / 'o'}", f"ckpt={other}"]))


def test_cells_are_disturbed_by_seed_epoch_and_index_alone() -> None:
    def cell(first: int) -> ContextCell:
        rows = torch.arange(first, first + 40)
        known = rows[:, None].half().repeat(1, 5)
        return ContextCell(known, torch.zeros(40, 3), rows % 24, image_id=first)

    def drawn(seed: int, epoch: int) -> list[int]:
        cells = DisturbedCells([cell(0), cell(100)], Disturbance(), seed)
        cells.epoch = epoch
        return cells[1].known[:, 0].long().tolist()

    assert drawn(0, 3) == drawn(0, 3)
    assert drawn(0, 3) != drawn(0, 4)
    assert drawn(0, 3) != drawn(1, 3)
