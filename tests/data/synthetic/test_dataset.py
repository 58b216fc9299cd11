import hashlib
import json
import subprocess
import sys

import cv2
import numpy as np
import pytest
from pycocotools.coco import COCO

from deepacc_d2.chromosomes import coco_categories
from deepacc_d2.data.synthetic import SyntheticConfig, ensure_dataset, workers, write_dataset
from deepacc_d2.errors import ConfigError, DataError

CONFIG = SyntheticConfig(size=(256, 240), cells_per_case=2, num_batches=2, seed=8)
SPLITS = {"train": 5, "val": 2, "test": 3}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("synthetic") / "set"
    write_dataset(root, CONFIG, SPLITS, num_workers=1, progress=False)
    return root


def digest(root):
    files = sorted(path for path in root.rglob("*") if path.suffix in (".jpg", ".json"))
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
        if path.name != "dataset.json"
    }


def test_layout_on_disk(root):
    info = json.loads((root / "dataset.json").read_text())
    assert info["format"] == "synthetic"
    assert info["counts"] == SPLITS
    names = []
    for split, count in SPLITS.items():
        coco = COCO(str(root / "annotations" / f"{split}.json"))
        assert coco.dataset["categories"] == coco_categories()
        images = coco.dataset["images"]
        assert len(images) == count
        for image in images:
            pixels = cv2.imread(str(root / "images" / image["file_name"]), cv2.IMREAD_UNCHANGED)
            assert pixels.shape == (image["height"], image["width"])
            found = coco.loadAnns(coco.getAnnIds(image["id"]))
            assert 44 <= len(found) <= 47
            assert coco.annToMask(found[0]).sum() == found[0]["area"]
        names += [image["file_name"] for image in images]
    assert sorted(names) == sorted(path.name for path in (root / "images").iterdir())


def test_splits_share_no_case_but_the_batches(root):
    images = {
        split: json.loads((root / "annotations" / f"{split}.json").read_text())["images"]
        for split in SPLITS
    }
    cases = {split: {image["case_id"] for image in found} for split, found in images.items()}
    assert not cases["train"] & cases["val"]
    assert not cases["train"] & cases["test"]
    assert not cases["val"] & cases["test"]
    assert len(cases["train"]) == 3, "five images of two cells a case"
    for image in images["train"]:
        same = {
            other["karyotype"] for other in images["train"] if other["case_id"] == image["case_id"]
        }
        assert len(same) == 1


def test_pixel_statistics_are_those_of_the_train_split(root):
    info = json.loads((root / "dataset.json").read_text())
    images = json.loads((root / "annotations" / "train.json").read_text())["images"]
    pixels = np.concatenate(
        [cv2.imread(str(root / "images" / i["file_name"]), 0).ravel() for i in images]
    ).astype(float)
    assert info["pixel_mean"][0] == pytest.approx(pixels.mean(), abs=0.5)  # JPEG rounds
    assert info["pixel_std"][0] == pytest.approx(pixels.std(), abs=0.5)


def test_workers_do_not_change_a_byte(root, tmp_path):
    info = write_dataset(tmp_path / "two", CONFIG, SPLITS, num_workers=2, progress=False)
    assert digest(tmp_path / "two") == digest(root)
    assert info["fingerprint"] == json.loads((root / "dataset.json").read_text())["fingerprint"]


def test_a_longer_train_split_leaves_the_test_split_alone(root, tmp_path):
    longer = {**SPLITS, "train": 7}
    write_dataset(tmp_path / "longer", CONFIG, longer, num_workers=1, progress=False)
    images = [
        [
            i["file_name"]
            for i in json.loads((r / "annotations" / "test.json").read_text())["images"]
        ]
        for r in (root, tmp_path / "longer")
    ]
    assert images[0] == images[1]
    old, new = digest(root), digest(tmp_path / "longer")
    assert all(new[name] == sha for name, sha in old.items() if name.endswith(".jpg"))


def test_ensure_makes_once(root, tmp_path, monkeypatch):
    target = tmp_path / "set"
    first = ensure_dataset(target, CONFIG, {"train": 1}, num_workers=1, progress=False)
    stamp = (target / "dataset.json").stat().st_mtime_ns

    def fail(*args, **kwargs):
        raise AssertionError("made again")

    with monkeypatch.context() as patch:
        patch.setattr(workers, "render_metaphase", fail)
        assert ensure_dataset(target, CONFIG, {"train": 1}, progress=False) == first
    assert (target / "dataset.json").stat().st_mtime_ns == stamp
    other = SyntheticConfig(**{**vars(CONFIG), "seed": 9})
    second = ensure_dataset(target, other, {"train": 1}, num_workers=1, progress=False)
    assert second["fingerprint"] != first["fingerprint"]
    assert [path.name for path in tmp_path.iterdir()] == ["set"], "nothing is left over"


