"""Pascal VOC: one XML an image, ``ImageSets/Main`` for the official split."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from xml.etree.ElementTree import Element, ParseError

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import fromstring

from deepacc_d2.data.formats.coco import split_of_path
from deepacc_d2.data.formats.files import (
    AmbiguousNameError,
    files_under,
    image_files,
    relative_name,
)
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
from deepacc_d2.data.formats.voc_objects import decode_xml, object_box
from deepacc_d2.data.splits import SPLITS
from deepacc_d2.errors import DataError
from deepacc_d2.text import fold, read_text

_IMAGE_FOLDERS = ("JPEGImages", "images", "Images", "JEPG")
_XML_FOLDERS = ("Annotations", "annotations")


@dataclass(frozen=True, slots=True)
class VocAnnotation:
    """The content of a VOC file that matters here; sizes in px."""

    filename: str
    width: int | None
    height: int | None
    boxes: list[Box]
    unusable: list[str]
    enclosed: list[str]


def parse_voc_xml(path: Path, *, one_based: bool = False) -> VocAnnotation:
    """Reads one VOC XML file.

    VOC itself counts pixels from 1 and includes the last one. Today's annotation tools write pixel
    edges from 0 instead, and so do Tseng et al. 2023: over their 78,150 boxes the coordinates run
    from -1 to width + 1, one pixel past the image on either side, where inclusive 1-based ones
    would run from 0 to width + 1. Hence the default takes the numbers as edges, as they are.

    Args:
        path: the XML file.
        one_based: the numbers are 1-based and inclusive: subtract one from the mins.

    Raises:
        DataError: the file is empty, cut short, no VOC annotation or has a malformed size.
    """
    try:
        root = fromstring(decode_xml(path.read_bytes()))
    except (ParseError, DefusedXmlException, ValueError, LookupError) as error:
        raise DataError(f"XML unreadable ({error})") from None
    if root is None or root.tag != "annotation":
        raise DataError("no <annotation> at the root of the XML")
    boxes: list[Box] = []
    unusable: list[str] = []
    enclosed: list[str] = []
    for obj in root.iter("object"):
        label = (obj.findtext("name") or "").strip()
        box, note = object_box(obj, label, shift=1.0 if one_based else 0.0)
        if box is None:
            unusable.append(label or "unnamed object")
            continue
        boxes.append(box)
        enclosed += [note] if note else []
    return VocAnnotation(
        filename=(root.findtext("filename") or "").strip(),
        width=_size(root, "width"),
        height=_size(root, "height"),
        boxes=boxes,
        unusable=unusable,
        enclosed=enclosed,
    )


def record_from_xml(
    xml: Path, image: Path, *, name: str, one_based: bool = False
) -> ImageRecord | Issue:
    """Returns the record of an image and its XML file, or the issue that makes it unusable."""
    try:
        voc = parse_voc_xml(xml, one_based=one_based)
    except (DataError, OSError) as error:
        return Issue(Defect.BAD_ANNOTATION, xml.name, str(error))
    return ImageRecord(
        path=image,
        name=name,
        width=voc.width,
        height=voc.height,
        boxes=voc.boxes,
        issues=[
            *(Issue(Defect.BAD_SHAPE, name, f"{label} without <bndbox>") for label in voc.unusable),
            *(Issue(Defect.ENCLOSED, name, note) for note in voc.enclosed),
        ],
    )


def read_list(path: Path) -> list[str]:
    """Returns the stems of a list file: a name a line, without folder, suffix and VOC's flag.

    Raises:
        DataError: the file is unreadable or not in UTF-8.
    """
    lines = [line.strip() for line in read_text(path).splitlines()]
    names = [re.sub(r"\s+(-1|0|1)$", "", line) for line in lines if line]
    return [_without_suffix(name.replace("\\", "/").rsplit("/", 1)[-1]) for name in names]


def read_voc(src: Path, options: ReadOptions) -> Source:
    """Reads ``{Annotations,JPEGImages,ImageSets/Main}``, or XML files next to images.

    Without lists, folders such as ``train``, ``valid`` and ``test`` are the official split.

    Raises:
        DataError: no XML file under the source.
    """
    xml_root = _first_folder(src, _XML_FOLDERS) or src
    xmls = files_under(xml_root, ".xml")
    if not xmls:
        raise DataError(
            f"no VOC annotation (*.xml) under {xml_root}: expected Annotations/ and JPEGImages/"
        )
    image_root = _first_folder(src, _IMAGE_FOLDERS) or src
    images = _Images(image_files(image_root), image_root)
    find_case = case_rule(options)
    source = Source(records=[])
    splits = _official_splits(src, source)
    pairs: dict[Path, str] = {}
    own = {fold(xml.relative_to(xml_root).with_suffix("").as_posix()) for xml in xmls}
    for xml in progress(xmls, desc="annotations"):
        xml_name = relative_name(xml, src)
        try:
            image = images.of(xml, xml.relative_to(xml_root), own)
        except AmbiguousNameError as error:
            pairs |= dict.fromkeys(error.paths, xml_name)
            source.issues.append(Issue(Defect.AMBIGUOUS, xml_name, str(error)))
            continue
        if image is None:
            detail = "no image of this name"
            source.issues.append(Issue(Defect.MISSING_IMAGE, xml_name, detail))
            continue
        name = relative_name(image, src)
        first = pairs.setdefault(image, xml_name)
        if first != xml_name:
            detail = f"annotates {name}, as {first} does, which counts"
            source.issues.append(Issue(Defect.DUPLICATE_IMAGE, xml_name, detail))
            continue
        record = record_from_xml(xml, image, name=name, one_based=options.one_based)
        if isinstance(record, Issue):
            source.issues.append(record)
            continue
        record.case_id, record.batch_id = find_case(name)
        if splits:
            _set_split(record, splits, stem=xml.stem)
        else:
            record.split = split_of_path(xml.relative_to(src).parent)
        source.records.append(record)
    source.issues += [
        Issue(Defect.NO_ANNOTATION, relative_name(p, src)) for p in images.paths if p not in pairs
    ]
    stems = {fold(path.stem) for path in images.paths}
    source.issues += [
        Issue(Defect.MISSING_IMAGE, stem, f"listed in {split}.txt, no such image")
        for split, listed in splits.items()
        for key, stem in sorted(listed.items())
        if key not in stems
    ]
    source.case_rule = settle_cases(options, source.records)
    return source


class _Images:
    """Images by the path and the name of their annotation, suffix and case apart."""

    def __init__(self, paths: list[Path], root: Path) -> None:
        self.paths = paths
        self._by_path: dict[str, list[Path]] = {}
        self._by_stem: dict[str, list[tuple[str, Path]]] = {}
        for path in paths:
            key = fold(path.relative_to(root).with_suffix("").as_posix())
            self._by_path.setdefault(key, []).append(path)
            self._by_stem.setdefault(fold(path.stem), []).append((key, path))

    def of(self, xml: Path, relative: Path, annotated: set[str]) -> Path | None:
        """Returns the image that an XML file annotates, None if there is none.

        Args:
            xml: the file.
            relative: its path under the folder of annotations.
            annotated: folded paths, without suffix, of all the XML files: such an image has its
                own, and another folder's XML of the same name is not about it.

        Raises:
            AmbiguousNameError: several fit, and the file does not say which.
        """
        key = fold(relative.with_suffix("").as_posix())
        same = self._by_path.get(key) or [
            path for k, path in self._by_stem.get(fold(xml.stem), []) if k not in annotated
        ]
        if len(same) > 1:
            exact = [path for path in same if path.stem == xml.stem]
            same = exact if len(exact) == 1 else same
        if len(same) > 1:
            try:
                stated = parse_voc_xml(xml).filename
            except (DataError, OSError):
                stated = ""
            same = [path for path in same if path.name == stated] or same
        if len(same) > 1:
            raise AmbiguousNameError(same)
        return same[0] if same else None


def _set_split(record: ImageRecord, splits: dict[str, dict[str, str]], *, stem: str) -> None:
    own = [split for split, listed in splits.items() if fold(stem) in listed]
    if own:
        record.split = own[-1]
    else:
        record.issues.append(Issue(Defect.UNLISTED, record.name))
    if len(own) > 1:
        record.issues.append(Issue(Defect.LISTED_TWICE, record.name, "in " + " and ".join(own)))


def _official_splits(src: Path, source: Source) -> dict[str, dict[str, str]]:
    """Returns the stems of each list, by what they have in common with others of other case.

    A list that cannot be read is an issue of the source.
    """
    splits: dict[str, dict[str, str]] = {}
    for split in SPLITS:
        path = src / "ImageSets" / "Main" / f"{split}.txt"
        if path.is_file():
            try:
                splits[split] = {fold(stem): stem for stem in read_list(path)}
            except DataError as error:
                source.issues.append(Issue(Defect.BAD_LIST, relative_name(path, src), str(error)))
    return splits


def _size(root: Element, key: str) -> int | None:
    text = (root.findtext(f"size/{key}") or "").strip()
    if not text:
        return None
    try:
        value = int(float(text))
    except ValueError:
        raise DataError(f"<{key}> of the image is {text!r}, not a number") from None
    return value if value > 0 else None


def _first_folder(src: Path, names: tuple[str, ...]) -> Path | None:
    return next((src / name for name in names if (src / name).is_dir()), None)


def _without_suffix(name: str) -> str:
    stem, dot, suffix = name.rpartition(".")
    return (
        stem
        if dot and suffix.lower() in ("jpg", "jpeg", "png", "tif", "tiff", "bmp", "xml")
        else name
    )
