from __future__ import annotations

import math

import cv2
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


def chinese(encoding):
    text = f'<?xml version="1.0" encoding="{encoding}"?>\n<annotation><object><name>A1</name>'
    box = "<bndbox><xmin>2</xmin><ymin>3</ymin><xmax>22</xmax><ymax>13</ymax></bndbox>"
    return f"{text}<pose>染色体</pose>{box}</object></annotation>"


@pytest.mark.parametrize("encoding", ["GB2312", "gbk", "gb18030", "Big5", "UTF-8", "UTF-16"])
def test_declared_encodings_are_read(source, encoding):
    text = chinese(encoding).replace("染色体", "文" if encoding == "Big5" else "染色体")
    (source.root / "a.xml").write_bytes(text.encode(encoding))
    assert parse_voc_xml(source.root / "a.xml").boxes[0].xyxy == (2, 3, 22, 13)


def test_a_file_in_a_wrong_encoding_costs_that_file_alone(source):
    for stem in "abcd":
        source.image(f"{stem}.png")
        source.voc(f"{stem}.xml")
    (source.root / "b.xml").write_bytes(chinese("UTF-8").encode("gbk"))
    (source.root / "c.xml").write_bytes(chinese("no-such-codec").encode())
    (source.root / "d.xml").write_bytes(chinese("gb2312").encode("gbk") + b"\xff")
    result = read_voc(source.root, ReadOptions())
    assert [record.name for record in result.records] == ["a.png"]
    assert [(i.defect, i.name) for i in result.issues] == [
        (Defect.BAD_ANNOTATION, f"{stem}.xml") for stem in "bcd"
    ]


def test_a_list_in_another_encoding_is_reported(source):
    source.image("JPEGImages/a.png")
    source.voc("Annotations/a.xml")
    source.text("ImageSets/Main/train.txt", "a\n")
    (source.root / "ImageSets/Main/test.txt").write_bytes("Zelle_ü\n".encode("latin-1"))
    result = read_voc(source.root, ReadOptions())
    assert result.records[0].split == "train"
    assert [(i.defect, i.name) for i in result.issues] == [
        (Defect.BAD_LIST, "ImageSets/Main/test.txt")
    ]


def test_rotated_boxes_of_cvat_and_rolabelimg_and_polygons(source):
    turned = cv2.boxPoints(((30, 24), (20, 6), 30))
    around = (*turned.min(axis=0), *turned.max(axis=0))
    inner = "<attribute><name>rotation</name><value>{}</value></attribute>"
    rotation = f"<attributes>{inner}</attributes>"
    box = "<bndbox><xmin>20</xmin><ymin>21</ymin><xmax>40</xmax><ymax>27</ymax></bndbox>"
    robnd = "<robndbox><cx>30</cx><cy>24</cy><w>20</w><h>6</h><angle>{}</angle></robndbox>"
    points = "".join(f"<x{n}>{x}</x{n}><y{n}>{y}</y{n}>" for n, (x, y) in enumerate(turned, 1))
    objects = [
        box + rotation.format("30.0"),
        box + rotation.format("0"),
        robnd.format(math.radians(30)),
        f"<polygon>{points}</polygon>",
        box + rotation.format("inf"),
        robnd.format("inf"),
        "<polygon><x1>3</x1></polygon>",
    ]
    text = "".join(f"<object><name>A1</name>{own}</object>" for own in objects)
    voc = parse_voc_xml(source.text("a.xml", f"<annotation>{text}</annotation>"))
    expected = [around, (20, 21, 40, 27), around, around]
    for found, xyxy in zip(voc.boxes, expected, strict=True):
        assert found.xyxy == pytest.approx(xyxy, abs=1e-4)
    assert voc.unusable == ["A1"] * 3
    assert len(voc.enclosed) == 3


def test_one_name_of_several_images_is_told_unless_the_file_says_which(source):
    for name in ("a.png", "a.bmp", "b.jpg", "b.png", "c.PNG"):
        source.image(f"JPEGImages/{name}")
    for stem in "abC":
        source.voc(f"Annotations/{stem}.xml")  # its <filename> is <stem>.jpg
    result = read_voc(source.root, ReadOptions())
    names = sorted(record.name for record in result.records)
    assert names == ["JPEGImages/b.jpg", "JPEGImages/c.PNG"]
    assert [(i.defect, i.name) for i in result.issues] == [
        (Defect.AMBIGUOUS, "Annotations/a.xml"),
        (Defect.NO_ANNOTATION, "JPEGImages/b.png"),
    ]


def test_an_annotation_never_goes_to_another_folders_image(source):
    source.voc("p1/1.xml")
    source.voc("p2/1.xml")
    source.image("p2/1.png")
    result = read_voc(source.root, ReadOptions())
    assert [(r.name, len(r.boxes)) for r in result.records] == [("p2/1.png", 3)]
    assert [(i.defect, i.name) for i in result.issues] == [(Defect.MISSING_IMAGE, "p1/1.xml")]


def test_two_annotations_of_one_image_are_reported(source):
    source.voc("Annotations/p1/1.xml")
    source.voc("Annotations/p2/1.xml")
    source.image("JPEGImages/1.png")
    result = read_voc(source.root, ReadOptions())
    assert len(result.records) == 1
    assert [(i.defect, i.name) for i in result.issues] == [
        (Defect.DUPLICATE_IMAGE, "Annotations/p2/1.xml")
    ]


def test_names_with_blanks_in_lists(source):
    path = source.text("l.txt", "my cell 1.png\nmy cell 2 -1\nmy cell 3  1\n")
    assert read_list(path) == ["my cell 1", "my cell 2", "my cell 3"]
