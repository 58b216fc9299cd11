"""LabelMe JSON: AutoKary2022's ``{train,test}_labelme/<patient>/*.json`` and the like."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from deepacc_d2.data.formats.coco import split_of_path
from deepacc_d2.data.formats.record import (
    IMAGE_SUFFIXES,
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
from deepacc_d2.files import read_json


def read_labelme(src: Path, options: ReadOptions) -> Source:
    """Reads every ``*.json`` that LabelMe wrote and the image that it names.

    A polygon becomes its bounding box and is kept as segmentation; a rectangle becomes a box. The
    parent folder is the case, and a folder ``train*``, ``val*`` or ``test*`` the official split.

    Raises:
        DataError: no JSON file under the source.
    """
    files = files_under(src, "*.json")
    if not files:
        raise DataError(
            f"no LabelMe file (*.json) under {src}: expected <split>_labelme/<patient>/*.json"
        )
    source = Source(records=[])
    find_case = case_rule(options)
    used: set[Path] = set()
    for path in progress(files, desc="annotations"):
        name = relative_name(path, src)
        try:
            content = read_json(path)
            shapes, image_path = content["shapes"], str(content.get("imagePath") or "")
        except DataError as error:
            source.issues.append(Issue(Defect.BAD_ANNOTATION, name, str(error)))
            continue
        except (TypeError, KeyError, AttributeError):
            source.issues.append(Issue(Defect.BAD_ANNOTATION, name, "no LabelMe file: no shapes"))
            continue
        image = _find_image(path, image_path)
        if image is None:
            detail = f"no image {image_path or path.stem} next to it"
            if content.get("imageData"):
                detail += "; it is embedded in the JSON: export it to a file with LabelMe"
            source.issues.append(Issue(Defect.MISSING_IMAGE, name, detail))
            continue
        used.add(image.resolve())
        record = ImageRecord(
            path=image,
            name=relative_name(image, src),
            width=_positive(content.get("imageWidth")),
            height=_positive(content.get("imageHeight")),
            split=split_of_path(path.relative_to(src).parent),
        )
        record.case_id, record.batch_id = find_case(record.name)
        for shape in shapes if isinstance(shapes, list) else []:
            _add_shape(record, shape)
        source.records.append(record)
    source.issues += [
        Issue(Defect.NO_ANNOTATION, relative_name(image, src))
        for image in image_files(src)
        if image.resolve() not in used
    ]
    source.case_rule = settle_cases(options, source.records)
    return source


def _find_image(path: Path, image_path: str) -> Path | None:
    """Returns the named image, which may have been moved beside the JSON since, or None."""
    named = image_path.replace("\\", "/")
    choices = [path.parent / named, path.parent / named.rsplit("/", 1)[-1]] if named else []
    choices += [path.with_suffix(suffix) for suffix in IMAGE_SUFFIXES]
    return next((choice for choice in choices if choice.is_file()), None)


def _add_shape(record: ImageRecord, shape: Any) -> None:
    try:
        label = str(shape["label"])
        points = [(float(x), float(y)) for x, y in shape["points"]]
        kind = str(shape.get("shape_type") or "polygon")
    except (TypeError, KeyError, ValueError, AttributeError):
        record.issues.append(Issue(Defect.BAD_SHAPE, record.name, "shape without label or points"))
        return
    rectangle = kind == "rectangle" and len(points) in (2, 4)
    if not rectangle and not (kind == "polygon" and len(points) >= 3):
        detail = f"{kind} of {len(points)} point(s), label {label}"
        record.issues.append(Issue(Defect.BAD_SHAPE, record.name, detail))
        return
    xs, ys = zip(*points, strict=True)
    outline = None if rectangle else [[value for point in points for value in point]]
    record.boxes.append(Box(label, (min(xs), min(ys), max(xs), max(ys)), outline))


def _positive(value: Any) -> int | None:
    return int(value) if isinstance(value, int | float) and value > 0 else None
