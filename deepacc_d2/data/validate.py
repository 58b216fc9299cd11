"""Checks an internal data set: ``python -m deepacc_d2.data.validate ROOT`` (make data-check)."""

from __future__ import annotations

import math
import sys
from collections import Counter
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

from tabulate import tabulate

from deepacc_d2.chromosomes import NUM_CLASSES, coco_categories
from deepacc_d2.command.flags import build_parser
from deepacc_d2.data.coco import fingerprint, load_coco_split, load_dataset_info
from deepacc_d2.data.formats.files import image_files
from deepacc_d2.data.formats.record import progress
from deepacc_d2.data.image_check import inspect_image
from deepacc_d2.data.report import class_table, split_table, summarize
from deepacc_d2.data.splits import SPLITS, shared_cases
from deepacc_d2.errors import DataError, run_cli

# A whole metaphase has 46; a few more or less are abnormal, many fewer are a cropped image.
USUAL_BOXES = (35, 60)
# Sums of floats may end a hair outside.
_TOLERANCE_PX = 0.01


class Check(Enum):
    """What is checked, worst first: key, whether it makes the set unusable, what to do."""

    BAD_ENTRY = ("bad_entry", True, "entry lacks a field: convert the data again")
    EMPTY_SPLIT = ("empty_split", True, "split without images: convert with other ratios")
    IN_TWO_SPLITS = ("in_two_splits", True, "same image in two splits: scores would be too good")
    CASE_IN_TWO_SPLITS = ("case_in_two_splits", True, "case in two splits: convert by case")
    CATEGORIES = ("categories", True, "categories are not the 24 classes: convert the data again")
    DUPLICATE_ID = ("duplicate_id", True, "id used twice: convert the data again")
    MISSING_IMAGE = ("missing_image", True, "image file is missing: restore it or convert again")
    BAD_IMAGE = ("bad_image", True, "image does not decode: restore it or convert again")
    SIZE_MISMATCH = ("size_mismatch", True, "image size differs from its annotation")
    ORPHAN = ("orphan", True, "annotation of an image that is not there")
    CLASS = ("class", True, "category_id is none of 1..24")
    BOX = ("box", True, "box without area, under a pixel or outside the image")
    COUNTS = ("counts", True, "counts in dataset.json differ from the annotations")
    FINGERPRINT = ("fingerprint", True, "content was changed since the set was made")
    SHARED_CASE = ("shared_case", False, "case in two splits of the official lists")
    DUPLICATE_IMAGE = ("duplicate_image", False, "same image twice in a split")
    STRAY_FILE = ("stray_file", False, "file in images/ that no split lists")
    ODD_COUNT = ("odd_count", False, f"not {USUAL_BOXES[0]} to {USUAL_BOXES[1]} boxes in an image")
    POOR_IMAGE = (
        "poor_image",
        False,
        "image without contrast or with few gray levels: export it anew, in its full depth",
    )
    NO_CASE = ("no_case", False, "image without case_id: splits may share patients")

    def __init__(self, key: str, fatal: bool, text: str) -> None:
        self.key = key
        self.fatal = fatal
        self.text = text


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing found wrong, and where."""

    check: Check
    name: str
    detail: str = ""


@dataclass(slots=True)
class _State:
    """What has been seen over all splits."""

    findings: list[Finding] = field(default_factory=list)
    image_ids: Counter[Any] = field(default_factory=Counter)
    names: dict[str, str] = field(default_factory=dict)
    hashes: dict[str, tuple[str, str]] = field(default_factory=dict)
    cases: list[str] = field(default_factory=list)
    case_splits: list[str] = field(default_factory=list)

    def add(self, check: Check, name: str, detail: str = "") -> None:
        self.findings.append(Finding(check, name, detail))


def validate(root: str | Path) -> list[Finding]:
    """Returns all that is wrong with a data set, worst first; an empty list if nothing is.

    Raises:
        DataError: there is no data set at ROOT, or one of its JSON files is missing or broken.
    """
    root = Path(root)
    info = load_dataset_info(root)
    state = _State()
    counts: dict[str, int] = {}
    for split in SPLITS:
        coco = load_coco_split(root, split)
        counts[split] = len(coco["images"])
        if not coco["images"] and (split == "train" or (info.get("counts") or {}).get(split)):
            state.add(Check.EMPTY_SPLIT, split)
        _check_categories(state, coco, split)
        sizes = _check_images(state, root, coco, split)
        _check_annotations(state, coco, split, sizes)
    _check_cases(state, info)
    if info.get("counts") != counts:
        state.add(Check.COUNTS, "dataset.json", f"{info.get('counts')} stated, {counts} found")
    listed = {(root / "images" / name) for name in state.names}
    for path in image_files(root / "images"):
        if path not in listed:
            state.add(Check.STRAY_FILE, path.name)
    entries_sound = not any(finding.check is Check.BAD_ENTRY for finding in state.findings)
    if entries_sound and info.get("fingerprint") != fingerprint(root):
        state.add(Check.FINGERPRINT, "dataset.json", "images or annotations are not those it names")
    order = list(Check)
    return sorted(state.findings, key=lambda finding: order.index(finding.check))


def finding_table(findings: list[Finding], *, limit: int = 5) -> str:
    """Returns the findings as a table, a row per check with at most ``limit`` names."""
    if not findings:
        return "no defects"
    rows = []
    for check in Check:
        own = [finding for finding in findings if finding.check is check]
        if own:
            shown = [f"{f.name} {f'({f.detail})' if f.detail else ''}".strip() for f in own[:limit]]
            more = [f"and {len(own) - limit} more"] if len(own) > limit else []
            kind = "error" if check.fatal else "warning"
            rows.append([kind, check.key, len(own), check.text, "\n".join(shown + more)])
    headers = ["", "check", "count", "meaning", "where"]
    return tabulate(rows, headers=headers, maxcolwidths=[None, None, None, 44, 64])


def _check_categories(state: _State, coco: dict[str, Any], split: str) -> None:
    try:
        found = {category["id"]: str(category["name"]) for category in coco["categories"]}
    except (TypeError, KeyError):
        found = {}
    expected = {category["id"]: category["name"] for category in coco_categories()}
    if found != expected or len(coco["categories"]) != len(expected):
        differing = set(map(str, found.items())) ^ set(map(str, expected.items()))
        odd = min(differing, default="an id given twice")
        state.add(
            Check.CATEGORIES,
            f"{split}.json",
            f"{len(coco['categories'])} categories, differs at {odd}",
        )


def _check_images(
    state: _State, root: Path, coco: dict[str, Any], split: str
) -> dict[Any, tuple[str, int, int]]:
    """Checks the images of a split; returns name, width and height by image id."""
    sizes: dict[Any, tuple[str, int, int]] = {}
    for image in progress(coco["images"], desc=split):
        try:
            image_id, name = image["id"], str(image["file_name"])
            width, height = int(image["width"]), int(image["height"])
        except (TypeError, KeyError, ValueError) as error:
            state.add(Check.BAD_ENTRY, f"{split}.json", f"image entry lacks or garbles {error}")
            continue
        state.image_ids[image_id] += 1
        if state.image_ids[image_id] == 2:
            state.add(Check.DUPLICATE_ID, name, f"image id {image_id}")
        sizes[image_id] = (name, width, height)
        case = image.get("case_id")
        if case is None:
            state.add(Check.NO_CASE, name)
        else:
            state.cases.append(str(case))
            state.case_splits.append(split)
        if name in state.names:
            twice = state.names[name] != split
            check = Check.IN_TWO_SPLITS if twice else Check.DUPLICATE_IMAGE
            state.add(check, name, f"in {state.names[name]} and {split}")
            continue
        state.names[name] = split
        _check_file(state, root / "images" / name, name, split=split, size=(width, height))
    return sizes


def _check_file(state: _State, path: Path, name: str, *, split: str, size: tuple[int, int]) -> None:
    if not path.is_file():
        state.add(Check.MISSING_IMAGE, name)
        return
    try:
        facts = inspect_image(path)
    except DataError as error:
        state.add(Check.BAD_IMAGE, name, str(error))
        return
    if (facts.width, facts.height) != size:
        detail = f"image {facts.width}x{facts.height}, annotation {size[0]}x{size[1]}"
        if facts.turned and (facts.height, facts.width) == size:
            detail += "; its EXIF orientation turns it: annotate it as shown"
        state.add(Check.SIZE_MISMATCH, name, detail)
    for shortcoming in facts.shortcomings:
        state.add(Check.POOR_IMAGE, name, shortcoming)
    other, where = state.hashes.setdefault(facts.pixels, (name, split))
    if other != name:
        check = Check.DUPLICATE_IMAGE if where == split else Check.IN_TWO_SPLITS
        state.add(check, name, f"in {split}, identical to {other} in {where}")


def _check_annotations(
    state: _State, coco: dict[str, Any], split: str, sizes: dict[Any, tuple[str, int, int]]
) -> None:
    ids: Counter[Any] = Counter()
    boxes: Counter[Any] = Counter()
    for annotation in coco["annotations"]:
        try:
            number, image_id = annotation["id"], annotation["image_id"]
            category = annotation["category_id"]
            x, y, width, height = (float(value) for value in annotation["bbox"])
        except (TypeError, KeyError, ValueError) as error:
            state.add(Check.BAD_ENTRY, f"{split}.json", f"annotation lacks or garbles {error}")
            continue
        ids[number] += 1
        if ids[number] == 2:
            state.add(Check.DUPLICATE_ID, f"{split}.json", f"annotation id {number}")
        if image_id not in sizes:
            state.add(Check.ORPHAN, f"{split}.json", f"annotation {number} of image {image_id}")
            continue
        boxes[image_id] += 1
        name, image_width, image_height = sizes[image_id]
        if not isinstance(category, int) or not 1 <= category <= NUM_CLASSES:
            state.add(Check.CLASS, name, f"annotation {number} has category_id {category}")
        finite = all(map(math.isfinite, (x, y, width, height)))
        inside = (
            min(x, y) >= -_TOLERANCE_PX
            and x + width <= image_width + _TOLERANCE_PX
            and y + height <= image_height + _TOLERANCE_PX
        )
        if not finite or min(width, height) < 1 - _TOLERANCE_PX or not inside:
            detail = f"annotation {number} [{x:g}, {y:g}, {width:g}, {height:g}]"
            state.add(Check.BOX, name, f"{detail} in {image_width}x{image_height}")
    for image_id, (name, _, _) in sizes.items():
        if not USUAL_BOXES[0] <= boxes[image_id] <= USUAL_BOXES[1]:
            state.add(Check.ODD_COUNT, name, f"{boxes[image_id]} boxes")


def _check_cases(state: _State, info: dict[str, Any]) -> None:
    """A case in two splits is an error unless the user asked for the source's own lists."""
    method = (info.get("split") or {}).get("method")
    check = Check.SHARED_CASE if method == "official" else Check.CASE_IN_TWO_SPLITS
    for case, splits in shared_cases(state.case_splits, state.cases).items():
        state.add(check, f"case {case}", "in " + " and ".join(splits))


def main(argv: list[str] | None = None) -> int:
    """Parses the command line, prints tables; raises DataError if the set is unusable."""
    root: Path = build_parser("data-check").parse_args(argv).root
    findings = validate(root)
    if not any(finding.check is Check.BAD_ENTRY for finding in findings):
        summary = summarize(root)
        sys.stdout.write(f"{split_table(summary)}\n\n{class_table(summary)}\n\n")
    sys.stdout.write(f"{finding_table(findings)}\n")
    fatal = [finding for finding in findings if finding.check.fatal]
    if fatal:
        sys.stdout.flush()
        worst = fatal[0]
        detail = f" {worst.detail}" if worst.detail else ""
        raise DataError(
            f"{root} has {len(fatal)} defect(s), the worst {worst.check.key}: {worst.name}"
            f"{detail}; {worst.check.text}"
        )
    sys.stdout.write(f"{root} is sound\n")
    return 0


if __name__ == "__main__":
    run_cli(main)
