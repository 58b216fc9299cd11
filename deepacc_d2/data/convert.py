"""Turns a public format into the internal COCO data set: ``python -m deepacc_d2.data.convert``.

The reader of the format only reads; what is here is the same for all: decode every image, clamp
and drop boxes, drop duplicates, split, copy, write and report. All is written to a temporary
directory next to OUT that takes OUT's name at the very end.
"""

from __future__ import annotations

import shutil
import sys
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from deepacc_d2.command.flags import build_parser
from deepacc_d2.data.box_check import CleanBox, clean_boxes
from deepacc_d2.data.coco import coco_split, fingerprint
from deepacc_d2.data.contact_sheet import write_contact_sheet
from deepacc_d2.data.formats import READERS, Defect, Effect, ImageRecord, Issue, ReadOptions, Source
from deepacc_d2.data.formats.record import progress
from deepacc_d2.data.image_check import ImageFacts, gray_statistics, inspect_image
from deepacc_d2.data.report import build_report, report_text, write_report
from deepacc_d2.data.splits import (
    SPLITS,
    parse_ratios,
    shared_cases,
    split_by_case,
    split_officially,
)
from deepacc_d2.errors import ConfigError, DataError, run_cli
from deepacc_d2.files import check_target, whole_directory, write_json
from deepacc_d2.sole_use import sole_use
from deepacc_d2.text import is_utf8


@dataclass(slots=True)
class Sample:
    """A record that passed: its facts, its clean boxes and its place in the new data set."""

    record: ImageRecord
    facts: ImageFacts
    boxes: list[CleanBox]
    file_name: str = ""
    split: str = ""


def convert(
    fmt: str,
    src: str | Path,
    out: str | Path,
    *,
    split: str = "case",
    ratios: str = "3:1:1",
    seed: int = 0,
    overwrite: bool = False,
    strict: bool = False,
    case_regex: str | None = None,
    one_based: bool = False,
) -> dict[str, Any]:
    """Converts SRC into an internal data set at OUT and returns its report.

    Args:
        fmt: a key of :data:`deepacc_d2.data.formats.READERS`.
        src: the source, as published; it is only read.
        out: the data set to make.
        split: ``case`` for case-disjoint splits, ``official`` for the source's own lists.
        ratios: train:val:test; with official lists only for a missing validation part.
        seed: of the split.
        overwrite: replace an internal data set that is there already.
        strict: refuse the source at the first defect that changes or skips anything.
        case_regex: see :class:`deepacc_d2.data.formats.record.ReadOptions`.
        one_based: likewise.

    Raises:
        DataError: nothing usable in SRC, or a defect while ``strict``.
        ConfigError: unknown format, impossible options, or OUT is there or not writable.
    """
    src, out = Path(src), Path(out).absolute()
    shares = parse_ratios(ratios)
    if fmt not in READERS:
        raise ConfigError(f"unknown FORMAT {fmt!r}: expected one of {', '.join(READERS)}")
    if split not in ("case", "official"):
        raise ConfigError(f"unknown split {split!r}: expected case or official")
    if not src.is_dir():
        raise DataError(f"source directory {src} does not exist: set SRC to the data as downloaded")
    check_target(out, src, overwrite=overwrite)
    source = READERS[fmt](src, ReadOptions(case_regex=case_regex, one_based=one_based))
    issues = list(source.issues)
    samples = _check_samples(source, issues)
    if not samples:
        raise DataError(_nothing_usable(fmt, src, issues))
    if split == "official":
        samples = _keep_official(samples, issues, src)
    samples = _drop_duplicates(samples, issues)
    if strict:
        _refuse(issues)
    _assign_splits(samples, issues, split, shares, seed)
    _assign_names(samples)
    mean, std = gray_statistics(s.facts for s in samples if s.split == "train")
    info: dict[str, Any] = {
        "name": out.name,
        "format": fmt,
        "source": source.citation,
        "licence": source.licence,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "split": {"method": split, "seed": seed, "ratios": ratios, "cases": source.case_rule},
        "pixel_mean": [round(mean, 4)],
        "pixel_std": [round(std, 4)],
        "pixel_statistics": "gray values over all pixels of all train images",
        "counts": {name: sum(s.split == name for s in samples) for name in SPLITS},
    }
    return _write(out, samples, issues, info, overwrite=overwrite)


