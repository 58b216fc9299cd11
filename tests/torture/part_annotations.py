"""Damaged annotation sets through the conversion: what must hold, as Hypothesis tries it."""

from __future__ import annotations

import json
import shutil
import traceback
from pathlib import Path
from typing import Any

import cv2
from damaged_annotations import SOURCES, Damage, Source, damages, pictures, write
from hypothesis import HealthCheck, Phase, given, seed, settings
from part import Part

from deepacc_d2.data.convert import convert
from deepacc_d2.data.validate import validate
from deepacc_d2.errors import UserError

GOAL = 500
# Each attempt ends with its first failure, made as small as it goes.
ATTEMPTS = 5


def run(part: Part) -> None:
    """Converts a share of the goal in every format."""
    cv2.setNumThreads(1)
    images = pictures()
    for number, fmt in enumerate(SOURCES):
        each = part.result.goal // len(SOURCES)
        for attempt in range(ATTEMPTS):
            each -= _look(part, fmt, images, each, attempt, number)
            if each <= 0 or not part.has_time:
                break


def _look(  # noqa: PLR0917
    part: Part, fmt: str, images: list[bytes], most: int, attempt: int, turn: int
) -> int:
    """Looks for a failure in a format; returns how many sets were converted."""
    source = SOURCES[fmt]()
    tried, failed = 0, False

    @seed(1000 * part.result.seed + 10 * turn + attempt)
    @settings(
        max_examples=most,
        deadline=None,
        database=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
        print_blob=False,
    )
    @given(damages())
    def holds(damage: list[Damage]) -> None:
        nonlocal tried, failed
        if not failed and (not part.share(turn, len(SOURCES)) and tried > most // 4):
            return
        try:
            outcome = _check(part.work, fmt, source, damage, images)
        except BaseException:
            failed = True
            raise
        if not failed:
            tried += 1
            part.tried()
            part.count(f"{fmt}: {outcome}")

    try:
        holds()
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        part.tried()
        tried += 1
        where = traceback.extract_tb(error.__traceback__)[-1]
        notes = " ".join(getattr(error, "__notes__", []))
        part.fail(
            f"{fmt}: {type(error).__name__}: {str(error)[:300]} ({where.filename}:{where.lineno})",
            notes,
        )
    return tried


def _check(work: Path, fmt: str, source: Source, damage: list[Damage], images: list[bytes]) -> str:
    """Converts a damaged source and checks all that must hold; returns what came of it."""
    folder = work / "one"
    shutil.rmtree(folder, ignore_errors=True)
    root, out = folder / "src", folder / "out"
    root.mkdir(parents=True)
    untouched = write(source, damage, root, images)
    try:
        report = convert(fmt, root, out)
    except UserError as error:
        line = str(error)
        assert "\n" not in line, f"more than a line: {line!r}"
        assert 10 < len(line) < 2000, f"{len(line)} characters: {line[:300]}"
        line.encode("utf-8")
        rest = sorted(path.name for path in folder.iterdir())
        assert rest == ["src"], f"an error leaves {rest}"
        return "refused"
    assert sorted(path.name for path in folder.iterdir()) == ["out", "src"]
    _check_sound(out)
    _check_nothing_lost(root, out, report)
    _check_untouched(source, untouched, out, report)
    return "converted with defects" if report["defects"] else "converted"


def _check_sound(out: Path) -> None:
    fatal = [finding for finding in validate(out) if finding.check.fatal]
    assert not fatal, f"the result is unsound: {fatal[0]}"
    for split in ("train", "val", "test"):
        content = _strict(out / "annotations" / f"{split}.json")
        sizes = {image["id"]: (image["width"], image["height"]) for image in content["images"]}
        for annotation in content["annotations"]:
            x, y, w, h = annotation["bbox"]
            width, height = sizes[annotation["image_id"]]
            inside = x >= 0 and y >= 0 and x + w <= width + 1e-6 and y + h <= height + 1e-6
            inside = inside and min(w, h) >= 1
            assert inside, f"box {annotation['bbox']} in {width}x{height}"
            assert annotation["category_id"] in range(1, 25)
    _strict(out / "report.json")


def _strict(path: Path) -> Any:
    def refuse(text: str) -> None:
        raise AssertionError(f"{path.name} holds {text}, which is no JSON")

    return json.loads(path.read_text("utf-8"), parse_constant=refuse)


def _named(report: dict[str, Any]) -> str:
    found = (f for entry in report["defects"].values() for f in entry["found"])
    return "\n".join(f"{one['name']} {one['detail']}" for one in found)


def _check_nothing_lost(root: Path, out: Path, report: dict[str, Any]) -> None:
    used = {path.name for path in (out / "images").iterdir()}
    named = _named(report)
    for path in root.rglob("*"):
        if path.suffix in (".png", ".jpg") and path.name not in used:
            assert path.stem in named, f"{path.name} is neither used nor named in the report"


def _check_untouched(
    source: Source, untouched: set[str], out: Path, report: dict[str, Any]
) -> None:
    """Good files among bad ones come out as they are, or the report names them."""
    named = _named(report)
    found: dict[str, list[Any]] = {}
    for split in ("train", "val", "test"):
        content = json.loads((out / "annotations" / f"{split}.json").read_text("utf-8"))
        stems = {image["id"]: Path(image["file_name"]).stem for image in content["images"]}
        for stem in stems.values():
            found[stem] = []
        for one in content["annotations"]:
            x, y, w, h = one["bbox"]
            box = (one["category_id"], tuple(round(v, 3) for v in (x, y, x + w, y + h)))
            found[stems[one["image_id"]]].append(box)
    for stem in untouched:
        if stem in named:
            continue
        wanted = sorted((label, tuple(map(float, box))) for label, box in source.boxes[stem])
        got = sorted((label, tuple(map(float, box))) for label, box in found.get(stem, []))
        assert _close(got, wanted), f"{stem} was sound: {wanted} became {got}"


def _close(a: list[Any], b: list[Any]) -> bool:
    return len(a) == len(b) and all(
        x[0] == y[0] and max(abs(p - q) for p, q in zip(x[1], y[1], strict=True)) < 0.01
        for x, y in zip(a, b, strict=True)
    )
