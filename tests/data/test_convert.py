from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from deepacc_d2.chromosomes import coco_categories
from deepacc_d2.data import convert as convert_module
from deepacc_d2.data.coco import fingerprint, load_coco_split, load_dataset_info
from deepacc_d2.data.convert import convert, main
from deepacc_d2.data.dataset import read_split, to_dicts
from deepacc_d2.data.mapper import MetaphaseMapper
from deepacc_d2.data.splits import SPLITS
from deepacc_d2.data.validate import Check, validate
from deepacc_d2.errors import ConfigError, DataError, UserError, run_cli
from deepacc_d2.images.read import read_image

JPEG = "24_chromosomes_object/JEPG"
XML = "24_chromosomes_object/annotations"


def found(report, key):
    entry = report["defects"].get(key, {"found": []})
    return [Path(issue["name"]).name for issue in entry["found"]]


def names_by_split(root):
    return {s: [i["file_name"] for i in load_coco_split(root, s)["images"]] for s in SPLITS}


def test_layout_and_content(tseng_source, tmp_path):
    out = tmp_path / "new" / "set"
    report = convert("tseng2023", tseng_source.root, out)
    assert sorted(p.name for p in out.iterdir()) == [
        "annotations",
        "contact_sheet.png",
        "dataset.json",
        "images",
        "report.json",
        "report.md",
    ]
    info = load_dataset_info(out)
    assert info["counts"] == {"train": 12, "val": 4, "test": 4}
    assert info["fingerprint"] == fingerprint(out)
    assert info["split"]["method"] == "case"
    assert report["defects"] == {}
    names = names_by_split(out)
    cases = {s: {name[:6] for name in own} for s, own in names.items()}
    assert sum(map(len, cases.values())) == 10
    for name in itertools.chain(*names.values()):
        original = (tseng_source.root / JPEG / name).read_bytes()
        assert (out / "images" / name).read_bytes() == original
    image = load_coco_split(out, "train")["images"][0]
    assert (image["width"], image["height"], image["batch_id"]) == (64, 48, None)
    assert image["case_id"] == image["file_name"][:6]
    assert validate(out)[0].check.key == "odd_count"


def test_gray_statistics_are_those_of_the_train_images(tseng_source, tmp_path):
    out = tmp_path / "out"
    convert("tseng2023", tseng_source.root, out)
    info = load_dataset_info(out)
    pixels = np.stack(
        [cv2.imread(str(out / "images" / n), 0) for n in names_by_split(out)["train"]]
    )
    assert info["pixel_mean"][0] == pytest.approx(pixels.mean(), abs=1e-3)
    assert info["pixel_std"][0] == pytest.approx(pixels.std(), abs=1e-3)


