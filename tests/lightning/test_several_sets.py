"""Training on several data sets at once, from the config to the run's record."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest

from deepacc_d2.data.dataset import read_split
from deepacc_d2.data.synthetic import SyntheticConfig, ensure_dataset
from deepacc_d2.data.union import DataSets
from deepacc_d2.errors import ConfigError, DataError
from deepacc_d2.evaluation.comparison.intervals import _ground_truth
from deepacc_lightning import train
from deepacc_lightning.core.config import compose_config
from deepacc_lightning.train import build_datamodule
from deepacc_lightning.training.heads_protocol import HeadsDataModule
from deepacc_lightning.training.resume import check_same_data


@pytest.fixture(scope="module")
def more_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight images to train on and nothing else."""
    root = tmp_path_factory.mktemp("data") / "more"
    config = SyntheticConfig(size=(224, 208), cells_per_case=1, num_batches=2, seed=9)
    ensure_dataset(root, config, {"train": 8}, num_workers=1, progress=False)
    return root


@pytest.fixture
def both(overrides: list[str], tiny_data: Path, more_data: Path) -> list[str]:
    return [*overrides, f"data.root=[{tiny_data},{more_data}]"]


def test_training_on_two_sets_leaves_a_run_that_names_them(
    both: list[str], tiny_data: Path, more_data: Path, tmp_path: Path
) -> None:
    cfg = compose_config("train", [*both, "experiment=sep", "data.weights=[1,0.5]"])
    assert cfg.data.name == "tiny+more"
    train.run(cfg)
    facts = json.loads((tmp_path / "run" / "run.json").read_text())
    assert facts["status"] == "finished"
    assert facts["steps"] == (6 + 4) // 2
    sets = DataSets.of([more_data, tiny_data], [0.5, 1])
    data = facts["data"]
    assert data["root"] == [str(tiny_data), str(more_data)]
    assert (data["weights"], data["fingerprint"]) == ([1, 0.5], sets.info().fingerprint)
    assert cfg.pixel_mean == sets.info().pixel_mean
    metrics = json.loads((tmp_path / "run" / "test" / "metrics.json").read_text())
    assert metrics["num_images"] == 3
    boxes = json.loads((tmp_path / "run" / "test" / "predictions_top1.json").read_text())
    ids = {image["id"] for image in sets.split("test")["images"]}
    assert {box["image_id"] for box in boxes} <= ids

    check_same_data(tmp_path / "run", sets.info().fingerprint)
    for other in (DataSets.of([tiny_data, more_data]), DataSets.of(tiny_data)):
        with pytest.raises(DataError, match="was trained on another data set"):
            check_same_data(tmp_path / "run", other.info().fingerprint)
    run = SimpleNamespace(facts=facts, fingerprint=data["fingerprint"])
    assert _ground_truth(run) == sets.split("test")
    run.fingerprint = "another"
    with pytest.raises(DataError, match="are not those that the runs were trained on"):
        _ground_truth(run)


def test_all_processes_together_see_each_set_by_its_weight(
    both: list[str], tiny_data: Path, more_data: Path
) -> None:
    def seen(rank: int, size: int) -> list[str]:
        datamodule = build_datamodule(compose_config("train", [*both, "data.weights=[1,2]"]))
        datamodule.batch_size = 1
        datamodule.trainer = SimpleNamespace(global_rank=rank, world_size=size)
        loader = datamodule.train_dataloader()
        loader.sampler.set_epoch(1)
        return [item["file_name"] for batch in loader for item in batch]

    wanted = Counter(
        {
            str(root / "images" / image["file_name"]): times
            for root, times in ((tiny_data, 1), (more_data, 2))
            for image in read_split(root, "train")["images"]
        }
    )
    assert Counter(seen(0, 1)) == wanted
    assert Counter(seen(0, 2) + seen(1, 2)) == wanted


def test_validation_is_on_what_any_of_the_sets_has(both: list[str], tiny_data: Path) -> None:
    datamodule = build_datamodule(compose_config("train", both))
    names = [
        Path(item["file_name"]).name for batch in datamodule.val_dataloader() for item in batch
    ]
    assert names == [image["file_name"] for image in read_split(tiny_data, "val")["images"]]
    assert isinstance(
        HeadsDataModule({}, root=datamodule.data, test_augmentations=[]).data, DataSets
    )


def test_sets_that_cannot_be_together_are_refused(
    both: list[str], tiny_data: Path, more_data: Path, tmp_path: Path
) -> None:
    shutil.copytree(more_data, tmp_path / "mine")
    path = tmp_path / "mine" / "annotations" / "train.json"
    tested = read_split(tiny_data, "val")["images"][0]["case_id"]
    own = read_split(more_data, "train")["images"][0]["case_id"]
    path.write_text(path.read_text().replace(f'"{own}"', f'"{tested}"'))
    leaking = [*both, f"data.root=[{tmp_path / 'mine'},{tiny_data}]"]
    with pytest.raises(DataError, match=f"case {tested} is in train of .*mine and in val of"):
        build_datamodule(compose_config("train", leaking)).info()
    separate = compose_config("train", [*leaking, "data.cases=own"])
    assert build_datamodule(separate).info().counts["train"] == 14
    drawn = [o for o in both if o != "data=coco"]
    with pytest.raises(ConfigError, match="drawn metaphases are one data set"):
        build_datamodule(compose_config("train", [*drawn, "data=synthetic"]))
