"""Tseng et al. 2023, 5,000 G-banded metaphases (Sci Data 10:104, doi 10.1038/s41597-023-02003-7).

Expected under the source: ``24_chromosomes_object/{JEPG,annotations}`` (the first name is spelt so
in the published archive), ``train.txt``, ``test.txt``, and if present the three CSV tables
``normal.csv``, ``number_abnormalities.csv`` and ``structural_abnormalities.csv``.
"""

from __future__ import annotations

import csv
import re
from pathlib import Path
from typing import Any

from deepacc_d2.data.formats.files import files_under, image_files, relative_name, several
from deepacc_d2.data.formats.record import (
    Defect,
    ImageRecord,
    Issue,
    ReadOptions,
    Source,
    progress,
)
from deepacc_d2.data.formats.voc import read_list, record_from_xml
from deepacc_d2.errors import DataError

CITATION = (
    "Tseng et al. 2023, Sci Data 10:104, doi 10.1038/s41597-023-02003-7; "
    "data doi 10.7295/W9CIL54816"
)
LICENCE = "unverified: stated differently in different places; check before passing images on"

_ABNORMAL_TABLES = {
    "number": "number_abnormalities.csv",
    "structure": "structural_abnormalities.csv",
}


def case_of(stem: str) -> str:
    """Returns the case of an image stem: the stem less its last digit.

    Stems are the Taiwanese year, the case and one digit for the image. ``1050221_1`` is a second
    picture filed under ``1050221`` and goes to the case of that. Of the ``unknowNNN`` images
    nothing is known, so all of them form one case: they may come from any patients, but at least
    they never part.
    """
    if stem.lower().startswith("unknow"):
        return "unknow"
    base = re.sub(r"_\d+$", "", stem)
    return base[:-1] if len(base) > 1 and base[-1].isdigit() else base


def read_tseng2023(src: Path, options: ReadOptions) -> Source:
    """Reads the archive as published; see the module's head for the expected tree.

    Raises:
        DataError: a folder or list is missing.
    """
    root = src if (src / "JEPG").is_dir() else src / "24_chromosomes_object"
    for path in (root / "JEPG", root / "annotations"):
        if not path.is_dir():
            raise DataError(
                f"{path} is missing: FORMAT=tseng2023 expects 24_chromosomes_object/JEPG and "
                "24_chromosomes_object/annotations, as published"
            )
    xmls = {path.stem: path for path in files_under(root / "annotations", ".xml")}
    lists = _lists(src if (src / "train.txt").is_file() else root.parent)
    listed = {stem: split for split in lists for stem in lists[split]}
    twice = set(lists.get("train", [])) & set(lists.get("test", []))
    source = Source(
        records=[], citation=CITATION, licence=LICENCE, case_rule="file stem less its last digit"
    )
    images: dict[str, Path] = {}
    for path in image_files(root / "JEPG"):
        same = images.setdefault(path.stem, path)
        if same != path:
            issue = Issue(Defect.AMBIGUOUS, relative_name(path, src), several([same, path]))
            source.issues.append(issue)
    for stem in sorted((set(listed) | set(xmls)) - set(images)):
        where = f"listed in {listed[stem]}.txt" if stem in listed else "annotated"
        source.issues.append(Issue(Defect.MISSING_IMAGE, stem, f"{where}, no image file"))
    for stem, image in progress(sorted(images.items()), desc="annotations"):
        name = relative_name(image, src)
        if stem not in xmls:
            source.issues.append(Issue(Defect.NO_ANNOTATION, name))
            continue
        record = record_from_xml(xmls[stem], image, name=name, one_based=options.one_based)
        if isinstance(record, Issue):
            source.issues.append(record)
            continue
        record.case_id = case_of(stem)
        record.split = listed.get(stem)
        if lists and stem not in listed:
            record.issues.append(Issue(Defect.UNLISTED, name))
        if stem in twice:
            record.issues.append(Issue(Defect.LISTED_TWICE, name, "in train.txt and test.txt"))
        source.records.append(record)
    _add_tables(source.records, root.parent if root != src else src)
    return source


def _lists(folder: Path) -> dict[str, list[str]]:
    return {
        split: read_list(folder / f"{split}.txt")
        for split in ("train", "test")
        if (folder / f"{split}.txt").is_file()
    }


def _add_tables(records: list[ImageRecord], folder: Path) -> None:
    """Adds the field ``abnormality`` and notes boxes that are not as many as the tables say."""
    counts = _table(folder / "normal.csv")
    for kind, file in _ABNORMAL_TABLES.items():
        for stem, row in _table(folder / file).items():
            counts[stem] = {"kind": kind, **row}
    for record in records:
        if record.path.stem not in counts:
            continue
        entry = counts[record.path.stem]
        if "kind" in entry:
            record.extra["abnormality"] = entry
        stated, found = entry["count"], len(record.boxes)
        if stated is not None and stated != found:
            record.issues.append(
                Issue(Defect.COUNT_DIFFERS, record.name, f"{found} boxes, {stated} stated")
            )


def _table(path: Path) -> dict[str, dict[str, Any]]:
    """Returns count and description by stem from one of the CSV tables, {} if it is absent."""
    if not path.is_file():
        return {}
    rows: dict[str, dict[str, Any]] = {}
    with path.open(newline="", encoding="utf-8-sig", errors="replace") as file:
        for row in list(csv.reader(file))[1:]:
            if row and row[0].strip():
                number, description = ([cell.strip() for cell in row[1:3]] + ["", ""])[:2]
                rows[Path(row[0].strip()).stem] = {
                    "count": int(number) if number.isdigit() else None,
                    "description": description,
                }
    return rows
