from __future__ import annotations

import pytest

from deepacc_d2.data.formats import Defect, ReadOptions, read_voc
from deepacc_d2.data.formats.voc import parse_voc_xml, read_list
from deepacc_d2.errors import DataError


def test_coordinates_are_pixel_edges_by_default(source):
    path = source.voc("a.xml", [("A1", (2, 3, 22, 13))])
    voc = parse_voc_xml(path)
    assert (voc.width, voc.height, voc.filename) == (64, 48, "a.jpg")
    assert voc.boxes[0].xyxy == (2, 3, 22, 13)


def test_one_based_inclusive_box_of_the_whole_image_is_the_whole_image(source):
    path = source.voc("a.xml", [("A1", (1, 1, 64, 48))])
    assert parse_voc_xml(path, one_based=True).boxes[0].xyxy == (0, 0, 64, 48)


def test_object_without_box_is_counted_and_others_kept(source):
    path = source.voc("a.xml")
    path.write_text(path.read_text().replace("<xmin>2</xmin>", ""))
    voc = parse_voc_xml(path)
    assert voc.unusable == ["A1"]
    assert [box.label for box in voc.boxes] == ["C6", "X"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "XML unreadable"),
        ("<annotation><object><name>A1</na", "XML unreadable"),
        ("<html></html>", "no <annotation>"),
        ("<annotation><size><width>wide</width></size></annotation>", "'wide', not a number"),
        (
            '<!DOCTYPE a [<!ENTITY b "ha"><!ENTITY c "&b;&b;">]><annotation>&c;</annotation>',
            "XML unreadable",
        ),
    ],
)
def test_broken_xml_is_named(source, text, message):
    with pytest.raises(DataError, match=message):
        parse_voc_xml(source.text("a.xml", text))


def test_lists_may_hold_paths_suffixes_and_flags(source):
    path = source.text("l.txt", "a\nsub/b.jpg\n\nc -1\r\nd.1\n")
    assert read_list(path) == ["a", "b", "c", "d.1"]


def test_classic_layout_with_official_split(source):
    for stem in ("a", "b", "c", "d"):
        source.image(f"JPEGImages/{stem}.png")
        source.voc(f"Annotations/{stem}.xml")
    source.image("JPEGImages/lonely.png")
    source.voc("Annotations/gone.xml")
    source.text("Annotations/cut.xml", "<annotation>")
    source.image("JPEGImages/cut.png")
    source.text("ImageSets/Main/train.txt", "a\nb\nnowhere\n")
    source.text("ImageSets/Main/test.txt", "b\nc\n")
    result = read_voc(source.root, ReadOptions())
    splits = {record.path.stem: record.split for record in result.records}
    assert splits == {"a": "train", "b": "test", "c": "test", "d": None}
    issues = {(i.defect, i.name) for i in result.issues}
    assert issues == {
        (Defect.NO_ANNOTATION, "JPEGImages/lonely.png"),
        (Defect.MISSING_IMAGE, "Annotations/gone.xml"),
        (Defect.MISSING_IMAGE, "nowhere"),
        (Defect.BAD_ANNOTATION, "cut.xml"),
    }
    own = {record.path.stem: [i.defect for i in record.issues] for record in result.records}
    assert own == {"a": [], "b": [Defect.LISTED_TWICE], "c": [], "d": [Defect.UNLISTED]}


def test_xml_beside_images_in_patient_folders(source):
    for patient in ("p1", "p2"):
        source.image(f"{patient}/1.png")
        source.voc(f"{patient}/1.xml")
    result = read_voc(source.root, ReadOptions())
    assert [(r.name, r.case_id) for r in result.records] == [("p1/1.png", "p1"), ("p2/1.png", "p2")]
    assert result.case_rule == "by parent folder"


def test_no_xml_is_refused(source):
    source.image("a.png")
    with pytest.raises(
        DataError, match=r"no VOC annotation.*expected Annotations/ and JPEGImages/"
    ):
        read_voc(source.root, ReadOptions())
