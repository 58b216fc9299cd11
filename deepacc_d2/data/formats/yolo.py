"""YOLO txt: ``data.yaml`` with class names and splits, one label file an image.

A line is ``class x y w h``, centre and size as fractions of the image, or a polygon in fractions,
``class x1 y1 x2 y2 x3 y3 ...``. Where ``data.yaml`` has a ``kpt_shape``, keypoints follow the box.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from deepacc_d2.data.formats.coco_content import class_note
from deepacc_d2.data.formats.files import files_under, image_files, relative_name, several
from deepacc_d2.data.formats.record import (
    Box,
    Defect,
    ImageRecord,
    Issue,
    ReadOptions,
    Source,
    case_rule,
    progress,
    settle_cases,
)
from deepacc_d2.data.formats.yolo_config import class_names, keypoint_values, read_config, resolve
from deepacc_d2.errors import DataError
from deepacc_d2.images.read import read_size
from deepacc_d2.text import fold, read_text

# Beyond any box that sticks out of its image.
_MAX_FRACTION = 2.0
_SPLIT_KEYS = {"train": "train", "val": "val", "valid": "val", "test": "test"}


def read_yolo(src: Path, options: ReadOptions) -> Source:
    """Reads the images that ``data.yaml`` lists, or all under ``images/`` if it lists none.

    Raises:
        DataError: no ``data.yaml``, or one without class names.
    """
    config_path, config = read_config(src)
    names = class_names(config, config_path)
    keypoints = keypoint_values(config, config_path)
    source = Source(records=[], licence=str(config.get("license") or "unknown: ask the owner"))
    source.issues += class_note(
        {str(index): name for index, name in names.items()}, config_path.name, "indices"
    )
    find_case = case_rule(options)
    every = [p for p in image_files(src) if "labels" not in p.relative_to(src).parts[:-1]]
    splits, listed_twice = _splits(config, config_path, source, src, every)
    labels = _Labels(src)
    images = sorted({*every, *splits})
    annotates: dict[Path, list[Path]] = {}
    for image in images:
        label_file = labels.of(image)
        if label_file is not None:
            annotates.setdefault(label_file, []).append(image)
    for image in progress(images, desc="labels"):
        name = relative_name(image, src)
        label_file = labels.of(image)
        if label_file is None:
            source.issues.append(Issue(Defect.NO_ANNOTATION, name))
            continue
        if len(annotates[label_file]) > 1:
            detail = f"its label file {several(annotates[label_file])}"
            source.issues.append(Issue(Defect.AMBIGUOUS, name, detail))
            continue
        try:
            size = read_size(image)
        except DataError as error:
            # the shared check would say the same: without a size the fractions mean nothing
            source.issues.append(Issue(Defect.BAD_IMAGE, name, str(error)))
            continue
        record = ImageRecord(path=image, name=name, split=splits.get(image))
        record.case_id, record.batch_id = find_case(name)
        try:
            lines = read_text(label_file).splitlines()
        except DataError as error:
            source.issues.append(Issue(Defect.BAD_ANNOTATION, name, str(error)))
            continue
        for number, line in enumerate(lines, start=1):
            where = f"{label_file.name}:{number}"
            _add_line(record, line.strip(), names, size, keypoints=keypoints, where=where)
        if splits and image not in splits:
            record.issues.append(Issue(Defect.UNLISTED, name))
        if image in listed_twice:
            record.issues.append(Issue(Defect.LISTED_TWICE, name, listed_twice[image]))
        source.records.append(record)
    source.issues += [
        Issue(Defect.MISSING_IMAGE, relative_name(path, src), "label file without an image")
        for path in labels.paths
        if path not in annotates and path.stem != "classes"
    ]
    source.case_rule = settle_cases(options, source.records)
    return source


def _splits(
    config: dict[str, Any], config_path: Path, source: Source, src: Path, images: list[Path]
) -> tuple[dict[Path, str], dict[Path, str]]:
    """Returns the split of each image that is in one, and of those in two, which."""
    # by its own path, whatever way a list takes to it
    known = {path.resolve(): path for path in images}
    splits: dict[Path, str] = {}
    listed_twice: dict[Path, str] = {}
    for key, split in _SPLIT_KEYS.items():
        for listed in _listed(config.get(key), config, config_path, source, src):
            path = known.get(listed.resolve(), listed)
            if splits.get(path, split) != split:
                listed_twice[path] = f"in {splits[path]} and {split}"
            splits[path] = split
    return splits, listed_twice


def _listed(
    entry: Any, config: dict[str, Any], config_path: Path, source: Source, src: Path
) -> list[Path]:
    """Returns the images of a split: entry is a folder, a txt list, or a list of these."""
    found: list[Path] = []
    for item in entry if isinstance(entry, list) else [entry] if entry else []:
        path = resolve(str(item), config, config_path)
        if path is None:
            source.issues.append(Issue(Defect.MISSING_IMAGE, str(item), f"in {config_path.name}"))
        elif path.is_dir():
            found += image_files(path)
        elif path.suffix == ".txt":
            for line in _lines(path, source, src):
                if not line.strip():
                    continue
                image = resolve(line.strip(), config, config_path)
                if image is None:
                    detail = f"listed in {path.name}, no image file"
                    source.issues.append(Issue(Defect.MISSING_IMAGE, line.strip(), detail))
                else:
                    found.append(image)
    return found


class _Labels:
    """Label files by the path of the image, whatever its suffix and case.

    Attributes:
        paths: those in a folder ``labels``.
    """

    def __init__(self, src: Path) -> None:
        self.src = src
        files = files_under(src, ".txt")
        self.paths = [path for path in files if "labels" in path.relative_to(src).parts[:-1]]
        self._by_path: dict[str, list[Path]] = {}
        for path in files:
            self._by_path.setdefault(_key(relative_name(path, src)), []).append(path)

    def of(self, image: Path) -> Path | None:
        """Returns the label file of an image: in ``labels`` for ``images``, or next to it."""
        parts = list(relative_name(image, self.src).split("/"))
        choices = ["/".join(parts)]
        for place in range(len(parts) - 2, -1, -1):
            if parts[place].lower() == "images":
                choices.insert(0, "/".join([*parts[:place], "labels", *parts[place + 1 :]]))
                break
        else:
            choices.append("/".join(["labels", *parts]))
        for choice in choices:
            same = self._by_path.get(_key(choice), [])
            exact = [path for path in same if path.stem == image.stem]
            for found in (exact, same):
                if len(found) == 1:
                    return found[0]
        own = image.with_suffix(".txt")  # of an image outside the source
        return own if not image.is_relative_to(self.src) and own.is_file() else None


def _key(name: str) -> str:
    folder, _, last = name.rpartition("/")
    return fold(f"{folder}/{last.rsplit('.', 1)[0]}")


def _add_line(
    record: ImageRecord,
    line: str,
    names: dict[int, str],
    size: tuple[int, int],
    *,
    keypoints: int,
    where: str,
) -> None:
    if not line:
        return
    try:
        values = [float(word) for word in line.split()]
    except ValueError:
        values = []
    if keypoints and len(values) == 5 + keypoints:
        values = values[:5]
    polygon = not keypoints and len(values) >= 7 and len(values) % 2 == 1
    sound = np.isfinite(values).all() and (len(values) == 5 or polygon) and values[0] % 1 == 0
    # one with a corner far outside is cut; numbers of another kind would be pixels or percent
    if not sound or max(values[1:]) > _MAX_FRACTION:
        detail = f"{where}: {line[:40]!r}"
        if sound:
            detail += " are no fractions of the image (0 to 1)"
        record.issues.append(Issue(Defect.BAD_SHAPE, record.name, detail))
        return
    label = names.get(int(values[0]), f"index {int(values[0])}")
    scaled = np.array(values[1:]).reshape(-1, 2) * np.array(size)
    if polygon:
        (left, top), (right, bottom) = scaled.min(axis=0).tolist(), scaled.max(axis=0).tolist()
        outline = [scaled.ravel().tolist()]
        record.boxes.append(Box(label, (left, top, right, bottom), outline))
        return
    centre, extent = scaled
    low, high = (centre - extent / 2).tolist(), (centre + extent / 2).tolist()
    # the fractions are rounded in the file: a hair outside the image is no defect
    edges = [_snap(low[0], size[0]), _snap(low[1], size[1])]
    edges += [_snap(high[0], size[0]), _snap(high[1], size[1])]
    record.boxes.append(Box(label, (edges[0], edges[1], edges[2], edges[3])))


def _snap(value: float, limit: int) -> float:
    for edge in (0.0, float(limit)):
        if abs(value - edge) < 0.02:
            return edge
    return value


def _lines(path: Path, source: Source, src: Path) -> list[str]:
    """Returns the lines of a list of images; one that cannot be read is an issue of the source."""
    try:
        return read_text(path).split("\n")
    except DataError as error:
        source.issues.append(Issue(Defect.BAD_LIST, relative_name(path, src), str(error)))
        return []
