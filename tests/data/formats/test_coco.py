from __future__ import annotations

import pytest

from deepacc_d2.data.formats import Defect, ReadOptions, read_coco
from deepacc_d2.data.formats.coco import split_of_path
from deepacc_d2.errors import DataError

CATEGORIES = [{"id": 7, "name": "chr1"}, {"id": 9, "name": "Y"}]


def coco(names, **image_fields):
    images = [
        {"id": n, "file_name": name, "width": 64, "height": 48, **image_fields}
        for n, name in enumerate(names)
    ]
    annotations = [
        {"id": n, "image_id": n, "category_id": 7, "bbox": [4, 5, 10, 20]}
        for n in range(len(names))
    ]
    return {"images": images, "annotations": annotations, "categories": CATEGORIES}


@pytest.mark.parametrize(
    ("path", "split"),
    [
        ("annotations/instances_train2017.json", "train"),
        ("valid/_annotations.coco.json", "val"),
        ("annotations/test.json", "test"),
        ("annotations/all.json", None),
        ("contest/all.json", None),
    ],
)
def test_split_is_in_the_name(tmp_path, path, split):
    assert split_of_path((tmp_path / path).relative_to(tmp_path)) == split


def test_boxes_labels_case_and_licence(source):
    source.image("images/a.png")
    value = coco(["a.png"], case_id=12, batch_id="slide 3")
    polygon = [[4, 5, 14, 5, 14, 25]]
    value["annotations"] = [
        {"id": 1, "image_id": 0, "category_id": 9, "bbox": [4, 5, 10, 20], "segmentation": polygon},
        {"id": 2, "image_id": 0, "category_id": 7, "bbox": [1, 2, 3, 4], "iscrowd": 1},
        {"id": 3, "image_id": 0, "category_id": 7},
        {"id": 4, "image_id": 0, "category_id": 77, "bbox": [1, 2, 3, 4], "segmentation": [[1, 2]]},
        {"id": 5, "image_id": 55, "category_id": 7, "bbox": [1, 2, 3, 4]},
    ]
    value["licenses"] = [{"id": 1, "name": "CC BY 4.0"}]
    source.json("annotations/all.json", value)
    result = read_coco(source.root, ReadOptions())
    (record,) = result.records
    assert (record.case_id, record.batch_id, record.split) == ("12", "slide 3", None)
    assert [(b.label, b.xyxy, b.segmentation) for b in record.boxes] == [
        ("Y", (4, 5, 14, 25), polygon),
        ("chr1", (1, 2, 4, 6), None),
        ("category_id 77", (1, 2, 4, 6), None),
    ]
    assert [i.defect for i in record.issues] == [Defect.CROWD, Defect.BAD_SHAPE]
    assert [str(i) for i in result.issues] == [
        "all.json image_id 55: 1 annotation(s) of image_id 55, which is not in the file"
    ]
    assert result.licence == "CC BY 4.0"
    assert result.case_rule == "by the field case_id"


def test_split_files_missing_and_unlisted_images(source):
    source.image("images/train/a.png")
    source.image("images/val/b.png")
    source.image("images/val/extra.png")
    source.json("annotations/instances_train.json", coco(["a.png", "gone.png"]))
    source.json("annotations/instances_val.json", coco(["b.png"]))
    source.text("annotations/instances_test.json", '{"images": [')
    result = read_coco(source.root, ReadOptions())
    assert [(r.name, r.split) for r in result.records] == [
        ("images/train/a.png", "train"),
        ("images/val/b.png", "val"),
    ]
    assert [(i.defect, i.name) for i in result.issues] == [
        (Defect.MISSING_IMAGE, "gone.png"),
        (Defect.BAD_ANNOTATION, "annotations/instances_test.json"),
        (Defect.NO_ANNOTATION, "images/val/extra.png"),
    ]


def test_image_in_two_split_files_counts_for_the_later(source):
    source.image("images/a.png")
    source.json("annotations/test.json", coco(["a.png"]))
    source.json("annotations/train.json", coco(["a.png"]))
    (record,) = read_coco(source.root, ReadOptions()).records
    assert record.split == "test"
    assert [i.defect for i in record.issues] == [Defect.LISTED_TWICE]


def test_roboflow_layout(source):
    source.image("train/a.png")
    source.image("valid/b.png")
    source.json("train/_annotations.coco.json", coco(["a.png"]))
    source.json("valid/_annotations.coco.json", coco(["b.png"]))
    result = read_coco(source.root, ReadOptions())
    assert [r.split for r in result.records] == ["train", "val"]


@pytest.mark.parametrize(
    ("text", "message"),
    [('{"images": [', "no complete JSON.*cut short"), ("[]", "no COCO file under")],
)
def test_nothing_readable_is_refused(source, text, message):
    source.text("annotations/all.json", text)
    with pytest.raises(DataError, match=message):
        read_coco(source.root, ReadOptions())


def test_one_flat_folder(source):
    source.image("a.png")
    source.json("labels.json", coco(["a.png"]))
    (record,) = read_coco(source.root, ReadOptions()).records
    assert (record.name, record.split, record.case_id) == ("a.png", None, "a")


def test_images_in_a_linked_folder_are_used_and_not_missed(source, tmp_path):
    source.image("images/a.png")
    (source.root / "images").rename(tmp_path / "elsewhere")
    (source.root / "images").symlink_to(tmp_path / "elsewhere")
    source.json("annotations/all.json", coco(["a.png"]))
    result = read_coco(source.root, ReadOptions())
    assert [record.name for record in result.records] == ["images/a.png"]
    assert result.issues == []


def test_names_are_found_and_doubtful_ones_reported(source):
    for name in ("my cell.PNG", "p1/x.png", "p2/x.png", "p2/only.png"):
        source.image(f"images/{name}")
    source.json(
        "annotations/all.json",
        coco(["my%20cell.png", "/home/me/x.png", "old/only.png", "p2/only.png"]),
    )
    result = read_coco(source.root, ReadOptions())
    assert [r.name for r in result.records] == ["images/my cell.PNG", "images/p2/only.png"]
    # another image's boxes are not put on the one that only shares its last name
    assert [(i.defect, i.name) for i in result.issues] == [
        (Defect.AMBIGUOUS, "/home/me/x.png"),
        (Defect.MISSING_IMAGE, "old/only.png"),
    ]
    assert "p1/x.png and " in str(result.issues[0])


def test_other_encodings_of_unicode_are_read_and_none_is_reported(source):
    source.image("images/a.png")
    path = source.json("annotations/all.json", coco(["a.png"]))
    text = path.read_text()
    path.write_text(text, encoding="utf-16")
    assert len(read_coco(source.root, ReadOptions()).records) == 1
    path.write_bytes(text.replace("chr1", "Größe").encode("latin-1"))
    with pytest.raises(DataError, match=r"all\.json is not in UTF-8: save it as UTF-8"):
        read_coco(source.root, ReadOptions())