def _check_samples(source: Source, issues: list[Issue]) -> list[Sample]:
    samples: list[Sample] = []
    for record in progress(source.records, desc="images"):
        issues += record.issues
        if not is_utf8(record.name):
            issues.append(Issue(Defect.BAD_NAME, record.name))
            continue
        try:
            facts = inspect_image(record.path)
        except DataError as error:
            issues.append(Issue(Defect.BAD_IMAGE, record.name, str(error)))
            continue
        stated = (record.width or facts.width, record.height or facts.height)
        if stated != (facts.width, facts.height):
            detail = f"image {facts.width}x{facts.height}, annotation says {stated[0]}x{stated[1]}"
            if facts.turned and stated == (facts.height, facts.width):
                detail += "; its EXIF orientation turns it: annotate it as shown"
            issues.append(Issue(Defect.SIZE_MISMATCH, record.name, detail))
            continue
        issues += [Issue(Defect.POOR_IMAGE, record.name, text) for text in facts.shortcomings]
        if facts.turned:
            issues.append(Issue(Defect.TURNED, record.name))
        boxes, found = clean_boxes(
            record.boxes, width=facts.width, height=facts.height, name=record.name
        )
        issues += found
        if not boxes:
            issues.append(Issue(Defect.NO_BOXES, record.name, f"{len(record.boxes)} in annotation"))
            continue
        samples.append(Sample(record, facts, boxes))
    return samples


def _keep_official(samples: list[Sample], issues: list[Issue], src: Path) -> list[Sample]:
    kept = [sample for sample in samples if sample.record.split]
    if not any(sample.record.split == "train" for sample in kept):
        raise DataError(f"{src} has no official train list: use --split case")
    issues += [
        Issue(Defect.NOT_IN_SPLIT, sample.record.name)
        for sample in samples
        if not sample.record.split
    ]
    return kept


def _drop_duplicates(samples: list[Sample], issues: list[Issue]) -> list[Sample]:
    """Keeps one of images with the same pixels: of a test and a train image, the test image."""
    order = {"test": 0, "val": 1, "train": 2, None: 3}
    first: dict[str, Sample] = {}
    for sample in sorted(samples, key=lambda s: (order[s.record.split], s.record.name)):
        kept = first.setdefault(sample.facts.pixels, sample)
        if kept is sample:
            continue
        splits = (sample.record.split, kept.record.split)
        parted = None not in splits and splits[0] != splits[1]
        same_bytes = sample.facts.sha256 == kept.facts.sha256
        detail = f"{'identical to' if same_bytes else 'same pixels as'} {kept.record.name}"
        if parted:
            detail += f", which is in {splits[1]} and this in {splits[0]}"
        defect = Defect.IN_TWO_SPLITS if parted else Defect.DUPLICATE_IMAGE
        issues.append(Issue(defect, sample.record.name, detail))
    return sorted(first.values(), key=lambda s: s.record.name)


def _assign_splits(
    samples: list[Sample],
    issues: list[Issue],
    method: str,
    shares: tuple[float, float, float],
    seed: int,
) -> None:
    cases = [sample.record.case_id or sample.record.name for sample in samples]
    if method == "case":
        splits = split_by_case(cases, shares, seed)
    else:
        official = [sample.record.split or "" for sample in samples]
        splits = split_officially(official, cases, shares, seed)
        issues += [
            Issue(Defect.CASE_IN_TWO_SPLITS, f"case {case}", " and ".join(where))
            for case, where in shared_cases(splits, cases).items()
        ]
    for sample, case, name in zip(samples, cases, splits, strict=True):
        sample.record.case_id, sample.split = case, name


