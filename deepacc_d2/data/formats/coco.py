"""COCO JSON, one file or one per split, with the images anywhere near it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from deepacc_d2.data.formats.record import (
    Box,
    CaseRule,
    Defect,
    ImageRecord,
    Issue,
    ReadOptions,
    Source,
    case_rule,
    image_files,
    progress,
    relative_name,
    settle_cases,
)
from deepacc_d2.errors import DataError
from deepacc_d2.files import read_json

# Further fields of an image that mean something here and are kept.
_KEPT_FIELDS = ("abnormality", "karyotype", "stain", "resolution")
_SPLIT_NAMES = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}


def read_coco(src: Path, options: ReadOptions) -> Source:
    """Reads ``annotations/*.json``, ``*.json`` or ``<split>/*.json`` and the images they name.

    A file whose name or folder says train, val or test (``instances_train2017.json``,
    ``valid/_annotations.coco.json``) gives the official split. The case of an image is found by
    ``case_regex`` if given, else its field ``case_id``, else its parent folder.

    Raises:
        DataError: no COCO file under the source.
    """
    files = [path for path in _candidates(src) if path.name not in ("dataset.json", "report.json")]
    source = Source(records=[])
    find_case = case_rule(options)
    found = _Images(src)
    broken: list[Issue] = []
    recognized = 0
    by_name: list[ImageRecord] = []
    by_path: dict[Path, ImageRecord] = {}
    for path in files:
        try:
            coco = read_json(path)
        except DataError as error:
            broken.append(Issue(Defect.BAD_ANNOTATION, relative_name(path, src), str(error)))
            continue
        if not _is_coco(coco):
            continue
        recognized += 1
        source.licence = _licence(coco) or source.licence
        split = split_of_path(path.relative_to(src))
        for record, issues in _records(coco, path, found, find_case):
            source.issues += issues
            if record is None:
                continue
            field = record.extra.pop("case_id", None)
            if field is None or options.case_regex is not None:
                by_name.append(record)
            else:
                record.case_id = field
            record.split = split
            earlier = by_path.get(record.path)
            if earlier is None:
                by_path[record.path] = record
                source.records.append(record)
            else:
                _merge(earlier, record)
    if not recognized:
        if broken:
            raise DataError(broken[0].detail)
        raise DataError(
            f"no COCO file under {src}: expected annotations/*.json with the lists images, "
            "annotations and categories"
        )
    source.issues += broken
    used = {record.path for record in source.records}
    source.issues += [
        Issue(Defect.NO_ANNOTATION, relative_name(p, src)) for p in found.paths if p not in used
    ]
    rules = [] if len(by_name) == len(source.records) else ["by the field case_id"]
    rules += [settle_cases(options, by_name)] if by_name else []
    source.case_rule = ", else ".join(rules)
    return source


def split_of_path(path: Path) -> str | None:
    """Returns the split that a relative path names, from its file name up, else None."""
    for part in reversed(path.with_suffix("").parts):
        for word in part.lower().replace("-", "_").replace(".", "_").split("_"):
            name = _SPLIT_NAMES.get(word.rstrip("0123456789"))
            if name:
                return name
    return None


class _Images:
    """Finds image files by the names that COCO files give them."""

    def __init__(self, src: Path) -> None:
        self.src = src
        self.paths = image_files(src)
        # what an earlier conversion drew is no image of the data
        self.paths = [path for path in self.paths if path.name != "contact_sheet.png"]
        self._by_name: dict[str, list[Path]] = {}
        for path in self.paths:
            self._by_name.setdefault(path.name, []).append(path)

    def find(self, file_name: str, beside: Path) -> Path | None:
        file_name = file_name.replace("\\", "/")
        split = split_of_path(beside.relative_to(self.src)) or ""
        folders = [beside.parent, self.src / "images", self.src, self.src / split]
        folders += [self.src / "images" / split, self.src / beside.stem.split("_")[-1]]
        for folder in folders:
            if (folder / file_name).is_file():
                return folder / file_name
        same = self._by_name.get(file_name.rsplit("/", 1)[-1], [])
        return same[0] if len(same) == 1 else None


def _candidates(src: Path) -> list[Path]:
    if (src / "annotations").is_dir():
        return sorted((src / "annotations").glob("*.json"))
    return sorted({*src.glob("*.json"), *src.glob("*/*.json")})