def test_pycocotools_loads_and_scores_it(tseng_source, tmp_path):
    convert("tseng2023", tseng_source.root, tmp_path / "out")
    coco = COCO(str(tmp_path / "out" / "annotations" / "train.json"))
    assert coco.loadCats(coco.getCatIds()) == coco_categories()
    truth = coco.loadAnns(coco.getAnnIds())
    assert len(truth) == 36
    keys = ("image_id", "category_id", "bbox")
    results = coco.loadRes([{**{k: a[k] for k in keys}, "score": 0.9} for a in truth])
    evaluation = COCOeval(coco, results, "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    assert evaluation.stats[0] == pytest.approx(1.0)


def test_repeats_to_the_byte_and_ignores_the_lists_by_default(tseng_source, tmp_path):
    first = convert("tseng2023", tseng_source.root, tmp_path / "a")["dataset"]["fingerprint"]
    (tseng_source.root / "test.txt").write_text("")
    again = convert("tseng2023", tseng_source.root, tmp_path / "b")
    assert again["dataset"]["fingerprint"] == first
    assert len(found(again, "unlisted")) == 6
    other = convert("tseng2023", tseng_source.root, tmp_path / "c", seed=1)
    assert other["dataset"]["fingerprint"] != first


def test_own_output_can_be_read_back_as_coco(tseng_source, tmp_path):
    convert("tseng2023", tseng_source.root, tmp_path / "a")
    report = convert("coco", tmp_path / "a", tmp_path / "b", split="official")
    assert report["defects"] == {}
    assert names_by_split(tmp_path / "a") == names_by_split(tmp_path / "b")
    for split in SPLITS:
        a, b = (load_coco_split(tmp_path / x, split)["annotations"] for x in "ab")
        assert a == b


def test_every_image_defect_skips_that_image_and_is_reported(tseng_source, tmp_path):
    root = tseng_source.root
    (root / JPEG / "1050001.jpg").write_bytes(b"")
    cut = root / JPEG / "1050002.jpg"
    cut.write_bytes(cut.read_bytes()[:-400])
    tseng_source.voc(f"{XML}/1050011.xml", size=(48, 64))
    tseng_source.voc(f"{XML}/1050012.xml", [("A9", (1, 2, 9, 9)), ("A1", (5, 5, 5, 9))])
    tseng_source.text(f"{XML}/1050021.xml", "<annotation><size>")
    shutil.copy(root / JPEG / "1050091.jpg", root / JPEG / "1050092.jpg")
    (root / JPEG / "1050032.jpg").unlink()
    boxes = [("A1", (-1, 0, 9, 9)), ("A1", (70, 0, 90, 9)), ("Y", (60, 40, 90, 44))]
    tseng_source.voc(f"{XML}/1050041.xml", boxes)
    report = convert("tseng2023", root, tmp_path / "out")
    assert {key: found(report, key) for key in report["defects"]} == {
        "bad_image": ["1050001.jpg", "1050002.jpg"],
        "size_mismatch": ["1050011.jpg"],
        "unknown_class": ["1050012.jpg"],
        "box_no_area": ["1050012.jpg"],
        "no_boxes": ["1050012.jpg"],
        "bad_annotation": ["1050021.xml"],
        "duplicate_image": ["1050092.jpg"],
        "missing_image": ["1050032"],
        "box_clamped": ["1050041.jpg"],
        "box_outside": ["1050041.jpg"],
        "box_cut": ["1050041.jpg"],
    }
    assert sum(load_dataset_info(tmp_path / "out")["counts"].values()) == 20 - 7
    assert report["images"] == {"used": 13, "skipped": 7}
    assert not [f for f in validate(tmp_path / "out") if f.check.fatal]


def test_official_split_keeps_the_test_list(tseng_source, tmp_path):
    root = tseng_source.root
    stems = [line.strip() for line in (root / "test.txt").open()]
    tseng_source.tseng(["1060001"])  # in no list
    shutil.copy(root / JPEG / "1050071.jpg", root / JPEG / "1050001.jpg")  # test image in train
    with (root / "test.txt").open("a") as file:
        file.write("1050011\n")  # in train.txt too; its case stays in train with 1050012
    report = convert("tseng2023", root, tmp_path / "out", split="official")
    names = names_by_split(tmp_path / "out")
    assert sorted(names["test"]) == sorted(f"{s}.jpg" for s in [*stems, "1050011"])
    assert (len(names["train"]), len(names["val"])) == (9, 3)
    assert found(report, "in_two_splits") == ["1050001.jpg"]
    assert found(report, "listed_twice") == ["1050011.jpg"]
    assert found(report, "not_in_split") == ["1060001.jpg"]
    assert [i["name"] for i in report["defects"]["case_in_two_splits"]["found"]] == ["case 105001"]
    assert not [f for f in validate(tmp_path / "out") if f.check.fatal]


def test_official_split_without_lists_is_refused(source, tmp_path):
    source.image("a.png")
    source.voc("a.xml")
    with pytest.raises(DataError, match="no official train list: use --split case"):
        convert("voc", source.root, tmp_path / "out", split="official")


def test_same_file_names_in_folders_stay_apart(source, tmp_path):
    for patient in range(5):
        source.image(f"p{patient}/1.png")
        source.voc(f"p{patient}/1.xml")
    convert("voc", source.root, tmp_path / "out")
    names = itertools.chain(*names_by_split(tmp_path / "out").values())
    assert sorted(names) == [f"p{n}__1.png" for n in range(5)]


@pytest.mark.parametrize("fmt", ["yolo", "labelme"])
def test_other_formats_end_in_a_sound_set(source, tmp_path, fmt):
    source.text("data.yaml", "names: ['1', '2', '3']\n")
    for number in range(6):
        source.image(f"images/p{number}/{number}.png")
        source.text(f"labels/p{number}/{number}.txt", "2 0.5 0.5 0.25 0.5\n")
        points = [[24, 12], [40, 12], [40, 36], [24, 36]]
        shapes = [{"label": "3", "points": points}, {"label": "-1", "points": points}]
        value = {"imagePath": f"{number}.png", "imageWidth": 64, "imageHeight": 48}
        source.json(f"images/p{number}/{number}.json", {**value, "shapes": shapes})
    report = convert(fmt, source.root, tmp_path / "out")
    assert len(found(report, "unknown_class")) == (6 if fmt == "labelme" else 0)
    assert not [f for f in validate(tmp_path / "out") if f.check.fatal]
    annotations = load_coco_split(tmp_path / "out", "train")["annotations"]
    assert [a["category_id"] for a in annotations] == [3] * len(annotations)
    assert annotations[0]["bbox"] == pytest.approx([24, 12, 16, 24])
    corners = [24, 12, 40, 12, 40, 36, 24, 36]
    assert annotations[0]["segmentation"] == [pytest.approx(corners)]
    cases = {i["case_id"] for i in load_coco_split(tmp_path / "out", "train")["images"]}
    assert cases < {f"p{n}" for n in range(6)}


def test_strict_stops_at_a_defect_and_leaves_nothing(tseng_source, tmp_path):
    tseng_source.voc(f"{XML}/1050041.xml", [("A1", (-1, 0, 9, 9))])
    message = r"--strict: .*1050041.jpg: box \(-1, 0, 9, 9\) of A1 sticks out by 1 px"
    with pytest.raises(DataError, match=message):
        convert("tseng2023", tseng_source.root, tmp_path / "out", strict=True)
    assert [p.name for p in tmp_path.iterdir()] == ["src"]


@pytest.mark.parametrize(
    ("label", "message"),
    [("nucleus", r"unknown class names everywhere .*'nucleus'.*expected 1\.\.22"), ("A1", None)],
)
def test_nothing_usable_is_one_clear_line(source, tmp_path, label, message):
    for stem in ("1050001", "1050011"):
        source.image(f"{JPEG}/{stem}.jpg")
        box = (1, 2, 9, 9) if message else (70, 2, 90, 9)
        source.voc(f"{XML}/{stem}.xml", [(label, box)])
    with pytest.raises(DataError, match=message or "no usable image in .*outside") as caught:
        convert("tseng2023", source.root, tmp_path / "out")
    assert "\n" not in str(caught.value)


def test_empty_source_is_refused(source, tmp_path):
    for folder in (JPEG, XML):
        (source.root / folder).mkdir(parents=True)
    with pytest.raises(DataError, match=r"no image found under .*in the format tseng2023"):
        convert("tseng2023", source.root, tmp_path / "out")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fmt": "pascal"}, "unknown FORMAT 'pascal': expected one of tseng2023, voc, coco"),
        ({"split": "random"}, "unknown split 'random': expected case or official"),
        ({"ratios": "3"}, "expected train:val:test such as 3:1:1"),
        ({"src": "nowhere"}, "source directory .*nowhere does not exist"),
        ({"out": "src/inside"}, "overlap: choose an OUT outside"),
        ({"out": "."}, "overlap: choose an OUT outside"),
        ({"out": "file/out"}, "cannot write to .*choose another OUT"),
        ({"out": "full"}, "exists: choose another, or add --overwrite"),
        ({"out": "full", "overwrite": True}, "no converted data set, so --overwrite spares it"),
    ],
)
def test_bad_options_are_refused(tseng_source, tmp_path, options, message):
    (tmp_path / "file").touch()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").touch()
    values = {"fmt": "tseng2023", "src": "src", "out": "out", **options}
    fmt, src, out = values.pop("fmt"), values.pop("src"), values.pop("out")
    with pytest.raises(UserError, match=message):
        convert(fmt, tmp_path / src, tmp_path / out, **values)
    assert (tmp_path / "full" / "thesis.tex").exists()
    assert not (tmp_path / "out").exists()