def _assign_names(samples: list[Sample]) -> None:
    """Names the copies by file name alone if that is unambiguous, else by their whole path."""
    plain = Counter(sample.record.path.name.casefold() for sample in samples)
    clash = any(count > 1 for count in plain.values())
    taken: set[str] = set()
    for sample in samples:
        record = sample.record
        name = record.name.replace("/", "__") if clash else record.path.name
        if name.casefold() in taken:
            raise DataError(f"two images would be named {name} in the data set: rename one")
        taken.add(name.casefold())
        sample.file_name = name


def _refuse(issues: list[Issue]) -> None:
    bad = [issue for issue in issues if issue.defect.effect is not Effect.NOTE]
    if bad:
        raise DataError(
            f"--strict: {bad[0]} ({bad[0].defect.key}), and {len(bad) - 1} more: fix the source, "
            "or leave --strict away to skip and count them"
        )


def _nothing_usable(fmt: str, src: Path, issues: list[Issue]) -> str:
    counts = Counter(issue.defect for issue in issues)
    if not counts:
        return f"no image found under {src}: is it really in the format {fmt}?"
    if counts.get(Defect.UNKNOWN_CLASS) and not counts.keys() - {
        Defect.UNKNOWN_CLASS,
        Defect.NO_BOXES,
    }:
        example = next(i for i in issues if i.defect is Defect.UNKNOWN_CLASS)
        return (
            f"unknown class names everywhere in {src}, for example {example}: expected 1..22, X, "
            "Y, A1..G22 or 23/24; rename the classes in the source"
        )
    worst, number = counts.most_common(1)[0]
    example = next(i for i in issues if i.defect is worst)
    return f"no usable image in {src}: {worst.text} ({number} times), for example {example}"


def _write(
    out: Path,
    samples: list[Sample],
    issues: list[Issue],
    info: dict[str, Any],
    *,
    overwrite: bool,
) -> dict[str, Any]:
    with whole_directory(out, overwrite=overwrite) as root:
        (root / "images").mkdir()
        for sample in progress(samples, desc="copy"):
            shutil.copyfile(sample.record.path, root / "images" / sample.file_name)
        for split in SPLITS:
            own = _numbered(samples, split)
            coco = coco_split(
                [_coco_image(sample, number) for number, sample in own],
                [sample.boxes for _, sample in own],
            )
            write_json(root / "annotations" / f"{split}.json", coco, indent=None)
        info["fingerprint"] = fingerprint(root)
        report = build_report(root, info, issues)
        write_report(root, report)
        write_contact_sheet(root)
        write_json(root / "dataset.json", info)
    return report


def _numbered(samples: list[Sample], split: str) -> list[tuple[int, Sample]]:
    """Image ids count over all splits, so that they are unique in the whole data set."""
    return [(n, sample) for n, sample in enumerate(samples, start=1) if sample.split == split]


def _coco_image(sample: Sample, number: int) -> dict[str, Any]:
    return {
        "id": number,
        "file_name": sample.file_name,
        "width": sample.facts.width,
        "height": sample.facts.height,
        "case_id": sample.record.case_id,
        "batch_id": sample.record.batch_id,
        "sha256": sample.facts.sha256,
        **sample.record.extra,
    }


def main(argv: list[str] | None = None) -> int:
    """Parses the command line and converts."""
    args = build_parser("data").parse_args(argv)
    with sole_use(args.out):
        report = convert(
            args.format,
            args.src,
            args.out,
            split=args.split,
            ratios=args.ratios,
            seed=args.seed,
            overwrite=args.overwrite,
            strict=args.strict,
            case_regex=args.case_regex,
            one_based=args.one_based,
        )
    sys.stdout.write(report_text(report))
    sys.stdout.write(f"\nwritten to {args.out}\n")
    return 0


if __name__ == "__main__":
    run_cli(main)
