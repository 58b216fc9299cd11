"""Sound sources in every format, and Hypothesis' strategies that damage their annotations."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from hypothesis import strategies as st

SIZE = (64, 48)
IMAGES = 6
Boxes = list[tuple[int, tuple[int, int, int, int]]]


@dataclass(frozen=True)
class Source:
    """A source before it is written.

    Attributes:
        annotations: content by path; each is one image's, or all images'.
        images: path of each image by its stem.
        boxes: class 1 to 24 and XYXY in pixels of each image, by its stem.
        owner: the stem that an annotation is of, for those that are of one.
    """

    annotations: dict[str, bytes]
    images: dict[str, str]
    boxes: dict[str, Boxes]
    owner: dict[str, str]


def pictures() -> list[bytes]:
    """Returns small images of noise, all different."""
    rng = np.random.default_rng(1)
    noise = rng.integers(0, 256, (IMAGES, SIZE[1], SIZE[0]), dtype=np.uint8)
    return [cv2.imencode(".png", one)[1].tobytes() for one in noise]


def _boxes(seed: int) -> Boxes:
    rng = np.random.default_rng(seed)
    found: Boxes = []
    for left, top, width, height in rng.integers((0, 0, 5, 5), (40, 25, 20, 20), (4, 4)).tolist():
        found.append((int(rng.integers(1, 25)), (left, top, left + width, top + height)))
    return found


def _name(number: int) -> str:
    return {23: "X", 24: "Y"}.get(number, str(number))


def _plan(image: str, annotation: str) -> tuple[dict[str, str], dict[str, Boxes], dict[str, str]]:
    stems = [f"10500{number}1" for number in range(IMAGES)]
    return (
        {stem: image.format(stem) for stem in stems},
        {stem: _boxes(number) for number, stem in enumerate(stems)},
        {annotation.format(stem): stem for stem in stems} if annotation else {},
    )


def coco() -> Source:
    images, boxes, owner = _plan("images/{}.png", "")
    content: dict[str, Any] = {"images": [], "annotations": [], "categories": []}
    for number, (stem, path) in enumerate(images.items(), start=1):
        name = path.rsplit("/", 1)[-1]
        width, height = SIZE
        content["images"].append(
            {"id": number, "file_name": name, "width": width, "height": height}
        )
        for label, (a, b, c, d) in boxes[stem]:
            entry = {"id": len(content["annotations"]) + 1, "image_id": number}
            box = {"category_id": label, "bbox": [a, b, c - a, d - b], "iscrowd": 0}
            content["annotations"].append({**entry, **box})
    content["categories"] = [{"id": n, "name": _name(n)} for n in range(1, 25)]
    return Source({"annotations.json": json.dumps(content).encode()}, images, boxes, owner)


def _xml(name: str, boxes: Boxes) -> bytes:
    objects = "".join(
        f"<object><name>{_name(label)}</name><bndbox><xmin>{a}</xmin><ymin>{b}</ymin>"
        f"<xmax>{c}</xmax><ymax>{d}</ymax></bndbox></object>\n"
        for label, (a, b, c, d) in boxes
    )
    size = f"<size><width>{SIZE[0]}</width><height>{SIZE[1]}</height><depth>1</depth></size>"
    return f"<annotation><filename>{name}</filename>{size}\n{objects}</annotation>".encode()


def voc() -> Source:
    images, boxes, owner = _plan("JPEGImages/{}.png", "Annotations/{}.xml")
    files = {path: _xml(f"{stem}.png", boxes[stem]) for path, stem in owner.items()}
    files["ImageSets/Main/train.txt"] = "\n".join(list(images)[:4]).encode() + b"\n"
    return Source(files, images, boxes, owner)


def tseng2023() -> Source:
    root = "24_chromosomes_object"
    images, boxes, owner = _plan(root + "/JEPG/{}.png", root + "/annotations/{}.xml")
    # Their images are .jpg; the readers go by what a file holds.
    images = {stem: path.replace(".png", ".jpg") for stem, path in images.items()}
    files = {path: _xml(f"{stem}.jpg", boxes[stem]) for path, stem in owner.items()}
    files["train.txt"] = "\n".join(list(images)[:4]).encode() + b"\n"
    files["test.txt"] = "\n".join(list(images)[4:]).encode() + b"\n"
    return Source(files, images, boxes, owner)


def yolo() -> Source:
    images, boxes, owner = _plan("images/train/{}.png", "labels/train/{}.txt")
    width, height = SIZE
    files = {
        path: "".join(
            f"{label - 1} {(a + c) / 2 / width:.9f} {(b + d) / 2 / height:.9f} "
            f"{(c - a) / width:.9f} {(d - b) / height:.9f}\n"
            for label, (a, b, c, d) in boxes[stem]
        ).encode()
        for path, stem in owner.items()
    }
    names = "".join(f"  - '{_name(n)}'\n" for n in range(1, 25))
    files["data.yaml"] = f"train: images/train\nnc: 24\nnames:\n{names}".encode()
    return Source(files, images, boxes, owner)


def labelme() -> Source:
    images, boxes, owner = _plan("{}.png", "{}.json")
    files = {}
    for path, stem in owner.items():
        shapes = [
            {"label": _name(label), "points": [[a, b], [c, d]], "shape_type": "rectangle",
             "group_id": None, "flags": {}}
            for label, (a, b, c, d) in boxes[stem]
        ]  # fmt: skip
        content = {"version": "5.5.0", "shapes": shapes, "imagePath": images[stem],
                   "imageHeight": SIZE[1], "imageWidth": SIZE[0], "imageData": None}  # fmt: skip
        files[path] = json.dumps(content).encode()
    return Source(files, images, boxes, owner)


SOURCES: dict[str, Callable[[], Source]] = {
    "coco": coco,
    "voc": voc,
    "yolo": yolo,
    "labelme": labelme,
    "tseng2023": tseng2023,
}

ODD = (
    *("NaN", "-1", "0", "1e309", "-1e400", "99999999999999999999", "", "null", "true", "[]", "{}"),
    *("Infinity", "0x10", "1,5", "١", "é", "🧬", "../../../etc/passwd", "&x;", "-0", "1e-320"),
    *('"', "'", "\\", "<", "\x00", "\ud800", "%20", " ", "\n", "=cmd()", "[[[[", '"\\ud800"'),
    *("1_0", "24", "25", "X", "x", "chrX", "010", "1.0", "2.5", '"23"', "[1]", '{"a": 1}'),
)
_TOKEN = re.compile(rb"-?\d+(?:\.\d+)?|[A-Za-z_]+|\S")
DTD = b'<!DOCTYPE a [<!ENTITY x "' + b"y" * 50 + b'"><!ENTITY z "&x;&x;&x;&x;">]>'


@dataclass(frozen=True)
class Damage:
    """One thing done to one file: what, to which (by number), and where (two shares of it)."""

    kind: str
    file: int
    at: float
    to: float
    text: str


_BYTES: dict[str, Callable[[bytes, Damage], bytes]] = {
    "cut": lambda data, d: data[: int(len(data) * d.at)],
    "empty": lambda data, d: b"",
    "insert": lambda data, d: _put(data, d, _raw(d.text)),
    "flip": lambda data, d: _flip(data, d),  # noqa: PLW0108 - defined below
    "lose": lambda data, d: (
        data[: int(len(data) * min(d.at, d.to))] + data[int(len(data) * max(d.at, d.to)) :]
    ),
    "token": lambda data, d: _token(data, d),  # noqa: PLW0108
    "token everywhere": lambda data, d: _token(data, d, everywhere=True),
    "line twice": lambda data, d: _lines(data, d, 2),
    "line lost": lambda data, d: _lines(data, d, 0),
    "utf-16": lambda data, d: data.decode("utf-8", "replace").encode("utf-16"),
    "utf-8 with mark": lambda data, d: b"\xef\xbb\xbf" + data,
    "latin-1": lambda data, d: _put(data, d, "é".encode("latin-1")),
    "crlf": lambda data, d: data.replace(b"\n", b"\r\n"),
    "nul": lambda data, d: _put(data, d, b"\0"),
    "entities": lambda data, d: DTD + data,
    "deep": lambda data, d: _put(data, d, b"[" * 20_000),
    "pasted twice": lambda data, d: data + data,
}
VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1.5, 25, 10**30, 1e308, "", "x", "1", "NaN", "010", [], {}, [[]]),
    *([1], [1, 2, 3, 4], ["a"], {"a": 1}, [None] * 4, "\ud800", "../x", "é" * 300, [0] * 5),
)


def _value(data: bytes, d: Damage) -> bytes:
    """Puts another value into JSON, or takes one out, wherever the two shares lead."""
    try:
        content = json.loads(data)
    except ValueError:
        return data
    node, share = content, d.at
    while isinstance(node, (dict, list)) and node:
        keys = list(node) if isinstance(node, dict) else range(len(node))
        share *= len(keys)
        key = keys[min(int(share), len(keys) - 1)]
        share -= int(share)
        below = node[key]  # type: ignore[call-overload]
        if not isinstance(below, (dict, list)) or not below or share < d.to / 4:
            if d.text == "":
                del node[key]  # type: ignore[arg-type]
            else:
                node[key] = VALUES[int(d.to * (len(VALUES) - 1))]  # type: ignore[call-overload]
            break
        node = below
    return json.dumps(content).encode()


_BYTES["json value"] = _value
FILES = ("delete", "copy", "folder", "link to itself", "image gone", "image cut", "image copied")
KINDS = (*_BYTES, *FILES, *["token"] * 4, "token everywhere", *["json value"] * 6)


def damages() -> st.SearchStrategy[list[Damage]]:
    """Returns a strategy of one to four damages."""
    share = st.floats(0, 1, allow_nan=False)
    one = st.builds(
        Damage, st.sampled_from(KINDS), st.integers(0, 40), share, share, st.sampled_from(ODD)
    )
    return st.lists(one, min_size=1, max_size=4)


def _raw(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _put(data: bytes, d: Damage, what: bytes) -> bytes:
    at = int(len(data) * d.at)
    return data[:at] + what + data[at:]


def _flip(data: bytes, d: Damage) -> bytes:
    if not data:
        return data
    at = min(int(len(data) * d.at), len(data) - 1)
    return data[:at] + bytes([data[at] ^ (1 << int(7.9 * d.to))]) + data[at + 1 :]


def _token(data: bytes, d: Damage, *, everywhere: bool = False) -> bytes:
    found = list(_TOKEN.finditer(data))
    if not found:
        return data
    match = found[min(int(len(found) * d.at), len(found) - 1)]
    if everywhere:
        return re.sub(rb"\b" + re.escape(match[0]) + rb"\b", lambda _: _raw(d.text), data)
    return data[: match.start()] + _raw(d.text) + data[match.end() :]


def _lines(data: bytes, d: Damage, times: int) -> bytes:
    lines = data.splitlines(keepends=True)
    if not lines:
        return data
    at = min(int(len(lines) * d.at), len(lines) - 1)
    return b"".join([*lines[:at], *[lines[at]] * times, *lines[at + 1 :]])


def write(source: Source, damage: list[Damage], root: Path, images: list[bytes]) -> set[str]:
    """Writes a damaged source.

    Returns:
        The stems of the images that no damage touched; none where one was to all of them.
    """
    files = dict(source.annotations)
    names = sorted(files)
    pictures = dict(zip(source.images.values(), images, strict=True))
    stems, untouched = list(source.images), set(source.images)
    places: list[tuple[str, str]] = []
    for one in damage:
        name, stem = names[one.file % len(names)], stems[one.file % len(stems)]
        path = source.images[stem]
        if one.kind.startswith("image"):
            untouched.discard(stem)
            data = pictures.pop(path, b"")
            if one.kind == "image cut":
                pictures[path] = data[: int(len(data) * one.at)]
            elif one.kind == "image copied":
                pictures[path] = data
                pictures[f"{Path(path).parent}/copy_{Path(path).name}"] = data
            continue
        owner = source.owner.get(name)
        untouched = untouched - {owner} if owner else set()
        if one.kind in ("delete", "folder", "link to itself"):
            if files.pop(name, None) is not None and one.kind != "delete":
                places.append((one.kind, name))
        elif one.kind == "copy":
            files[f"{Path(name).parent}/copy_{Path(name).name}"] = source.annotations[name]
        elif name in files:
            files[name] = _BYTES[one.kind](files[name], one)
    for name, data in [*files.items(), *pictures.items()]:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    for kind, name in places:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        if kind == "folder":
            (root / name).mkdir()
        else:
            (root / name).symlink_to(Path(name).name)
    return untouched
