"""What every reader returns: plain records of images and boxes, and the defects met on the way.

Readers only read. Decoding the images, clamping and dropping boxes, splitting and writing is the
same for all formats and lives in :mod:`deepacc_d2.data.convert`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

from tqdm import tqdm

from deepacc_d2.data.formats.copies import original_of
from deepacc_d2.errors import ConfigError
from deepacc_d2.text import printable

# Folder names that say which split an image belongs to, or nothing at all, and so no case.
_NOT_A_CASE = {
    *("images", "image", "jpegimages", "jepg", "img", "imgs", "data"),
    *("train", "training", "val", "valid", "validation", "test", "testing"),
    *("train2017", "val2017", "test2017", "train_labelme", "test_labelme"),
}


class Effect(Enum):
    """What a defect does to the data: from nothing to the loss of an image."""

    NOTE = "noted"
    BOX_CHANGED = "box changed"
    BOX_SKIPPED = "box skipped"
    SPLIT_CHANGED = "split changed"
    IMAGE_SKIPPED = "image skipped"


class Defect(Enum):
    """Every defect that a conversion survives: its key, its effect and what it is."""

    BOX_CLAMPED = ("box_clamped", Effect.BOX_CHANGED, "box up to 2 px outside the image, clamped")
    BOX_CUT = ("box_cut", Effect.BOX_CHANGED, "box more than 2 px outside the image, cut")
    BOX_TINY = (
        "box_tiny",
        Effect.BOX_SKIPPED,
        "box under a pixel, or in relative coordinates (0 to 1)",
    )
    BOX_OUTSIDE = ("box_outside", Effect.BOX_SKIPPED, "box wholly outside the image")
    BOX_NO_AREA = ("box_no_area", Effect.BOX_SKIPPED, "box without area or not a number")
    UNKNOWN_CLASS = ("unknown_class", Effect.BOX_SKIPPED, "label that is none of the 24 classes")
    BAD_SHAPE = ("bad_shape", Effect.BOX_SKIPPED, "object without a usable box")
    DUPLICATE_BOX = ("duplicate_box", Effect.BOX_SKIPPED, "same box and class twice in an image")
    CROWD = ("crowd", Effect.NOTE, "crowd region, taken for one chromosome")
    JOINED = ("joined", Effect.NOTE, "parts of one group, joined to one chromosome")
    ENCLOSED = (
        "enclosed",
        Effect.NOTE,
        "rotated box, circle, mask or outline without a box: the upright box around it",
    )
    CLASS_TWICE = ("class_twice", Effect.NOTE, "two ids or indices of one class")
    AMBIGUOUS = ("ambiguous", Effect.IMAGE_SKIPPED, "name that fits several files")
    BAD_NAME = ("bad_name", Effect.IMAGE_SKIPPED, "file name that is not in UTF-8: rename it")
    MISSING_IMAGE = (
        "missing_image",
        Effect.IMAGE_SKIPPED,
        "listed or annotated, but no image file",
    )
    NO_ANNOTATION = ("no_annotation", Effect.IMAGE_SKIPPED, "image without an annotation")
    BAD_ANNOTATION = ("bad_annotation", Effect.IMAGE_SKIPPED, "annotation cut short or unreadable")
    BAD_LIST = ("bad_list", Effect.SPLIT_CHANGED, "list of a split that cannot be read")
    BAD_IMAGE = ("bad_image", Effect.IMAGE_SKIPPED, "image empty, cut short or undecodable")
    SIZE_MISMATCH = ("size_mismatch", Effect.IMAGE_SKIPPED, "image size differs from annotation")
    NO_BOXES = ("no_boxes", Effect.IMAGE_SKIPPED, "image without a usable box")
    DUPLICATE_IMAGE = (
        "duplicate_image",
        Effect.IMAGE_SKIPPED,
        "same bytes or pixels as another image",
    )
    IN_TWO_SPLITS = ("in_two_splits", Effect.IMAGE_SKIPPED, "same image in another split")
    LISTED_TWICE = ("listed_twice", Effect.SPLIT_CHANGED, "in two official lists, the later counts")
    NOT_IN_SPLIT = ("not_in_split", Effect.IMAGE_SKIPPED, "in no list of the official split")
    UNLISTED = ("unlisted", Effect.NOTE, "in none of the official lists, used all the same")
    POOR_IMAGE = ("poor_image", Effect.NOTE, "image without contrast or with few gray levels")
    TURNED = ("turned", Effect.NOTE, "turned by its EXIF orientation: do the boxes fit?")
    COUNT_DIFFERS = ("count_differs", Effect.NOTE, "number of boxes differs from the stated count")
    COPIES = ("copies", Effect.NOTE, "copies of one image by their names, one case")
    CASE_IN_TWO_SPLITS = ("case_in_two_splits", Effect.NOTE, "case in two official splits")

    def __init__(self, key: str, effect: Effect, text: str) -> None:
        self.key = key
        self.effect = effect
        self.text = text


@dataclass(frozen=True, slots=True)
class Issue:
    """One defect met: what, in which file, and the particulars.

    >>> print(Issue(Defect.NO_BOXES, "a.png"))
    a.png: image without a usable box
    """

    defect: Defect
    name: str
    detail: str = ""

    def __str__(self) -> str:
        return printable(f"{self.name}: {self.detail or self.defect.text}")


@dataclass(frozen=True, slots=True)
class Box:
    """One annotated chromosome.

    Attributes:
        label: the class as the source writes it.
        xyxy: left, top, right, bottom edge in px; the left edge of the first pixel is 0 and the
            right edge of the last one is the image width, so that width = right - left.
        segmentation: COCO polygons ``[[x0, y0, x1, y1, ...], ...]`` in px or an RLE, or None.
    """

    label: str
    xyxy: tuple[float, float, float, float]
    segmentation: Any = None


@dataclass(slots=True)
class ImageRecord:
    """One image of a source with its annotation, not yet checked.

    Attributes:
        path: the image file.
        name: path relative to the source, with forward slashes; names the image in reports.
        width: width in px according to the annotation, None where it does not say.
        height: height in px, likewise.
        case_id: the patient or sample; images of a case never part in a case-disjoint split.
        batch_id: the slide, staining batch or site, None if unknown.
        boxes: the annotated chromosomes.
        split: train, val or test in the source's own lists, else None.
        extra: further COCO image fields.
        issues: defects met while reading this image.
    """

    path: Path
    name: str
    width: int | None = None
    height: int | None = None
    case_id: str | None = None
    batch_id: str | None = None
    boxes: list[Box] = field(default_factory=list)
    split: str | None = None
    extra: dict[str, Any] = field(default_factory=dict)
    issues: list[Issue] = field(default_factory=list)


@dataclass(slots=True)
class Source:
    """All that a reader found.

    Attributes:
        records: the images with an annotation.
        issues: defects of files that gave no record.
        citation: where the data comes from, for dataset.json.
        licence: what the source says of its licence, or that it must be checked.
        case_rule: how the case of an image was found, for the report.
    """

    records: list[ImageRecord]
    issues: list[Issue] = field(default_factory=list)
    citation: str = "local data"
    licence: str = "unknown: ask the owner of the data"
    case_rule: str = ""


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """Choices that some readers heed.

    Attributes:
        case_regex: searched in the image path relative to the source, without its suffix; its
            group ``case`` (or else the first group) is the case, its group ``batch`` the batch.
        one_based: VOC coordinates are 1-based and inclusive, as in the original Pascal VOC.
    """

    case_regex: str | None = None
    one_based: bool = False


Reader = Callable[[Path, ReadOptions], Source]
CaseRule = Callable[[str], tuple[str, str | None]]


def case_rule(options: ReadOptions) -> CaseRule:
    """Returns the function that finds (case, batch) of an image by its path inside the source.

    With a ``case_regex``, by that; an image that it does not match is a case of its own. Without
    one, by the nearest folder above it whose name does not just say ``images`` or name a split.

    Raises:
        ConfigError: the expression is invalid or has no group.
    """
    if options.case_regex is None:
        return _case_by_folder
    try:
        pattern = re.compile(options.case_regex)
    except re.error as error:
        raise ConfigError(f"--case-regex {options.case_regex!r} is invalid: {error}") from None
    if pattern.groups == 0:
        raise ConfigError(
            f"--case-regex {options.case_regex!r} has no group: put the case in (?P<case>...)"
        )

    def by_regex(name: str) -> tuple[str, str | None]:
        stem = name.rsplit(".", 1)[0]
        match = pattern.search(stem)
        if match is None:
            return stem, None
        groups = match.groupdict()
        case = groups["case"] if "case" in groups else match[1]
        return case or stem, groups.get("batch")

    return by_regex


def settle_cases(options: ReadOptions, records: list[ImageRecord]) -> str:
    """Returns in words how cases were found; a single folder for all images is no case.

    Raises:
        ConfigError: ``case_regex`` matches no image at all.
    """
    if options.case_regex is not None:
        pattern = re.compile(options.case_regex)
        missed = sum(pattern.search(r.name.rsplit(".", 1)[0]) is None for r in records)
        if records and missed == len(records):
            raise ConfigError(
                f"--case-regex {options.case_regex!r} matches no image, for example not "
                f"{records[0].name.rsplit('.', 1)[0]!r}"
            )
        text = f"by the expression {options.case_regex}"
        text += f"; {missed} it does not match are their own" if missed else ""
        return text + _join_copies(records)
    if len({record.case_id for record in records}) == 1:
        for record in records:
            record.case_id = _stem(record.name)
    unknown = all(record.case_id == _stem(record.name) for record in records)
    copies = _join_copies(records)
    if unknown:
        return f"unknown: each image counts as its own case, so splits may share patients{copies}"
    return f"by parent folder{copies}"


def positive(value: Any) -> int | None:
    """Returns a width or height in px, given as a number or as text; None if it is neither."""
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return int(number) if math.isfinite(number) and number >= 1 else None


def _are_copies(own: list[ImageRecord], total: int) -> bool:
    """Whether images whose names differ by a mark are copies: not if nearly all are so called."""
    stems = {_stem(record.name) for record in own}
    all_alike = len(own) >= 10 and 2 * len(own) > total
    return len(stems) > 1 and (not all_alike or any(".rf." in stem for stem in stems))


def _join_copies(records: list[ImageRecord]) -> str:
    """Gives copies of one image the same case, where nothing else says which it is.

    Returns:
        What the report says of it.
    """
    members: dict[str, list[ImageRecord]] = {}
    for record in records:
        if record.case_id in (_stem(record.name), record.name.rsplit(".", 1)[0]):
            members.setdefault(original_of(_stem(record.name)), []).append(record)
    groups = {name: own for name, own in members.items() if _are_copies(own, len(records))}
    for name, own in groups.items():
        for record in own:
            record.case_id = name
            detail = f"one of {len(own)} copies of {name}, kept in one split"
            record.issues.append(Issue(Defect.COPIES, record.name, detail))
    count = sum(map(len, groups.values()))
    return f"; {count} copies of {len(groups)} image(s), by their names, stay together" * bool(
        count
    )


def progress(items: Iterable[Any], *, desc: str, total: int | None = None) -> Iterable[Any]:
    """Wraps an iterable in a progress bar on standard error, silent where that is no terminal."""
    return tqdm(items, desc=desc, total=total, unit="file", leave=False, disable=None)


def _case_by_folder(name: str) -> tuple[str, str | None]:
    folders = [part for part in name.split("/")[:-1] if part.lower() not in _NOT_A_CASE]
    return (folders[-1] if folders else _stem(name)), None


def _stem(name: str) -> str:
    return name.rsplit("/", 1)[-1].rsplit(".", 1)[0]
