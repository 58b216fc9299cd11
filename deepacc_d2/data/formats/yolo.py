"""YOLO txt: ``data.yaml`` with class names and splits, one label file an image.

A line is ``class x y w h``, centre and size as fractions of the image, or a polygon in fractions,
``class x1 y1 x2 y2 x3 y3 ...``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import yaml

from deepacc_d2.data.formats.record import (
    Box,
    Defect,
    ImageRecord,
    Issue,
    ReadOptions,
    Source,
    case_rule,
    files_under,
    image_files,
    progress,
    relative_name,
    settle_cases,
)
from deepacc_d2.errors import DataError
from deepacc_d2.images.read import read_size

_SPLIT_KEYS = {"train": "train", "val": "val", "valid": "val", "test": "test"}


def read_yolo(src: Path, options: ReadOptions) -> Source:
    """Reads the images that ``data.yaml`` lists, or all under ``images/`` if it lists none.

    Raises:
        DataError: no ``data.yaml``, or one without class names.
    """
    config_path, config = _config(src)
    names = _names(config, config_path)
    source = Source(records=[], licence=str(config.get("license") or "unknown: ask the owner"))
    find_case = case_rule(options)
    splits: dict[Path, str] = {}
    listed_twice: dict[Path, str] = {}
    for key, split in _SPLIT_KEYS.items():
        for path in _listed(config.get(key), config, config_path, source, src):
            if splits.get(path, split) != split:
                listed_twice[path] = f"in {splits[path]} and {split}"
            splits[path] = split
    every = [path for path in image_files(src) if "labels" not in path.parts]
    for image in progress(sorted({*every, *splits}), desc="labels"):
        name = relative_name(image, src)
        label_file = _label_file(image, src)
        if label_file is None:
            source.issues.append(Issue(Defect.NO_ANNOTATION, name))
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
            text = label_file.read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            source.issues.append(Issue(Defect.BAD_ANNOTATION, name, str(error)))
            continue
        for number, line in enumerate(text.splitlines(), start=1):
            if line.strip():
                _add_line(record, line, names, size, where=f"{label_file.name}:{number}")
        if splits and image not in splits:
            record.issues.append(Issue(Defect.UNLISTED, name))
        if image in listed_twice:
            record.issues.append(Issue(Defect.LISTED_TWICE, name, listed_twice[image]))
        source.records.append(record)
    _find_orphans(source, src, every)
    source.case_rule = settle_cases(options, source.records)
    return source


def _config(src: Path) -> tuple[Path, dict[str, Any]]:
    paths = [src / name for name in ("data.yaml", "data.yml", "dataset.yaml")]
    path = next((path for path in paths if path.is_file()), None)
    if path is None:
        raise DataError(f"{paths[0]} is missing: FORMAT=yolo needs it for the names of the classes")
    try:
        config = yaml.safe_load(path.read_text(encoding="utf-8-sig"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise DataError(f"{path} is no valid YAML ({' '.join(str(error).split())})") from None
    if not isinstance(config, dict):
        raise DataError(f"{path} must map names, train, val and test")
    return path, config


def _names(config: dict[str, Any], path: Path) -> dict[int, str]:
    names = config.get("names")
    if isinstance(names, list):
        return {index: str(name) for index, name in enumerate(names)}
    if isinstance(names, dict) and names:
        try:
            return {int(index): str(name) for index, name in names.items()}
        except (TypeError, ValueError):
            pass
    raise DataError(f"{path} has no list 'names': FORMAT=yolo needs the names of the classes")


def _listed(
    entry: Any, config: dict[str, Any], config_path: Path, source: Source, src: Path
) -> list[Path]:
    """Returns the images of a split: entry is a folder, a txt list, or a list of these."""
    found: list[Path] = []
    for item in entry if isinstance(entry, list) else [entry] if entry else []:
        path = _resolve(str(item), config, config_path)
        if path is None:
            source.issues.append(Issue(Defect.MISSING_IMAGE, str(item), f"in {config_path.name}"))
        elif path.is_dir():
            found += image_files(path)
        elif path.suffix == ".txt":
            for line in path.read_text(encoding="utf-8-sig").split("\n"):
                if not line.strip():
                    continue
                image = _resolve(line.strip(), config, config_path)
                if image is None:
                    detail = f"listed in {path.name}, no image file"
                    source.issues.append(Issue(Defect.MISSING_IMAGE, line.strip(), detail))
                else:
                    found.append(image)
    base = src.resolve()
    # as under src, so that the same image found by walking src has the same path
    return [
        src / path.resolve().relative_to(base) if path.resolve().is_relative_to(base) else path
        for path in found
    ]


def _resolve(text: str, config: dict[str, Any], config_path: Path) -> Path | None:
    """Finds a path of data.yaml, which tools write relative to ``path`` or to the YAML file."""
    here = config_path.parent
    text = text.replace("\\", "/")
    # Roboflow writes ../train/images though the folder lies beside the YAML file
    bases = [here / str(config.get("path") or ""), here]
    tries = [base / text for base in bases] + [here / text.removeprefix("../")]
    return next((path for path in tries if path.exists()), None)


def _label_file(image: Path, src: Path) -> Path | None:
    """Returns the label file: in ``labels`` where the path says ``images``, or beside the image."""
    parts = list(relative_name(image, src).split("/"))
    choices = [image.with_suffix(".txt")]
    for place in range(len(parts) - 2, -1, -1):
        if parts[place] == "images":
            swapped = [*parts[:place], "labels", *parts[place + 1 :]]
            choices.insert(0, src.joinpath(*swapped).with_suffix(".txt"))
            break
    else:
        choices.append((src / "labels").joinpath(*parts).with_suffix(".txt"))
    return next((path for path in choices if path.is_file()), None)


def _add_line(
    record: ImageRecord, line: str, names: dict[int, str], size: tuple[int, int], *, where: str
) -> None:
    try:
        values = [float(word) for word in line.split()]
    except ValueError:
        values = []
    polygon = len(values) >= 7 and len(values) % 2 == 1
    if not np.isfinite(values).all() or (len(values) != 5 and not polygon):
        record.issues.append(
            Issue(Defect.BAD_SHAPE, record.name, f"{where}: {line.strip()[:40]!r}")
        )
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


def _find_orphans(source: Source, src: Path, images: list[Path]) -> None:
    """Notes label files without an image."""
    stems = {path.stem for path in images} | {"classes"}
    for path in files_under(src, "*.txt"):
        name = relative_name(path, src)
        if "labels" in name.split("/")[:-1] and path.stem not in stems:
            source.issues.append(Issue(Defect.MISSING_IMAGE, name, "label file without an image"))
