"""COCO JSON, one file or one per split, with the images anywhere near it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from deepacc_d2.data.formats.coco_content import (
    box_of,
    category_names,
    check_corners,
    check_image_ids,
    class_note,
    id_key,
)
from deepacc_d2.data.formats.files import (
    AmbiguousNameError,
    FileIndex,
    files_under,
    image_files,
    relative_name,
)
from deepacc_d2.data.formats.record import (
    CaseRule,
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

    Ids match whether they are numbers or text.

    Raises:
        DataError: no COCO file under the source; an id that names two images or two classes;
            boxes that are written as corners.
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
            coco = read_json(path, unique_keys=True)
        except DataError as error:
            broken.append(Issue(Defect.BAD_ANNOTATION, relative_name(path, src), str(error)))
            continue
        if not _is_coco(coco):
            continue
        recognized += 1
        check_image_ids(coco, path)
        check_corners(coco, path)
        source.licence = _licence(coco) or source.licence
        source.issues += class_note(category_names(coco, path), path.name, "ids")
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
    source.issues += [
        Issue(Defect.NO_ANNOTATION, relative_name(p, src))
        for p in found.paths
        if p.resolve() not in found.named
    ]
    rules = [] if len(by_name) == len(source.records) else ["by the field case_id"]
    rules += [settle_cases(options, by_name)] if by_name else []
    source.case_rule = ", else ".join(rules)
    return source


def split_of_path(path: Path) -> str | None:
    """Returns the split that a relative path names, from its file name up, else None."""
    for part in reversed(path.with_suffix("").parts if path.name else ()):
        for word in part.lower().replace("-", "_").replace(".", "_").split("_"):
            name = _SPLIT_NAMES.get(word.rstrip("0123456789"))
            if name:
                return name
    return None


class _Images:
    """Finds image files by the names that COCO files give them.

    Attributes:
        paths: all there are.
        named: of them the ones that were asked for, or that a name was not clear about, resolved.
    """

    def __init__(self, src: Path) -> None:
        self.src = src
        # what an earlier conversion drew is no image of the data
        self.paths = [path for path in image_files(src) if path.name != "contact_sheet.png"]
        self.named: set[Path] = set()
        self._index = FileIndex(self.paths, src)

    def claimed(self, coco: dict[str, Any], json_path: Path) -> set[Path]:
        """Returns the images, resolved, that a COCO file names with their folder."""
        found: set[Path] = set()
        for image in coco["images"]:
            name = image.get("file_name") if isinstance(image, dict) else None
            if isinstance(name, str):
                with suppress(AmbiguousNameError):
                    path = self._index.find_in(name, self._folders(json_path))
                    found |= {path.resolve()} if path is not None else set()
        return found

    def _folders(self, json_path: Path) -> list[Path]:
        split = split_of_path(json_path.relative_to(self.src)) or ""
        folders = [json_path.parent]
        folders += [self.src / "images" / split, self.src / split] if split else []
        folders += [self.src / json_path.stem.split("_")[-1], self.src / "images", self.src]
        return folders

    def find(self, file_name: str, json_path: Path, claimed: set[Path]) -> Path | None:
        """Returns the image that a COCO file means.

        Raises:
            AmbiguousNameError: several fit.
        """
        try:
            path = self._index.find(file_name, self._folders(json_path), claimed)
        except AmbiguousNameError as error:
            self.named |= {path.resolve() for path in error.paths}
            raise
        if path is not None:
            self.named.add(path.resolve())
        return path


def _candidates(src: Path) -> list[Path]:
    files = files_under(src, ".json")
    own = [path for path in files if path.parent == src / "annotations"]
    return own or [path for path in files if len(path.relative_to(src).parts) <= 2]


def _is_coco(value: Any) -> bool:
    return isinstance(value, dict) and all(
        isinstance(value.get(key), list) for key in ("images", "annotations", "categories")
    )


def _records(
    coco: dict[str, Any], path: Path, found: _Images, find_case: CaseRule
) -> Iterator[tuple[ImageRecord | None, list[Issue]]]:
    """Yields each image's record, None where it is unusable, and the issues that go with None."""
    names = category_names(coco, path)
    by_image: dict[str | None, list[dict[str, Any]]] = {}
    for annotation in coco["annotations"]:
        if isinstance(annotation, dict):
            by_image.setdefault(id_key(annotation.get("image_id")), []).append(annotation)
    claimed = found.claimed(coco, path)
    nobodys = by_image.pop(None, [])
    for image in progress(coco["images"], desc=path.name):
        if not isinstance(image, dict) or not isinstance(image.get("file_name"), str):
            yield None, [Issue(Defect.BAD_ANNOTATION, path.name, "image without file_name")]
            continue
        own = by_image.pop(id_key(image.get("id")), [])
        try:
            file = found.find(image["file_name"], path, claimed)
        except AmbiguousNameError as error:
            yield None, [Issue(Defect.AMBIGUOUS, image["file_name"], str(error))]
            continue
        if file is None:
            detail = f"in {path.name}, no such file"
            yield None, [Issue(Defect.MISSING_IMAGE, image["file_name"], detail)]
            continue
        name = relative_name(file, found.src)
        yield _record(image, own, names, file=file, name=name, find_case=find_case), []
    if nobodys:
        by_image[None] = nobodys
    for image_id, orphans in by_image.items():
        detail = f"{len(orphans)} annotation(s) of image_id {image_id}, which is not in the file"
        yield None, [Issue(Defect.MISSING_IMAGE, f"{path.name} image_id {image_id}", detail)]


def _record(
    image: dict[str, Any],
    annotations: list[dict[str, Any]],
    names: dict[str, str],
    *,
    file: Path,
    name: str,
    find_case: CaseRule,
) -> ImageRecord:
    case, batch = find_case(name)
    record = ImageRecord(
        path=file,
        name=name,
        width=positive(image.get("width")),
        height=positive(image.get("height")),
        case_id=case,
        batch_id=str(image["batch_id"]) if image.get("batch_id") is not None else batch,
        extra={key: image[key] for key in _KEPT_FIELDS if image.get(key) is not None},
    )
    if image.get("case_id") is not None:
        record.extra["case_id"] = str(image["case_id"])
    for annotation in annotations:
        category = id_key(annotation.get("category_id"))
        label = names.get(category or "", f"category_id {category}")
        box, notes = box_of(annotation, label)
        record.issues += [Issue(defect, name, detail) for defect, detail in notes]
        if box is not None:
            record.boxes.append(box)
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


def _licence(coco: dict[str, Any]) -> str | None:
    licences = coco.get("licenses")
    if not isinstance(licences, list):
        return None
    names = [
        str(entry["name"]) for entry in licences if isinstance(entry, dict) and "name" in entry
    ]
    return ", ".join(names) or None
