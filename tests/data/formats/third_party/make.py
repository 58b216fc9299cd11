"""Writes this folder's files with the libraries of the tools themselves.

Each in an environment of its own, from this folder::

    pip install labelme && python make.py labelme
    pip install supervision && python make.py supervision
    pip install datumaro && python make.py datumaro
    pip install label-studio-sdk && python make.py label_studio

``versions.json`` says which releases wrote the files that are here. Each set is about one image of
64x48 pixels, ``cell.png``, with the shapes below; images are not kept, the test draws its own.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
SIZE = (64, 48)
# Label, and left, top, right, bottom.
BOXES = (("1", (4, 5, 24, 13)), ("X", (30, 20, 44, 40)))
# Label, the same of the box before it is turned about its center, and degrees clockwise.
TURNED = ("2", (42, 9, 58, 15), 30.0)
NAMES = [*map(str, range(1, 23)), "X", "Y"]


def image(folder: Path) -> Path:
    """Writes the image."""
    from PIL import Image

    folder.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(0).integers(0, 255, (SIZE[1], SIZE[0]), dtype=np.uint8)
    Image.fromarray(pixels).convert("RGB").save(folder / "cell.png")
    return folder / "cell.png"


def corners() -> list[list[float]]:
    """Returns the corners of the turned box."""
    _, (left, top, right, bottom), degrees = TURNED
    center = np.array([(left + right) / 2, (top + bottom) / 2])
    cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    points = np.array([[left, top], [right, top], [right, bottom], [left, bottom]]) - center
    return (points @ np.array([[cos, sin], [-sin, cos]]) + center).tolist()


def labelme(out: Path) -> None:
    """All that has an area: rectangle, polygon, mask, oriented rectangle; two parts of a group."""
    import base64
    import io

    from labelme._label_file import write_label_file
    from PIL import Image

    def shape(label: str, kind: str, points: list, **more: object) -> dict:
        base = {"label": label, "points": points, "group_id": None, "description": ""}
        return {**base, "shape_type": kind, "flags": {}, "mask": None, **more}

    (one, (a, b, c, d)), (x, (e, f, g, h)) = BOXES
    file = io.BytesIO()
    Image.fromarray(np.full((d - b, c - a), 255, dtype=np.uint8)).save(file, "PNG")
    mask = base64.b64encode(file.getvalue()).decode()
    upper, lower = [[e, f], [g, f], [g, 28]], [[e, 30], [g, h], [e, h]]
    shapes = [
        # LabelMe's own mask: its last row and column are those of the second point
        shape(one, "mask", [[a, b], [c - 1, d - 1]], mask=mask),
        shape(x, "polygon", upper, group_id=3),
        shape(x, "polygon", lower, group_id=3),
        shape(TURNED[0], "oriented_rectangle", corners()),
    ]
    out.mkdir(exist_ok=True)
    write_label_file(
        str(out / "cell.json"),
        shapes=shapes,
        image_path="cell.png",
        image_height=SIZE[1],
        image_width=SIZE[0],
    )


def supervision(out: Path) -> None:
    """COCO, Pascal VOC and YOLO, of upright boxes."""
    import supervision as sv

    with tempfile.TemporaryDirectory() as temporary:
        path = str(image(Path(temporary)))
        boxes = np.array([box for _, box in BOXES], dtype=np.float32)
        classes = np.array([NAMES.index(name) for name, _ in BOXES])
        found = sv.Detections(xyxy=boxes, class_id=classes)
        dataset = sv.DetectionDataset(NAMES, images=[path], annotations={path: found})
        (out / "coco").mkdir(parents=True, exist_ok=True)
        dataset.as_coco(annotations_path=str(out / "coco" / "annotations.json"))
        dataset.as_pascal_voc(annotations_directory_path=str(out / "voc"))
        dataset.as_yolo(
            annotations_directory_path=str(out / "yolo" / "labels"),
            data_yaml_path=str(out / "yolo" / "data.yaml"),
        )


def datumaro(out: Path) -> None:
    """COCO, Pascal VOC and YOLO as CVAT exports them, which does it by Datumaro."""
    import datumaro as dm

    with tempfile.TemporaryDirectory() as temporary:
        media = dm.Image.from_file(str(image(Path(temporary))))
        own = [
            dm.Bbox(a, b, c - a, d - b, label=NAMES.index(name), id=n, group=n)
            for n, (name, (a, b, c, d)) in enumerate(BOXES, 1)
        ]
        name, (a, b, c, d), degrees = TURNED
        attributes = {"rotation": degrees, "occluded": False}
        turned = dm.Bbox(
            *(a, b, c - a, d - b), label=NAMES.index(name), id=3, group=3, attributes=attributes
        )
        item = dm.DatasetItem("cell", subset="train", media=media, annotations=[*own, turned])
        dataset = dm.Dataset.from_iterable([item], categories=NAMES)
        # YOLO has no turned boxes, and Datumaro writes them as if they were upright.
        upright = dm.Dataset.from_iterable([item.wrap(annotations=own)], categories=NAMES)
        for fmt in ("coco_instances", "voc_detection", "yolo"):
            folder = Path(temporary) / fmt
            (upright if fmt == "yolo" else dataset).export(str(folder), fmt, save_media=False)
            for path in folder.rglob("*"):
                if path.is_file() and path.suffix != ".png":
                    target = out / fmt / path.relative_to(folder)
                    target.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(path, target)


def label_studio(out: Path) -> None:
    """COCO, Pascal VOC and YOLO, of upright boxes: its exports are wrong for turned ones."""
    from label_studio_sdk.converter import Converter

    labels = "".join(f'<Label value="{name}"/>' for name in NAMES)
    config = (
        '<View><Image name="img" value="$image"/><RectangleLabels name="box" toName="img">'
        f"{labels}</RectangleLabels></View>"
    )
    width, height = SIZE

    def result(name: str, box: tuple[float, ...]) -> dict:
        left, top, right, bottom = box
        value = {
            **{"x": 100 * left / width, "y": 100 * top / height},
            **{"width": 100 * (right - left) / width, "height": 100 * (bottom - top) / height},
            **{"rotation": 0, "rectanglelabels": [name]},
        }
        names = {"from_name": "box", "to_name": "img", "type": "rectanglelabels"}
        sizes = {"original_width": width, "original_height": height, "image_rotation": 0}
        return {"id": name, **names, **sizes, "value": value}

    results = [result(name, box) for name, box in BOXES]
    task = {
        "id": 1,
        "data": {"image": "/data/upload/1/0a1b2c3d-cell.png"},
        "annotations": [{"id": 1, "result": results}],
    }
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        image(root).rename(root / "0a1b2c3d-cell.png")
        (root / "tasks.json").write_text(json.dumps([task]))
        converter = Converter(config, str(root), upload_dir=str(root), download_resources=False)
        for fmt in ("coco", "voc", "yolo"):
            folder = root / fmt
            getattr(converter, f"convert_to_{fmt}")(
                str(root / "tasks.json"), str(folder), is_dir=False
            )
            for path in folder.rglob("*"):
                if path.is_file() and path.suffix != ".png":
                    target = out / fmt / path.relative_to(folder)
                    target.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(path, target)


def note_version(what: str, package: str) -> None:
    """Notes which release of a package ``wrote`` these files, or ``read`` ours."""
    path = HERE / "versions.json"
    versions = json.loads(path.read_text())
    versions.setdefault(what, {})[package] = version(package)
    sound = {key: dict(sorted(versions[key].items())) for key in sorted(versions)}
    path.write_text(json.dumps(sound, indent=1) + "\n")


PACKAGES = {
    "labelme": "labelme",
    "supervision": "supervision",
    "datumaro": "datumaro",
    "label_studio": "label-studio-sdk",
}

if __name__ == "__main__":
    tool = sys.argv[1]
    shutil.rmtree(HERE / tool, ignore_errors=True)
    globals()[tool](HERE / tool)
    note_version("wrote", PACKAGES[tool])
