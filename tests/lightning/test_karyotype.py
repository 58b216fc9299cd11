from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hydra.utils import instantiate

from deepacc_d2.data.dataset import read_split
from deepacc_d2.disclaimer import DISCLAIMER
from deepacc_d2.errors import ConfigError, DataError
from deepacc_d2.karyotype.fit import CAUTIOUS_STRENGTH
from deepacc_d2.karyotype.settings import KaryotypeSettings
from deepacc_d2.release import release
from deepacc_lightning import karyotype
from deepacc_lightning.core.config import compose_config, to_plain
from deepacc_lightning.jobs import made_cells

SMALL = (
    *("pixel_mean=228", "pixel_std=45", "scale=lab", "data.root=unused", "out=unused"),
    *("scale.backbone.stem_channels=8", "scale.backbone.res2_channels=8"),
    *("scale.fpn.out_channels=16", "scale.roi.fc_dims=[16,16]"),
    *("scale.rpn.pre_nms_topk=[60,60]", "scale.rpn.post_nms_topk=[20,20]"),
    "experiment=siamese_gia",
)
FILES = {"calibration.json", "karyotype.json", "raw.npz", "reliability.png", "report.md"}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    cfg = to_plain(compose_config("train", SMALL))
    torch.manual_seed(5)
    weights = instantiate(cfg["model"]).state_dict()
    path = tmp_path_factory.mktemp("model") / "tiny.ckpt"
    # Random weights are sure of nothing: every proposal counts.
    selection = {"min_foreground": 0.0, "iou": 0.3, "max_chromosomes": 12}
    torch.save({"model": weights, "deepacc_config": cfg, "selection": selection}, path)
    return path


@pytest.fixture(scope="module")
def options(checkpoint: Path, tiny_data: Path) -> list[str]:
    few = "images=2", "strengths=[0.5]", "gains=0", "losses=0"
    return [f"ckpt={checkpoint}", f"data.root={tiny_data}", "device=cpu", *few]


