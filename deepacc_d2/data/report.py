"""What a conversion found: counts, splits and defects, as a table, JSON and Markdown."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from statistics import median
from typing import Any

from tabulate import tabulate

from deepacc_d2.chromosomes import CLASSES, GROUP_OF, denver_order
from deepacc_d2.data.coco import load_coco_split
from deepacc_d2.data.formats import Defect, Effect, Issue
from deepacc_d2.data.splits import SPLITS
from deepacc_d2.files import write_json
from deepacc_d2.text import printable

# Names shown per kind of defect; report.json holds all.
_EXAMPLES = 5


def summarize(root: str | Path) -> dict[str, Any]:
    """Returns the counts of an internal data set.

    Returns:
        ``splits``: images, cases, batches and boxes of each split; ``classes``: per class the
        boxes in all, in each split, and the min, median and max an image has; ``boxes_per_image``.
    """
    splits: dict[str, Any] = {}
    per_image: list[Counter[int]] = []
    by_split: dict[str, Counter[int]] = {}
    for split in SPLITS:
        coco = load_coco_split(root, split)
        own = {image["id"]: Counter[int]() for image in coco["images"]}
        for annotation in coco["annotations"]:
            own.setdefault(annotation["image_id"], Counter())[annotation["category_id"] - 1] += 1
        by_split[split] = sum(own.values(), Counter())
        per_image += own.values()
        splits[split] = {
            "images": len(coco["images"]),
            "cases": len({image.get("case_id") for image in coco["images"]}),
            "batches": len({image.get("batch_id") for image in coco["images"]} - {None}),
            "boxes": len(coco["annotations"]),
        }
    classes = {
        name: {
            "boxes": sum(by_split[split][index] for split in SPLITS),
            **{split: by_split[split][index] for split in SPLITS},
            **_spread([counts[index] for counts in per_image]),
        }
        for index, name in enumerate(CLASSES)
    }
    return {
        "splits": splits,
        "classes": classes,
        "boxes_per_image": _spread([sum(counts.values()) for counts in per_image]),
    }


def build_report(root: str | Path, info: dict[str, Any], issues: list[Issue]) -> dict[str, Any]:
    """Returns the report of a conversion.

    Args:
        root: the data set, with its annotations written.
        info: the content of its dataset.json.
        issues: every defect met.
    """
    by_defect: dict[Defect, list[Issue]] = {}
    for issue in issues:
        by_defect.setdefault(issue.defect, []).append(issue)
    defects = {
        defect.key: {
            "count": len(by_defect[defect]),
            "images": len({issue.name for issue in by_defect[defect]}),
            "effect": defect.effect.value,
            "meaning": defect.text,
            "found": [
                {"name": printable(i.name), "detail": printable(i.detail)}
                for i in by_defect[defect]
            ],
        }
        for defect in Defect
        if defect in by_defect
    }
    skipped = {issue.name for issue in issues if issue.defect.effect is Effect.IMAGE_SKIPPED}
    images = {"used": sum(info["counts"].values()), "skipped": len(skipped)}
    return {"dataset": info, "images": images, **summarize(root), "defects": defects}


def split_table(summary: dict[str, Any], fmt: str = "simple") -> str:
    """Returns the table of splits."""
    columns = ("images", "cases", "batches", "boxes")
    rows = [[split, *(own[c] for c in columns)] for split, own in summary["splits"].items()]
    # cases may be shared by splits under official lists: they do not add up, so no total of them
    rows.append(
        ["all", *("" if c in ("cases", "batches") else sum(r[n] for r in rows)
                  for n, c in enumerate(columns, start=1))]
    )  # fmt: skip
    return tabulate(rows, headers=["split", *columns], tablefmt=fmt)


def class_table(summary: dict[str, Any], fmt: str = "simple") -> str:
    """Returns the table of classes by Denver group, with boxes and their number per image."""
    columns = ("boxes", *SPLITS, "min", "median", "max")
    rows = []
    for index in denver_order():
        name = CLASSES[index]
        rows.append([GROUP_OF[name], name, *(summary["classes"][name][c] for c in columns)])
    total = summary["boxes_per_image"]
    sums = [sum(row[n] for row in rows) for n in range(2, 6)]
    rows.append(["all", "", *sums, total["min"], total["median"], total["max"]])
    headers = ["group", "class", "boxes", *SPLITS, "min/image", "median", "max"]
    return tabulate(rows, headers=headers, tablefmt=fmt)


def defect_table(report: dict[str, Any], fmt: str = "simple") -> str:
    """Returns the table of defects with a few names of each, or a line that there were none."""
    if not report["defects"]:
        return "no defects"
    rows = []
    for key, entry in report["defects"].items():
        names = list(dict.fromkeys(found["name"] for found in entry["found"]))
        shown = ", ".join(name.rsplit("/", 1)[-1] for name in names[:_EXAMPLES])
        more = f", +{len(names) - _EXAMPLES}" if len(names) > _EXAMPLES else ""
        row = [key, entry["count"], entry["images"], entry["effect"], entry["meaning"]]
        rows.append([*row, shown + more])
    headers = ["defect", "count", "files", "effect", "meaning", "where"]
    return tabulate(rows, headers=headers, tablefmt=fmt, maxcolwidths=[None] * 5 + [48])


def report_text(report: dict[str, Any], fmt: str = "simple") -> str:
    """Returns the whole report as plain text, or as Markdown with ``fmt="github"``."""
    info = report["dataset"]
    mark = "## " if fmt == "github" else ""
    counts = info["split"]
    head = [
        f"{'# ' if mark else ''}{info['name']} ({info['format']})",
        f"source: {info['source']}",
        f"licence: {info['licence']}",
        f"split: {counts['method']}, ratios {counts['ratios']}, seed {counts['seed']}; "
        f"case: {counts['cases']}",
        f"gray mean {info['pixel_mean'][0]:.2f}, std {info['pixel_std'][0]:.2f} "
        f"({info['pixel_statistics']})",
        f"fingerprint: {info['fingerprint']}",
        "images: {used} used, {skipped} missing or skipped".format(**report["images"]),
    ]
    joint = "\n\n" if mark else "\n"
    return (
        joint.join(head)
        + f"\n\n{mark}Splits\n\n{split_table(report, fmt)}"
        + f"\n\n{mark}Boxes per class\n\n{class_table(report, fmt)}"
        + f"\n\n{mark}Defects\n\n{defect_table(report, fmt)}\n"
    )


def write_report(root: Path, report: dict[str, Any]) -> None:
    """Writes report.json, with every defect by name, and report.md."""
    write_json(root / "report.json", report, indent=1)
    text = report_text(report, "github") + "\nEvery defect by name: report.json\n"
    (root / "report.md").write_text(printable(text), encoding="utf-8")


def _spread(values: list[int]) -> dict[str, float]:
    if not values:
        return {"min": 0, "median": 0, "max": 0}
    return {"min": min(values), "median": median(values), "max": max(values)}
