from __future__ import annotations

import pytest

from deepacc_d2.data.formats import Defect, ReadOptions, read_yolo
from deepacc_d2.errors import DataError

YAML = "names: ['1', X]\ntrain: images/train\nval: images/val\n"


def test_fractions_become_pixels(source):
    source.text("data.yaml", "names: {0: A1, 1: X}\n")
    source.image("images/a.png", size=(200, 100))
    source.text("labels/a.txt", "0 0.5 0.5 0.2 0.4\n1 0.1 0.2 0.3 0.2 0.3 0.6\n\n")
    (record,) = read_yolo(source.root, ReadOptions()).records
    assert [box.label for box in record.boxes] == ["A1", "X"]
    assert record.boxes[0].xyxy == pytest.approx((80, 30, 120, 70))
    assert record.boxes[0].segmentation is None
    assert record.boxes[1].xyxy == pytest.approx((20, 20, 60, 60))
    assert record.boxes[1].segmentation[0] == pytest.approx([20, 20, 60, 20, 60, 60])


def test_rounded_fractions_at_the_border_are_snapped_to_it(source):
    source.text("data.yaml", "names: ['1']\n")
    source.image("images/a.png", size=(700, 600))
    # 0..30 x 570..600 written with six digits overshoots by less than a hundredth of a pixel
    source.text("labels/a.txt", "0 0.021428 0.975001 0.042858 0.050000\n")
    (record,) = read_yolo(source.root, ReadOptions()).records
    left, _, _, bottom = record.boxes[0].xyxy
    assert (left, bottom) == (0.0, 600.0)


def test_official_split_and_every_defect(source):
    source.text("data.yaml", YAML + "test: gone.txt\n")
    for name in ("train/a", "train/b", "val/c", "spare/d", "val/lonely", "val/empty"):
        source.image(f"images/{name}.png")
        if name != "val/lonely":
            source.text(f"labels/{name}.txt", "0 0.5 0.5 0.2 0.4\n")
    (source.root / "images/val/empty.png").write_bytes(b"")
    source.text("labels/train/b.txt", "0 0.5 0.5\n0 a b c d\n9 .5 .5 .2 .2\nnan .5 .5 .2 .2\n")
    source.text("labels/train/orphan.txt", "0 0.5 0.5 0.2 0.4\n")
    result = read_yolo(source.root, ReadOptions())
    assert {r.name: r.split for r in result.records} == {
        "images/spare/d.png": None,
        "images/train/a.png": "train",
        "images/train/b.png": "train",
        "images/val/c.png": "val",
    }
    own = {r.path.stem: r for r in result.records}
    assert [i.defect for i in own["b"].issues] == [Defect.BAD_SHAPE] * 3
    assert [box.label for box in own["b"].boxes] == ["index 9"]
    assert [i.defect for i in own["d"].issues] == [Defect.UNLISTED]
    assert {(i.defect, i.name) for i in result.issues} == {
        (Defect.MISSING_IMAGE, "gone.txt"),
        (Defect.MISSING_IMAGE, "labels/train/orphan.txt"),
        (Defect.NO_ANNOTATION, "images/val/lonely.png"),
        (Defect.BAD_IMAGE, "images/val/empty.png"),
    }


def test_list_files_and_parent_paths_of_other_tools(source):
    for name in ("train/images/a", "valid/images/b"):
        source.image(f"{name}.png")
        source.text(f"{name.replace('images', 'labels')}.txt", "0 0.5 0.5 0.2 0.4\n")
    text = "./train/images/a.png\ntrain/images/gone.png\nvalid/images/b.png\n"
    source.text("train.txt", text)
    source.text("data.yaml", "names: ['1']\ntrain: train.txt\nval: ../valid/images\n")
    result = read_yolo(source.root, ReadOptions())
    assert [(r.path.stem, r.split) for r in result.records] == [("a", "train"), ("b", "val")]
    assert [i.defect for i in result.records[1].issues] == [Defect.LISTED_TWICE]
    assert [(i.defect, i.name) for i in result.issues] == [
        (Defect.MISSING_IMAGE, "train/images/gone.png")
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "data.yaml is missing: FORMAT=yolo needs it"),
        ("train: images\n", "has no list 'names'"),
        ("names: [1\n", "no valid YAML"),
        ("hello\n", "must map names"),
        ("names: {a: b}\n", "has no list 'names'"),
    ],
)
def test_unusable_data_yaml_is_refused(source, text, message):
    if text is not None:
        source.text("data.yaml", text)
    with pytest.raises(DataError, match=message):
        read_yolo(source.root, ReadOptions())
