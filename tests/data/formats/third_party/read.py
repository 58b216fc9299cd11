"""Reads a COCO file of ours with the libraries of annotation tools, and compares the boxes.

Each in an environment of its own, from this folder::

    pip install pycocotools matplotlib && python read.py pycocotools
    pip install supervision && python read.py supervision
    pip install datumaro && python read.py datumaro
    pip install label-studio-sdk && python read.py label_studio
    pip install fiftyone && python read.py fiftyone

``versions.json`` says which releases have read the file that is here. CVAT imports COCO by
Datumaro. ``ours/train.json`` is what ``make data`` makes of ``labelme/``.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from make import BOXES, HERE, NAMES, SIZE, TURNED, corners, image, note_version

OURS = HERE / "ours" / "train.json"
Boxes = dict[str, tuple[float, ...]]


def expected() -> Boxes:
    """Returns left, top, right and bottom of the boxes of ``make.py``, by label."""
    xs, ys = zip(*corners(), strict=True)
    return {**dict(BOXES), TURNED[0]: (min(xs), min(ys), max(xs), max(ys))}


def xyxy(left: float, top: float, width: float, height: float) -> tuple[float, ...]:
    """Returns a box by its corners."""
    return left, top, left + width, top + height


def pycocotools(root: Path) -> Boxes:
    """Draws it, too."""
    import matplotlib.pyplot as plt
    from pycocotools.coco import COCO

    plt.switch_backend("agg")
    coco = COCO(str(OURS))
    plt.figure().gca()
    coco.showAnns(coco.loadAnns(coco.getAnnIds()))
    assert all(coco.annToMask(a).any() for a in coco.dataset["annotations"])
    return {coco.cats[a["category_id"]]["name"]: xyxy(*a["bbox"]) for a in coco.anns.values()}


def supervision(root: Path) -> Boxes:
    import supervision as sv

    dataset = sv.DetectionDataset.from_coco(
        images_directory_path=str(root), annotations_path=str(OURS)
    )
    ((_, _, found),) = list(dataset)
    names = (dataset.classes[number] for number in found.class_id)
    return {name: tuple(map(float, box)) for name, box in zip(names, found.xyxy, strict=True)}


def datumaro(root: Path) -> Boxes:
    """By its boxes, which must be those around its polygons: CVAT shows these."""
    import datumaro as dm

    (root / "annotations").mkdir()
    (root / "annotations" / "instances_train.json").write_bytes(OURS.read_bytes())
    image(root / "images" / "train")
    dataset = dm.Dataset.import_from(str(root), "coco")
    names = [label.name for label in dataset.categories()[dm.AnnotationType.label]]
    (item,) = list(dataset)
    boxes: Boxes = {}
    outlines: Boxes = {}
    for one in item.annotations:
        found = {dm.Bbox: boxes, dm.Polygon: outlines}[type(one)]
        name, box = names[one.label], xyxy(*one.get_bbox())
        found[name] = _around(found.get(name, box), box)
    assert boxes == outlines
    return boxes


def _around(one: tuple[float, ...], other: tuple[float, ...]) -> tuple[float, ...]:
    (a, b, c, d), (e, f, g, h) = one, other
    return min(a, e), min(b, f), max(c, g), max(d, h)


def label_studio(root: Path) -> Boxes:
    """By its importer, which makes tasks of it."""
    from label_studio_sdk.converter.imports.coco import convert_coco_to_ls

    out = root / "tasks.json"
    convert_coco_to_ls(str(OURS), str(out), image_root_url="/data/local-files/?d=images")
    (task,) = json.loads(out.read_text())
    assert task["data"]["image"].endswith("cell.png")
    found: Boxes = {}
    for result in task["annotations"][0]["result"]:
        value: dict[str, Any] = result["value"]
        if "rectanglelabels" in value:
            numbers = (value["x"], value["y"], value["width"], value["height"])
            scales = (SIZE[0] / 100, SIZE[1] / 100) * 2
            found[value["rectanglelabels"][0]] = xyxy(
                *(n * s for n, s in zip(numbers, scales, strict=True))
            )
    return found


def fiftyone(root: Path) -> Boxes:
    """By its importer alone, without its database."""
    os.environ["FIFTYONE_DISABLE_SERVICES"] = "1"
    from fiftyone.utils.coco import COCODetectionDatasetImporter

    importer = COCODetectionDatasetImporter(
        data_path=str(root), labels_path=str(OURS), label_types=["detections"]
    )
    with importer:
        ((path, metadata, label),) = list(importer)
    assert (Path(path).name, metadata.width, metadata.height) == ("cell.png", *SIZE)
    scales = SIZE * 2
    return {
        one.label: xyxy(*(n * s for n, s in zip(one.bounding_box, scales, strict=True)))
        for one in label.detections
    }


PACKAGES = {
    "pycocotools": "pycocotools",
    "supervision": "supervision",
    "datumaro": "datumaro",
    "label_studio": "label-studio-sdk",
    "fiftyone": "fiftyone",
}

if __name__ == "__main__":
    tool = sys.argv[1]
    with tempfile.TemporaryDirectory() as temporary:
        image(Path(temporary))
        found = globals()[tool](Path(temporary))
    wanted = expected()
    assert found.keys() == wanted.keys(), found
    assert set(found) <= set(NAMES)
    for name, box in wanted.items():
        off = max(abs(a - b) for a, b in zip(found[name], box, strict=True))
        assert off < 0.01, f"{name}: {found[name]}, not {box}"
    print(f"{tool}: {len(found)} boxes are the same")
    note_version("read", PACKAGES[tool])
