from __future__ import annotations

import pytest

from deepacc_d2.data.formats import Defect, ReadOptions, read_yolo
from deepacc_d2.errors import DataError
from tests.data.conftest import SourceMaker

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
        (None, r"data.yaml is missing: FORMAT=yolo needs it, or classes.txt"),
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


def one_image(source, yaml, line):
    source.text("data.yaml", yaml)
    source.image("images/a.png", size=(200, 100))
    source.text("labels/a.txt", line)
    result = read_yolo(source.root, ReadOptions())
    return result, result.records[0]


@pytest.mark.parametrize(
    "names", ["[010, 1_0, 0x10, yes, 1.0]", "{0: 010, 01: 1_0, 2: 0x10, 3: yes, 4: 1.0}"]
)
def test_names_are_text_whatever_yaml_makes_of_them(source, names):
    lines = "".join(f"{n} .5 .5 .2 .4\n" for n in range(5))
    _, record = one_image(source, f"names: {names}\ntest: null\n", lines)
    assert [box.label for box in record.boxes] == ["010", "1_0", "0x10", "yes", "1.0"]


def test_two_indices_of_one_class_are_noted(source):
    result, _ = one_image(source, "names: [chr1, A1, '2']\n", "0 .5 .5 .2 .4\n")
    assert [str(i) for i in result.issues] == ["data.yaml: indices 0 and 1 are class 1"]


@pytest.mark.parametrize(
    ("yaml", "message"),
    [
        ("names: {0: '1', 0: '2'}\n", "the key '0' is there twice"),
        ("names: {0: '1', 00: '2'}\n", "index 0 has two names"),
        ("names: ['1']\nnames: ['2']\n", "the key 'names' is there twice"),
        ("names: ['1']\nkpt_shape: many\n", "kpt_shape many must be two numbers"),
    ],
)
def test_a_key_or_index_given_twice_is_refused(source, yaml, message):
    with pytest.raises(DataError, match=message):
        one_image(source, yaml, "")


def test_pixels_percent_and_half_an_index_are_reported(source):
    lines = "0 50 50 20 40\n0 100 60 20 40\n0.5 .5 .5 .2 .4\n0 .5 .5 .2 .4 .9\n0 .5 .5 .2 .4\n"
    _, record = one_image(source, "names: ['1']\n", lines)
    assert [box.xyxy for box in record.boxes] == [pytest.approx((80, 30, 120, 70))]
    assert [i.defect for i in record.issues] == [Defect.BAD_SHAPE] * 4
    assert "no fractions of the image" in str(record.issues[0])


def test_keypoints_are_no_polygon(source):
    line = "0 .5 .5 .2 .4 .1 .1 2 .9 .9 2\n"
    _, record = one_image(source, "names: ['1']\nkpt_shape: [2, 3]\n", line)
    assert [box.xyxy for box in record.boxes] == [pytest.approx((80, 30, 120, 70))]


def test_oriented_boxes_are_enclosed(source):
    line = "0 .1 .5 .3 .2 .5 .4 .3 .7\n"
    _, record = one_image(source, "names: ['1']\n", line)
    assert record.boxes[0].xyxy == pytest.approx((20, 20, 100, 70))


def test_label_files_in_another_encoding_or_for_two_images_are_reported(source):
    source.text("data.yaml", "names: ['1']\ntrain: list.txt\n")
    for name in ("a.png", "b.png", "b.jpg", "c.PNG"):
        source.image(f"images/{name}")
    source.text("labels/b.txt", "0 .5 .5 .2 .4\n")
    source.text("labels/C.TXT", "0 .5 .5 .2 .4\n")
    (source.root / "labels" / "a.txt").write_bytes("0 .5 .5 .2 .4 # ü\n".encode("latin-1"))
    (source.root / "list.txt").write_bytes("images/ü.png\n".encode("latin-1"))
    result = read_yolo(source.root, ReadOptions())
    assert [(r.name, len(r.boxes)) for r in result.records] == [("images/c.PNG", 1)]
    assert [(i.defect, i.name) for i in result.issues] == [
        (Defect.BAD_LIST, "list.txt"),
        (Defect.BAD_ANNOTATION, "images/a.png"),
        (Defect.AMBIGUOUS, "images/b.jpg"),
        (Defect.AMBIGUOUS, "images/b.png"),
    ]


def test_a_source_below_a_folder_called_labels(tmp_path):
    root = tmp_path / "labels" / "set"
    root.mkdir(parents=True)
    _, record = one_image(SourceMaker(root), "names: ['1']\n", "0 .5 .5 .2 .4")
    assert record.name == "images/a.png"


def test_a_label_of_another_folder_is_an_orphan(source):
    source.text("data.yaml", "names: ['1']\n")
    source.image("p2/images/1.png")
    source.text("p2/labels/1.txt", "0 .5 .5 .2 .4\n")
    source.text("p1/labels/1.txt", "0 .5 .5 .2 .4\n")
    result = read_yolo(source.root, ReadOptions())
    assert [(i.defect, i.name) for i in result.issues] == [
        (Defect.MISSING_IMAGE, "p1/labels/1.txt")
    ]


def test_names_from_classes_txt_as_label_studio_writes_it(source):
    source.text("classes.txt", "A1\nX\n")
    source.image("images/a.png", size=(200, 100))
    source.text("labels/a.txt", "1 .5 .5 .2 .4\n")
    (record,) = read_yolo(source.root, ReadOptions()).records
    assert [box.label for box in record.boxes] == ["X"]
