"""LabelMe JSON: AutoKary2022's ``{train,test}_labelme/<patient>/*.json`` and the like."""

from __future__ import annotations

from pathlib import Path

from deepacc_d2.data.formats.coco import split_of_path
from deepacc_d2.data.formats.files import (
    AmbiguousNameError,
    FileIndex,
    files_under,
    image_files,
    relative_name,
)
from deepacc_d2.data.formats.labelme_shapes import add_shapes
from deepacc_d2.data.formats.record import (
    Defect,
    ImageRecord,
    Issue,
    ReadOptions,
    Source,
    case_rule,
    positive,
    progress,
    settle_cases,
)
from deepacc_d2.errors import DataError
from deepacc_d2.files import read_json
from deepacc_d2.text import fold


def read_labelme(src: Path, options: ReadOptions) -> Source:
    """Reads every ``*.json`` that LabelMe wrote and the image that it names.

    Polygons, rotated rectangles, circles and masks become their bounding boxes and are kept as
    segmentation; shapes of one label and one group are one chromosome. The parent folder is the
    case, and a folder ``train*``, ``val*`` or ``test*`` the official split.

    Raises:
        DataError: no JSON file under the source.
    """
    files = files_under(src, ".json")
    if not files:
        raise DataError(
            f"no LabelMe file (*.json) under {src}: expected <split>_labelme/<patient>/*.json"
        )
    source = Source(records=[])
    find_case = case_rule(options)
    images = image_files(src)
    index = FileIndex(images, src)
    used: dict[Path, str] = {}
    for path in progress(files, desc="annotations"):
        name = relative_name(path, src)
        try:
            content = read_json(path, unique_keys=True)
            shapes, image_path = content["shapes"], str(content.get("imagePath") or "")
        except DataError as error:
            source.issues.append(Issue(Defect.BAD_ANNOTATION, name, str(error)))
            continue
        except (TypeError, KeyError, AttributeError):
            source.issues.append(Issue(Defect.BAD_ANNOTATION, name, "no LabelMe file: no shapes"))
            continue
        try:
            image = _find_image(path, image_path, index)
        except AmbiguousNameError as error:
            used |= {image.resolve(): name for image in error.paths}
            source.issues.append(Issue(Defect.AMBIGUOUS, name, str(error)))
            continue
        if image is None:
            detail = f"no image {image_path or path.stem} next to it"
            if content.get("imageData"):
                detail += "; it is embedded in the JSON: export it to a file with LabelMe"
            source.issues.append(Issue(Defect.MISSING_IMAGE, name, detail))
            continue
        first = used.setdefault(image.resolve(), name)
        if first != name:
            detail = f"annotates {relative_name(image, src)}, as {first} does, which counts"
            source.issues.append(Issue(Defect.DUPLICATE_IMAGE, name, detail))
            continue
        record = ImageRecord(
            path=image,
            name=relative_name(image, src),
            width=positive(content.get("imageWidth")),
            height=positive(content.get("imageHeight")),
            split=split_of_path(path.relative_to(src).parent),
        )
        record.case_id, record.batch_id = find_case(record.name)
        add_shapes(record, shapes)
        source.records.append(record)
    source.issues += [
        Issue(Defect.NO_ANNOTATION, relative_name(image, src))
        for image in images
        if image.resolve() not in used
    ]
    source.case_rule = settle_cases(options, source.records)
    return source


def _find_image(path: Path, image_path: str, index: FileIndex) -> Path | None:
    """Returns the named image, which may have been moved next to the JSON since, or None.

    Raises:
        AmbiguousNameError: several images fit.
    """
    named = image_path.replace("\\", "/")
    if named:
        for text in dict.fromkeys([named, named.rsplit("/", 1)[-1]]):
            found = index.find_in(text, [path.parent])
            if found is not None:
                return found
    stem = fold(path.stem)
    same = [p for p in index.in_folder(path.parent) if fold(p.stem) == stem]
    if len(same) > 1:
        raise AmbiguousNameError(same)
    return same[0] if same else None
