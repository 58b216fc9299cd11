"""Pascal VOC: one XML an image, ``ImageSets/Main`` for the official split."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from xml.etree.ElementTree import Element, ParseError

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import parse

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
from deepacc_d2.data.splits import SPLITS
from deepacc_d2.errors import DataError

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
        root = parse(path).getroot()
    except (ParseError, DefusedXmlException, UnicodeDecodeError) as error:
        raise DataError(f"XML unreadable ({error})") from None
    if root is None or root.tag != "annotation":
        raise DataError("no <annotation> at the root of the XML")
    shift = 1.0 if one_based else 0.0
    boxes: list[Box] = []
    unusable: list[str] = []
    for obj in root.iter("object"):
        label = (obj.findtext("name") or "").strip()
        try:
            left, top, right, bottom = (
                float(obj.findtext(f"bndbox/{key}") or "")
                for key in ("xmin", "ymin", "xmax", "ymax")
            )
        except ValueError:
            unusable.append(label or "unnamed object")
            continue
        boxes.append(Box(label, (left - shift, top - shift, right, bottom)))
    return VocAnnotation(
        filename=(root.findtext("filename") or "").strip(),
        width=_size(root, "width"),
        height=_size(root, "height"),
        boxes=boxes,
        unusable=unusable,
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
            Issue(Defect.BAD_SHAPE, name, f"{label} without <bndbox>") for label in voc.unusable
        ],
    )


def read_list(path: Path) -> list[str]:
    """Returns the stems of a list file: first word of each line, without folder and suffix."""
    lines = path.read_text(encoding="utf-8-sig").splitlines()
    words = [line.split()[0] for line in lines if line.strip()]
    return [_without_suffix(word.replace("\\", "/").rsplit("/", 1)[-1]) for word in words]


def read_voc(src: Path, options: ReadOptions) -> Source:
    """Reads ``{Annotations,JPEGImages,ImageSets/Main}``, or XML files next to images.

    Raises:
        DataError: no XML file under the source.
    """
    xml_root = _first_folder(src, _XML_FOLDERS) or src
    xmls = files_under(xml_root, "*.xml")
    if not xmls:
        raise DataError(
            f"no VOC annotation (*.xml) under {xml_root}: expected Annotations/ and JPEGImages/"
        )
    images = image_files(_first_folder(src, _IMAGE_FOLDERS) or src)
    find_case = case_rule(options)
    splits = _official_splits(src)
    source = Source(records=[])
    used: set[Path] = set()
    by_folder: dict[tuple[str, str], Path] = {}
    by_stem: dict[str, list[Path]] = {}
    image_root = _first_folder(src, _IMAGE_FOLDERS) or src
    for path in images:
        by_folder[path.parent.relative_to(image_root).as_posix(), path.stem] = path
        by_stem.setdefault(path.stem, []).append(path)
    for xml in progress(xmls, desc="annotations"):
        folder = xml.parent.relative_to(xml_root).as_posix()
        image = by_folder.get((folder, xml.stem))
        if image is None and len(by_stem.get(xml.stem, [])) == 1:
            image = by_stem[xml.stem][0]
        if image is None:
            source.issues.append(
                Issue(Defect.MISSING_IMAGE, relative_name(xml, src), "no image of this name")
            )
            continue
        used.add(image)
        name = relative_name(image, src)
        record = record_from_xml(xml, image, name=name, one_based=options.one_based)
        if isinstance(record, Issue):
            source.issues.append(record)
            continue
        record.case_id, record.batch_id = find_case(name)
        _set_split(record, splits, stem=xml.stem)
        source.records.append(record)
    source.issues += [
        Issue(Defect.NO_ANNOTATION, relative_name(p, src)) for p in images if p not in used
    ]
    stems = {path.stem for path in images}
    source.issues += [
        Issue(Defect.MISSING_IMAGE, stem, f"listed in {split}.txt, no such image")
        for split, listed in splits.items()
        for stem in sorted(listed)
        if stem not in stems
    ]
    source.case_rule = settle_cases(options, source.records)
    return source


def _set_split(record: ImageRecord, splits: dict[str, set[str]], *, stem: str) -> None:
    own = [split for split, listed in splits.items() if stem in listed]
    if own:
        record.split = own[-1]
    elif splits:
        record.issues.append(Issue(Defect.UNLISTED, record.name))
    if len(own) > 1:
        record.issues.append(Issue(Defect.LISTED_TWICE, record.name, "in " + " and ".join(own)))


def _official_splits(src: Path) -> dict[str, set[str]]:
    folder = src / "ImageSets" / "Main"
    return {
        split: set(read_list(folder / f"{split}.txt"))
        for split in SPLITS
        if (folder / f"{split}.txt").is_file()
    }


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