def _is_coco(value: Any) -> bool:
    return isinstance(value, dict) and all(
        isinstance(value.get(key), list) for key in ("images", "annotations", "categories")
    )


def _records(
    coco: dict[str, Any], path: Path, found: _Images, find_case: CaseRule
) -> Iterator[tuple[ImageRecord | None, list[Issue]]]:
    """Yields each image's record, None where it is unusable, and the issues that go with None."""
    names = {c["id"]: str(c.get("name", c["id"])) for c in coco["categories"] if "id" in c}
    by_image: dict[Any, list[dict[str, Any]]] = {}
    for annotation in coco["annotations"]:
        if isinstance(annotation, dict):
            by_image.setdefault(annotation.get("image_id"), []).append(annotation)
    for image in progress(coco["images"], desc=path.name):
        if not isinstance(image, dict) or not isinstance(image.get("file_name"), str):
            yield None, [Issue(Defect.BAD_ANNOTATION, path.name, "image without file_name")]
            continue
        own = by_image.pop(image.get("id"), [])
        file = found.find(image["file_name"], path)
        if file is None:
            detail = f"in {path.name}, no such file"
            yield None, [Issue(Defect.MISSING_IMAGE, image["file_name"], detail)]
            continue
        name = relative_name(file, found.src)
        yield _record(image, own, names, file=file, name=name, find_case=find_case), []
    for image_id, orphans in by_image.items():
        detail = f"{len(orphans)} annotation(s) of image_id {image_id}, which is not in the file"
        yield None, [Issue(Defect.MISSING_IMAGE, f"{path.name} image_id {image_id}", detail)]


def _record(
    image: dict[str, Any],
    annotations: list[dict[str, Any]],
    names: dict[Any, str],
    *,
    file: Path,
    name: str,
    find_case: CaseRule,
) -> ImageRecord:
    case, batch = find_case(name)
    record = ImageRecord(
        path=file,
        name=name,
        width=_positive(image.get("width")),
        height=_positive(image.get("height")),
        case_id=case,
        batch_id=str(image["batch_id"]) if image.get("batch_id") is not None else batch,
        extra={key: image[key] for key in _KEPT_FIELDS if image.get(key) is not None},
    )
    if image.get("case_id") is not None:
        record.extra["case_id"] = str(image["case_id"])
    for annotation in annotations:
        category = annotation.get("category_id")
        label = names.get(category, f"category_id {category}")
        try:
            x, y, width, height = (float(value) for value in annotation["bbox"])
        except (KeyError, TypeError, ValueError):
            record.issues.append(Issue(Defect.BAD_SHAPE, name, f"{label} without bbox"))
            continue
        if annotation.get("iscrowd"):
            record.issues.append(Issue(Defect.BAD_SHAPE, name, f"{label} is a crowd region"))
            continue
        box = (x, y, x + width, y + height)
        record.boxes.append(Box(label, box, _segmentation(annotation.get("segmentation"))))
    return record


def _merge(earlier: ImageRecord, later: ImageRecord) -> None:
    """One image in two COCO files: the later split counts, as test comes after train."""
    order = ("train", "val", "test")
    detail = f"in {earlier.split or 'one file'} and {later.split or 'another'}"
    if earlier.split != later.split and None not in (earlier.split, later.split):
        earlier.split = max(earlier.split or "", later.split or "", key=order.index)
        earlier.issues.append(Issue(Defect.LISTED_TWICE, earlier.name, detail))
    else:
        earlier.issues.append(Issue(Defect.DUPLICATE_IMAGE, earlier.name, detail))


def _segmentation(value: Any) -> Any:
    """Returns polygons with whole points, or an RLE as it is, or None."""
    if isinstance(value, dict):
        return value
    if not isinstance(value, list):
        return None
    polygons = [p for p in value if isinstance(p, list) and len(p) >= 6 and len(p) % 2 == 0]
    return polygons or None


def _positive(value: Any) -> int | None:
    return int(value) if isinstance(value, int | float) and value > 0 else None


def _licence(coco: dict[str, Any]) -> str | None:
    licences = coco.get("licenses")
    if not isinstance(licences, list):
        return None
    names = [
        str(entry["name"]) for entry in licences if isinstance(entry, dict) and "name" in entry
    ]
    return ", ".join(names) or None
