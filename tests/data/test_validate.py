from __future__ import annotations

import json
import shutil

import pytest

from deepacc_d2.data.convert import convert
from deepacc_d2.data.validate import finding_table, main, validate
from deepacc_d2.errors import DataError, run_cli


class DataSet:
    def __init__(self, root):
        self.root = root

    def edit(self, split, change):
        path = self.root / "annotations" / f"{split}.json"
        value = json.loads(path.read_text())
        change(value)
        path.write_text(json.dumps(value))

    def edit_info(self, **fields):
        path = self.root / "dataset.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))

    def image(self, split, number=0):
        value = json.loads((self.root / "annotations" / f"{split}.json").read_text())
        return self.root / "images" / value["images"][number]["file_name"]

    def found_keys(self):
        return [finding.check.key for finding in validate(self.root)]


@pytest.fixture
def dataset(tseng_source, tmp_path):
    """A set with nothing wrong: 36 boxes in each image."""
    boxes = [(str(n % 22 + 1), (n, n // 4, n + 9, n // 4 + 7)) for n in range(36)]
    for xml in (tseng_source.root / "24_chromosomes_object" / "annotations").iterdir():
        tseng_source.voc(f"24_chromosomes_object/annotations/{xml.name}", boxes)
    convert("tseng2023", tseng_source.root, tmp_path / "out")
    return DataSet(tmp_path / "out")


def test_sound_set_passes(dataset, capsys):
    assert validate(dataset.root) == []
    assert main([str(dataset.root)]) == 0
    printed = capsys.readouterr().out
    assert "no defects" in printed
    assert "is sound" in printed


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda v: v["annotations"][0].update(bbox=[1, 2, 0, 4]), "box"),
        (lambda v: v["annotations"][0].update(bbox=[0.1, 0.2, 0.3, 0.4]), "box"),
        (lambda v: v["annotations"][0].update(bbox=[60, 2, 9, 4]), "box"),
        (lambda v: v["annotations"][0].update(bbox=[-3, 2, 9, 4]), "box"),
        (lambda v: v["annotations"][0].update(category_id=25), "class"),
        (lambda v: v["annotations"][0].update(category_id=0), "class"),
        (lambda v: v["annotations"][0].update(image_id=10**6), "orphan"),
        (lambda v: v["annotations"][0].update(id=2), "duplicate_id"),
        (lambda v: v["annotations"][0].pop("bbox"), "bad_entry"),
        (lambda v: v["images"][0].pop("width"), "bad_entry"),
        (lambda v: v["images"][0].update(width=65), "size_mismatch"),
        (lambda v: v["images"][0].update(case_id=None), "no_case"),
        (lambda v: v["images"][0].update(id=v["images"][1]["id"]), "duplicate_id"),
        (lambda v: v["categories"].pop(), "categories"),
        (lambda v: v["categories"].append(v["categories"][0]), "categories"),
        (lambda v: v["categories"].reverse() or v["categories"][0].update(name="1"), "categories"),
        (lambda v: v["images"].pop(), "counts"),
        (lambda v: v["images"].clear(), "empty_split"),
        (lambda v: v["annotations"].__delitem__(slice(0, 5)), "odd_count"),
    ],
)
def test_each_defect_of_annotations_is_found(dataset, change, expected):
    dataset.edit("train", change)
    assert expected in dataset.found_keys()


def test_changed_content_no_longer_fits_the_fingerprint(dataset):
    dataset.edit("test", lambda v: v["annotations"][0].update(category_id=5))
    assert dataset.found_keys() == ["fingerprint"]


def test_files_missing_broken_and_stray(dataset):
    dataset.image("train", 0).unlink()
    path = dataset.image("train", 1)
    path.write_bytes(path.read_bytes()[:-400])
    dataset.image("train", 2).write_bytes(b"")
    (dataset.root / "images" / "stray.png").touch()
    keys = dataset.found_keys()
    assert keys == ["missing_image", "bad_image", "bad_image", "fingerprint", "stray_file"]


def test_same_bytes_in_two_splits_are_found(dataset):
    shutil.copy(dataset.image("train"), dataset.image("test"))
    found = validate(dataset.root)[0]
    assert found.check.key == "in_two_splits"
    assert dataset.image("train").name in found.detail


def test_same_name_in_two_splits_is_found(dataset):
    name = dataset.image("train").name
    dataset.edit("test", lambda v: v["images"][0].update(file_name=name))
    assert dataset.found_keys()[0] == "in_two_splits"


def test_case_in_two_splits_is_an_error_unless_the_lists_were_asked_for(dataset):
    case = dataset.image("train").name[:6]
    dataset.edit("test", lambda v: v["images"][0].update(case_id=case))
    assert dataset.found_keys()[0] == "case_in_two_splits"
    dataset.edit_info(split={"method": "official"})
    assert "shared_case" in dataset.found_keys()
    assert "case_in_two_splits" not in dataset.found_keys()


def test_worst_defect_is_the_one_line_and_all_are_listed_above(dataset, capsys):
    dataset.edit("val", lambda v: v["annotations"][3].update(bbox=[1, 2, 0, 4]))
    shutil.copy(dataset.image("train"), dataset.image("test"))
    with pytest.raises(SystemExit) as caught:
        run_cli(lambda: main([str(dataset.root)]))
    assert caught.value.code == 2
    printed = capsys.readouterr()
    assert printed.err.count("\n") == 1
    assert "has 3 defect(s), the worst in_two_splits" in printed.err
    for key in ("in_two_splits", "box", "fingerprint"):
        assert key in printed.out


def test_broken_and_missing_files_are_one_line(dataset, tmp_path):
    (dataset.root / "annotations" / "val.json").write_text('{"images": [')
    with pytest.raises(DataError, match=r"val\.json is no complete JSON.*cut short"):
        validate(dataset.root)
    (dataset.root / "dataset.json").write_text("[]")
    with pytest.raises(DataError, match="must hold a JSON object"):
        validate(dataset.root)
    with pytest.raises(DataError, match="does not exist: make one with"):
        validate(tmp_path / "none")


def test_table_shortens_long_lists(dataset):
    dataset.edit("train", lambda v: v["annotations"].clear())
    table = finding_table(validate(dataset.root), limit=2)
    assert "and 10 more" in table
    assert "warning" in table
    assert finding_table([]) == "no defects"