def test_an_interrupted_run_leaves_nothing(tmp_path, monkeypatch):
    calls = []

    def interrupted(*args):
        calls.append(args)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return render(*args)

    render = workers.render_metaphase
    monkeypatch.setattr(workers, "render_metaphase", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_dataset(tmp_path / "set", CONFIG, SPLITS, num_workers=1, progress=False)
    assert list(tmp_path.iterdir()) == []


def test_a_dead_worker_is_reported_and_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(workers.sys, "executable", "/bin/false")
    with pytest.raises(DataError, match="worker that draws synthetic images died with status 1"):
        write_dataset(tmp_path / "set", CONFIG, SPLITS, num_workers=2, progress=False)
    assert list(tmp_path.iterdir()) == []


def test_a_worker_that_cannot_write_says_why(tmp_path):
    jobs = [workers.Job("train", case, 0) for case in range(2)]
    with pytest.raises(OSError, match="missing"):
        list(workers.run_jobs(CONFIG, tmp_path / "missing", jobs, 2))


def test_workers_start_beside_busy_threads(tmp_path):
    # A forked worker would hang here: OpenCV's pool has its threads in this process.
    threads = cv2.getNumThreads()
    cv2.setNumThreads(4)
    try:
        for _ in range(3):
            cv2.GaussianBlur(np.zeros((2000, 2000), np.float32), (0, 0), 3)
        jobs = [workers.Job("train", case, 0) for case in range(4)]
        results = list(workers.run_jobs(CONFIG, tmp_path, jobs, 2))
    finally:
        cv2.setNumThreads(threads)
    assert [result["record"]["case_id"] for result in results] == [
        f"case{case:06d}" for case in range(4)
    ]


@pytest.mark.parametrize(
    ("splits", "message"),
    [
        ({"train": -1}, "train images must not be negative"),
        ({"train": 3, "val": -2}, "val images must not be negative"),
        ({"val": 3}, "at least one train image"),
        ({"train": 1, "valid": 2}, "unknown synthetic split 'valid'"),
        ({"train": 1, "test": 300_000}, "too many synthetic test images"),
    ],
)
def test_impossible_splits(tmp_path, splits, message):
    with pytest.raises(ConfigError, match=message):
        write_dataset(tmp_path / "set", CONFIG, splits, progress=False)
    assert list(tmp_path.iterdir()) == []


def test_foreign_folders_are_not_touched(tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("precious")
    with pytest.raises(DataError, match="is no synthetic data set"):
        ensure_dataset(tmp_path / "thesis", CONFIG, {"train": 1}, progress=False)
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "dataset.json").write_text('{"format": "tseng2023"}')
    with pytest.raises(DataError, match="format 'tseng2023'"):
        write_dataset(tmp_path / "real", CONFIG, {"train": 1}, progress=False)
    file = tmp_path / "file"
    file.write_text("x")
    with pytest.raises(DataError, match="choose another"):
        write_dataset(file, CONFIG, {"train": 1}, progress=False)
    with pytest.raises(DataError, match="cannot write"):
        write_dataset(file / "below", CONFIG, {"train": 1}, num_workers=1, progress=False)
    assert (tmp_path / "thesis" / "chapter.tex").read_text() == "precious"


def cli(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "deepacc_d2.data.synthetic", *arguments],
        capture_output=True,
        text=True,
        check=False,
    )


def test_command_line(tmp_path):
    done = cli(
        *("--out", str(tmp_path / "set"), "--train", "2", "--val", "1", "--test", "1"),
        *("--size", "256", "240", "--seed", "8", "--workers", "1"),
    )
    assert done.returncode == 0, done.stderr
    assert "2 train, 1 val, 1 test images" in done.stdout
    assert (tmp_path / "set" / "annotations" / "test.json").is_file()
    bad = cli("--out", str(tmp_path / "other"), "--train", "-3")
    assert bad.returncode == 2
    assert bad.stderr == "error: synthetic train images must not be negative, not -3\n"
    assert not (tmp_path / "other").exists()


def test_preview_command(tmp_path):
    picture = tmp_path / "new" / "preview.png"
    done = cli("--preview", str(picture), "--truth", "--size", "256", "240")
    assert done.returncode == 0, done.stderr
    assert cv2.imread(str(picture)).shape == (880, 1440, 3)