@pytest.fixture(scope="module")
def finished(options: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("out") / "job"
    karyotype.run(compose_config("karyotype", [*options, f"out={out}"]))
    return out


def test_all_is_written_and_tells_what_is_so(finished: Path, tiny_data: Path) -> None:
    assert {path.name for path in finished.iterdir()} == FILES
    record = json.loads((finished / "karyotype.json").read_text())
    assert record["images"] == {"val": 2, "test": 2}
    with np.load(finished / "raw.npz") as raw:
        assert len(raw["names"]) == 4
        assert raw["numbers"].sum() == len(raw["boxes"]) == len(raw["probabilities"])
        assert raw["probabilities"].sum(axis=1) == pytest.approx(1, abs=1e-5)
        ours = {image["file_name"] for image in read_split(tiny_data, "test")["images"]}
        of_test = [str(name).split()[0] in ours for name in raw["names"]]
        assert sum(of_test) == 2
        assert raw["numbers"][of_test].sum() == record["boxes"]
    assert record["scores"]["assigned"]["exact_counts"]["total"] == 2
    report = (finished / "report.md").read_text()
    assert DISCLAIMER in report
    assert f"Temperature {record['karyotype']['temperature']:.3f}" in report


def test_the_calibration_is_what_a_released_checkpoint_takes(
    finished: Path, checkpoint: Path
) -> None:
    calibration = json.loads((finished / "calibration.json").read_text())
    settings = KaryotypeSettings.from_dict(calibration["karyotype"])
    assert settings != KaryotypeSettings()
    content = torch.load(checkpoint, weights_only=False)
    card = dict.fromkeys(karyotype_card_keys(), "told")
    passed_on = release(content, card, calibration)
    assert passed_on["karyotype"] == settings.to_dict()
    assert passed_on["selection"]["max_chromosomes"] == 12


def karyotype_card_keys() -> list[str]:
    from deepacc_d2.release import CARD_KEYS

    return list(CARD_KEYS)


def test_detections_are_kept_and_used_again(
    finished: Path, options: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    first = json.loads((finished / "karyotype.json").read_text())

    def refuse(*_: object) -> None:
        raise AssertionError("an image was detected again")

    monkeypatch.setattr(karyotype.Detector, "detect", refuse)
    karyotype.run(compose_config("karyotype", [*options, f"out={finished}"]))
    again = json.loads((finished / "karyotype.json").read_text())
    assert again["scores"] == first["scores"]
    assert again["karyotype"] == first["karyotype"]
    # Those of other settings are not taken for these.
    other = tmp_path / "other"
    other.mkdir()
    (other / "raw.npz").write_bytes((finished / "raw.npz").read_bytes())
    with pytest.raises(AssertionError, match="detected again"):
        karyotype.run(compose_config("karyotype", [*options, f"out={other}", "normalize=false"]))


@pytest.fixture
def crops(tmp_path: Path) -> Path:
    """Two cells of three chromosomes as crops; what is drawn is a bar."""
    bar = np.full((40, 18), 255, np.uint8)
    bar[4:36, 5:13] = 90
    for name in ("a.1/1_0.tiff", "a.1/1_1.tiff", "a.1/24_0.tiff", "b.1/21_0.png", "b.1/21_2.png"):
        path = tmp_path / "crops" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        assert cv2.imwrite(str(path), bar)
    return tmp_path / "crops"


def test_made_and_composed_cells_are_counted_and_kept(
    finished: Path,
    options: list[str],
    crops: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    more = ["images=null", "gains=6", "losses=3", f"crops={crops}", f"out={tmp_path / 'out'}"]
    cfg = compose_config("karyotype", [*options, *more])
    karyotype.run(cfg)
    first = json.loads((tmp_path / "out" / "karyotype.json").read_text())
    made = first["made"]
    counted = made["gains"]["assigned"]["total"] + made["losses"]["assigned"]["total"]
    assert counted + made["not_made"] == 9
    assert made["gains"]["assigned"]["total"] > 0
    assert first["composed"]["named"]["assigned"]["total"] == 5
    assert {row["clear_gains"] for row in first["strengths"]} == {0}  # the network is untrained
    assert max(row["strength"] for row in first["strengths"]) <= CAUTIOUS_STRENGTH
    report = (tmp_path / "out" / "report.md").read_text()
    assert "## Inserted third homologs and removed chromosomes" in report
    assert "no patient has these changes" in report
    assert "Only 0 inserted third homologs are clear, fewer than 100" in report
    assert "## Another laboratory's chromosome crops" in report
    assert "Inserted" not in (finished / "report.md").read_text()

    def refuse(*_: object) -> None:
        raise AssertionError("a cell was made or detected again")

    monkeypatch.setattr(karyotype.Detector, "detect", refuse)
    monkeypatch.setattr(made_cells.Workshop, "make", refuse)
    karyotype.run(cfg)
    again = json.loads((tmp_path / "out" / "karyotype.json").read_text())
    assert {name: again[name] for name in ("made", "real", "composed", "strengths")} == {
        name: first[name] for name in ("made", "real", "composed", "strengths")
    }


def test_kept_detections_are_read_back(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    raw = {
        "a.png 1": (rng.random((3, 4)), rng.random((3, 25))),
        "b.png": (np.zeros((0, 4)), np.zeros((0, 25))),
        "c.png": (rng.random((2, 4)), rng.random((2, 25))),
    }
    path = tmp_path / "raw.npz"
    karyotype.write_raw(path, "key", raw)
    found = karyotype.read_raw(path, "key")
    assert list(found) == list(raw)
    for name, (boxes, probabilities) in raw.items():
        assert np.array_equal(found[name][0], boxes)
        assert np.array_equal(found[name][1], probabilities)
    assert karyotype.read_raw(path, "other") == {}
    assert karyotype.read_raw(tmp_path / "none.npz", "key") == {}
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(DataError, match="is damaged: remove it"):
        karyotype.read_raw(path, "key")


def test_bad_input_is_reported_before_anything_is_written(
    options: list[str], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    bad = "split=other", f"ckpt={tmp_path}/none.ckpt", "gains=-1", f"crops={tmp_path}/none"
    for more in ([each] for each in bad):
        with pytest.raises((ConfigError, DataError)) as caught:
            karyotype.run(compose_config("karyotype", [*options, f"out={out}", *more]))
        assert "\n" not in str(caught.value)
        assert not out.exists()