def test_overwrite_replaces_a_data_set_whole(tseng_source, tmp_path):
    out = tmp_path / "out"
    convert("tseng2023", tseng_source.root, out)
    (out / "images" / "old.jpg").touch()
    with pytest.raises(ConfigError, match="--overwrite"):
        convert("tseng2023", tseng_source.root, out)
    convert("tseng2023", tseng_source.root, out, overwrite=True)
    assert not (out / "images" / "old.jpg").exists()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out", "src"]


@pytest.mark.parametrize("stop", [KeyboardInterrupt, OSError("disk full")])
def test_interrupted_conversion_leaves_nothing_and_spares_the_old_set(
    tseng_source, tmp_path, monkeypatch, stop
):
    out = tmp_path / "out"
    convert("tseng2023", tseng_source.root, out)
    before = fingerprint(out)

    def fail(*_: object) -> None:
        raise stop

    monkeypatch.setattr(convert_module, "write_contact_sheet", fail)
    expected = KeyboardInterrupt if stop is KeyboardInterrupt else ConfigError
    with pytest.raises(expected, match=None if expected is KeyboardInterrupt else "disk full"):
        convert("tseng2023", tseng_source.root, out, overwrite=True)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out", "src"]
    assert fingerprint(out) == before


def test_command_line_prints_the_report(tseng_source, tmp_path, capsys):
    out = tmp_path / "out"
    arguments = ["--format", "tseng2023", "--src", str(tseng_source.root), "--out", str(out)]
    assert main([*arguments, "--ratios", "8:1:1"]) == 0
    printed = capsys.readouterr().out
    for text in ("ratios 8:1:1", "no defects", f"written to {out}", "class"):
        assert text in printed
    assert json.loads((out / "dataset.json").read_text())["counts"]["train"] == 16


def test_command_line_error_is_one_line_and_status_2(tmp_path, capsys):
    arguments = ["--format", "voc", "--src", str(tmp_path / "none"), "--out", str(tmp_path / "out")]
    with pytest.raises(SystemExit) as caught:
        run_cli(lambda: main(arguments))
    assert caught.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("error: source directory")
    assert error.count("\n") == 1


def test_module_runs_as_a_program(tseng_source, tmp_path):
    arguments = ["--format", "tseng2023", "--src", str(tseng_source.root)]
    command = [sys.executable, "-m", "deepacc_d2.data.convert", *arguments]
    done = subprocess.run(
        [*command, "--out", str(tmp_path / "out")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "Boxes per class" in done.stdout


@pytest.mark.skipif("DEEPACC_TSENG2023" not in os.environ, reason="DEEPACC_TSENG2023 is not set")
def test_published_images_become_a_sound_set(tmp_path):
    report = convert("tseng2023", os.environ["DEEPACC_TSENG2023"], tmp_path / "out")
    assert report["splits"]["train"]["images"] > 0
    assert validate(tmp_path / "out") == []


def _turned_cell(path: Path, level: int = 200) -> tuple[int, int, int, int]:
    """Writes a picture that is stored lying and shown upright; returns its dark box as shown."""
    shown = np.full((64, 48), level, dtype=np.uint8)
    shown[50:60, 5:20] = 30
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise by 90 degrees
    stored = Image.fromarray(np.rot90(shown))
    assert stored.size == (64, 48)
    stored.save(path, exif=exif)
    return 5, 50, 20, 60


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif", ".webp"])
def test_boxes_are_of_the_picture_as_its_orientation_shows_it(source, tmp_path, suffix):
    (source.root / "images").mkdir()
    files, annotations = [], []
    for number in range(1, 6):
        name = f"c{number}{suffix}"
        # Of different levels: equal pictures would be dropped.
        x0, y0, x1, y1 = _turned_cell(source.root / "images" / name, 200 + 5 * number)
        files.append({"id": number, "file_name": name, "width": 48, "height": 64})
        bbox = [x0, y0, x1 - x0, y1 - y0]
        annotations.append({"id": number, "image_id": number, "category_id": 1, "bbox": bbox})
    content = {"images": files, "annotations": annotations, "categories": coco_categories()}
    source.json("annotations/instances.json", content)
    out = tmp_path / "out"
    report = convert("coco", source.root, out)
    assert len(found(report, "turned")) == 5
    assert not [f for f in validate(out) if f.check.fatal]
    for item in to_dicts(read_split(out, "train"), out):
        seen = MetaphaseMapper([], is_train=True)(item)
        x0, y0, x1, y1 = seen["instances"].gt_boxes.tensor[0].int().tolist()
        pixels = seen["image"][0].numpy()
        np.testing.assert_array_equal(pixels, read_image(item["file_name"]).gray)
        assert pixels[y0:y1, x0:x1].mean() < 45
        assert np.delete(pixels, np.s_[y0:y1], axis=0).mean() > 190


def test_boxes_of_the_stored_picture_are_refused_with_the_fix(source, tmp_path):
    (source.root / "images").mkdir()
    _turned_cell(source.root / "images" / "a.jpg")
    image = {"id": 1, "file_name": "a.jpg", "width": 64, "height": 48}
    box = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [5, 5, 10, 10]}
    content = {"images": [image], "annotations": [box], "categories": coco_categories()}
    source.json("annotations/instances.json", content)
    with pytest.raises(DataError, match=r"EXIF orientation turns it: annotate it as shown"):
        convert("coco", source.root, tmp_path / "out")


def test_a_picture_without_contrast_or_levels_is_noted(tseng_source, tmp_path):
    folder = tseng_source.root / JPEG
    flat, few = sorted(folder.iterdir())[:2]
    Image.fromarray(np.full((48, 64), 90, dtype=np.uint8)).save(flat, quality=95)
    ladder = np.repeat(np.arange(8, dtype=np.uint8)[:, None] * 32, 6, axis=0)
    Image.fromarray(np.repeat(ladder, 64, axis=1)).save(few, format="PNG")
    out = tmp_path / "out"
    report = convert("tseng2023", tseng_source.root, out)
    details = [issue["detail"] for issue in report["defects"]["poor_image"]["found"]]
    assert details == ["no contrast (gray levels 90 to 90)", "only 8 gray levels"]
    poor = [f for f in validate(out) if f.check is Check.POOR_IMAGE]
    assert sorted(f.detail for f in poor) == details
    assert not any(f.check.fatal for f in validate(out))


def coco_source(source, names, bbox=(4, 5, 10, 20), **more):
    images = []
    for number, name in enumerate(names):
        source.image(f"images/{name}")
        images.append({"id": number, "file_name": name, "width": 64, "height": 48})
    annotations = [
        {"id": n, "image_id": n, "category_id": 1, "bbox": list(bbox), **more}
        for n in range(len(names))
    ]
    categories = [{"id": 1, "name": "1"}]
    value = {"images": images, "annotations": annotations, "categories": categories}
    source.json("annotations/all.json", value)


def test_relative_coordinates_are_refused_and_said(source, tmp_path):
    coco_source(source, [f"{n}.png" for n in range(6)], bbox=(0.1, 0.2, 0.3, 0.4))
    with pytest.raises(DataError, match=r"box under a pixel.*\(6 times\).*relative coordinates"):
        convert("coco", source.root, tmp_path / "out")


def test_drawing_and_annotation_tools_find_what_they_need(source, tmp_path):
    """pycocotools draws the set: showAnns refuses annotations without an outline."""
    plt = pytest.importorskip("matplotlib.pyplot")
    plt.switch_backend("agg")
    coco_source(source, [f"p{n}/{n}.png" for n in range(5)], iscrowd=1)
    report = convert("coco", source.root, tmp_path / "out")
    assert report["defects"]["crowd"]["count"] == 5
    coco = COCO(str(tmp_path / "out" / "annotations" / "train.json"))
    axes = plt.figure().gca()
    for image in coco.loadImgs(coco.getImgIds()):
        assert not Path(image["file_name"]).is_absolute()
        assert (tmp_path / "out" / "images" / image["file_name"]).is_file()
        annotations = coco.loadAnns(coco.getAnnIds(imgIds=[image["id"]]))
        coco.showAnns(annotations)
        for annotation in annotations:
            assert annotation["iscrowd"] == 0
            # the outline is the box: its mask covers it
            x, y, w, h = annotation["bbox"]
            mask = coco.annToMask(annotation)
            assert mask[int(y) : int(y + h), int(x) : int(x + w)].all()
            assert mask.sum() == annotation["area"] == w * h
    polygons = [c for c in axes.collections if c.get_paths()]
    assert sum(len(c.get_paths()) for c in polygons) == 2 * len(coco.getAnnIds())
    plt.close("all")


def test_copies_of_one_image_share_a_split(source, tmp_path):
    hashes = [f"{n:032x}"[::-1] for n in range(4)]
    names = [f"cell{n}_jpg.rf.{text}.png" for n in range(6) for text in hashes]
    coco_source(source, names)
    report = convert("coco", source.root, tmp_path / "out")
    names_of = names_by_split(tmp_path / "out")
    assert sum(len({name.split("_jpg")[0] for name in own}) for own in names_of.values()) == 6
    assert report["defects"]["copies"]["count"] == 24
    assert "24 copies of 6 image(s)" in report["dataset"]["split"]["cases"]


def test_same_pixels_in_another_file_format_are_one_image(source, tmp_path):
    coco_source(source, [f"{n}.png" for n in range(4)] + ["copy.bmp"])
    pixels = cv2.imread(str(source.root / "images/0.png"), cv2.IMREAD_GRAYSCALE)
    cv2.imwrite(str(source.root / "images/copy.bmp"), pixels)
    report = convert("coco", source.root, tmp_path / "out")
    (issue,) = report["defects"]["duplicate_image"]["found"]
    assert issue == {"name": "images/copy.bmp", "detail": "same pixels as images/0.png"}
    shutil.copy(source.root / "images/copy.bmp", tmp_path / "out/images")
    assert "stray_file" in [f.check.key for f in validate(tmp_path / "out")]


def test_a_file_name_that_is_no_utf8_costs_that_file_alone(source, tmp_path, capsys):
    for n in range(4):
        source.image(f"{n}.png")
        source.voc(f"{n}.xml")
    odd = os.fsdecode(b"caf\xe9")
    source.image(f"{odd}.png")
    source.voc("odd.xml").rename(source.root / f"{odd}.xml")
    source.image(os.fsdecode(b"na\xefve.png"))  # without an annotation
    report = convert("voc", source.root, tmp_path / "out")
    assert report["dataset"]["counts"] == {"train": 2, "val": 1, "test": 1}
    assert found(report, "bad_name") == [r"caf\xe9.png"]
    assert found(report, "no_annotation") == [r"na\xefve.png"]
    assert json.loads((tmp_path / "out" / "report.json").read_text()) == report
    arguments = ["--format", "voc", "--src", str(source.root), "--out", str(tmp_path / "b")]
    with pytest.raises(SystemExit) as caught:
        run_cli(lambda: main([*arguments, "--strict"]))
    assert caught.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_what_a_json_says_of_a_case_may_be_no_text_either(source, tmp_path):
    coco_source(source, [f"{n}.png" for n in range(4)])
    path = source.root / "annotations/all.json"
    value = json.loads(path.read_text())
    for n, image in enumerate(value["images"]):
        image["case_id"] = f"\ud800{n}"
    source.json("annotations/all.json", value)
    convert("coco", source.root, tmp_path / "out")
    assert [f for f in validate(tmp_path / "out") if f.check.fatal] == []
    cases = {i["case_id"] for s in SPLITS for i in load_coco_split(tmp_path / "out", s)["images"]}
    assert cases == {f"\ud800{n}" for n in range(4)}
