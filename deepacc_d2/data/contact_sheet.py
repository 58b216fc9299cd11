"""A picture of some images of a data set with their boxes, to see at a glance that they fit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np

from deepacc_d2 import palette
from deepacc_d2.chromosomes import CLASSES, DENVER_GROUPS, GROUP_OF
from deepacc_d2.data.coco import load_coco_split
from deepacc_d2.data.splits import SPLITS
from deepacc_d2.images.read import read_gray

# As OpenCV takes them.
GROUP_COLORS: dict[str, tuple[int, int, int]] = {
    group: (int(color[5:], 16), int(color[3:5], 16), int(color[1:3], 16))
    for group, color in palette.GROUP_COLORS.items()
}
_FONT = cv2.FONT_HERSHEY_SIMPLEX
_CELL = (720, 660)  # width, height in px
_TITLE = 28
_COLUMNS = 4


def draw_boxes(
    image: np.ndarray, boxes: np.ndarray, classes: list[int], *, scale: float = 1.0
) -> np.ndarray:
    """Returns the image enlarged by ``scale`` with boxes coloured per Denver group and labelled.

    Args:
        image: gray uint8 (H, W) or BGR uint8 (H, W, 3).
        boxes: float (N, 4), left, top, right, bottom in px of the image.
        classes: class indices 0..23, length N.
        scale: enlargement.

    Returns:
        BGR uint8 (round(H * scale), round(W * scale), 3).
    """
    if image.ndim == 2:
        image = cv2.cvtColor(image, cv2.COLOR_GRAY2BGR)
    size = (max(round(image.shape[1] * scale), 1), max(round(image.shape[0] * scale), 1))
    canvas = cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    corners = np.rint(np.asarray(boxes, dtype=np.float64).reshape(-1, 4) * scale).astype(int)
    for (left, top, right, bottom), index in zip(corners.tolist(), classes, strict=True):
        color = GROUP_COLORS[GROUP_OF[CLASSES[index]]]
        cv2.rectangle(canvas, (left, top), (right - 1, bottom - 1), color, 1)
    # labels after all boxes, so that no line crosses a label
    taken: list[tuple[int, int]] = []
    for box, index in zip(corners.tolist(), classes, strict=True):
        color = GROUP_COLORS[GROUP_OF[CLASSES[index]]]
        (width, height), _ = cv2.getTextSize(CLASSES[index], _FONT, 0.42, 1)
        x, y = _free_place(box, (width + 4, height + 5), size, taken)
        cv2.rectangle(canvas, (x, y), (x + width + 3, y + height + 4), color, cv2.FILLED)
        at = (x + 2, y + height + 2)
        cv2.putText(canvas, CLASSES[index], at, _FONT, 0.42, (255, 255, 255), 1, cv2.LINE_AA)
    return canvas


def _free_place(
    box: list[int], label: tuple[int, int], size: tuple[int, int], taken: list[tuple[int, int]]
) -> tuple[int, int]:
    """Returns the corner for a label: the first of some places at the box that hides no other."""
    left, top, right, bottom = box
    width, height = label
    choices = [
        (x, y)
        for y in (top - height, bottom, top, bottom - height)
        for x in (left, right - width, (left + right - width) // 2)
    ]
    inside = [
        (min(max(x, 0), max(size[0] - width, 0)), min(max(y, 0), max(size[1] - height, 0)))
        for x, y in choices
    ]
    # labels differ in width by one digit: treating all as the widest is simple and safe
    free = (
        p for p in inside if all(abs(p[0] - x) > 22 or abs(p[1] - y) > height for x, y in taken)
    )
    place = next(free, inside[0])
    taken.append(place)
    return place


def contact_sheet(root: str | Path, *, count: int = 12) -> np.ndarray:
    """Returns the sheet: evenly spaced images of all splits in a grid, with a legend at the foot.

    Args:
        root: an internal data set.
        count: images, at most.

    Returns:
        BGR uint8 (H, W, 3).
    """
    chosen = _choose(Path(root), count)
    columns = max(min(_COLUMNS, len(chosen)), 1)
    rows = max(-(-len(chosen) // columns), 1)
    width, height = _CELL
    sheet = np.full((rows * height + 50, columns * width, 3), 255, dtype=np.uint8)
    for place, (split, image, boxes) in enumerate(chosen):
        top, left = (place // columns) * height, (place % columns) * width
        _draw_cell(sheet[top : top + height, left : left + width], root, split, image, boxes)
    _draw_legend(sheet[rows * height :])
    return sheet


def write_contact_sheet(root: str | Path, *, count: int = 12) -> Path:
    """Writes ``ROOT/contact_sheet.png`` and returns its path."""
    path = Path(root) / "contact_sheet.png"
    _, png = cv2.imencode(".png", contact_sheet(root, count=count))
    path.write_bytes(png.tobytes())
    return path


def _choose(root: Path, count: int) -> list[tuple[str, dict[str, Any], list[dict[str, Any]]]]:
    everything: list[tuple[str, dict[str, Any], list[dict[str, Any]]]] = []
    for split in SPLITS:
        coco = load_coco_split(root, split)
        own: dict[int, list[dict[str, Any]]] = {}
        for annotation in coco["annotations"]:
            own.setdefault(annotation["image_id"], []).append(annotation)
        everything += [(split, image, own.get(image["id"], [])) for image in coco["images"]]
    places = np.linspace(0, len(everything) - 1, min(count, len(everything))).round().astype(int)
    return [everything[place] for place in places]


def _draw_cell(
    cell: np.ndarray,
    root: str | Path,
    split: str,
    image: dict[str, Any],
    annotations: list[dict[str, Any]],
) -> None:
    gray = read_gray(Path(root) / "images" / image["file_name"])
    scale = min((cell.shape[1] - 8) / gray.shape[1], (cell.shape[0] - _TITLE - 8) / gray.shape[0])
    boxes = np.array([a["bbox"] for a in annotations], dtype=np.float64).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    drawn = draw_boxes(gray, boxes, [a["category_id"] - 1 for a in annotations], scale=scale)
    # OpenCV's fonts are ASCII: other letters would come out as question marks
    name = image["file_name"].encode("ascii", "replace").decode()
    title = f"{split}  {name}  {len(annotations)} boxes"
    cv2.putText(cell, title, (6, 20), _FONT, 0.55, (0, 0, 0), 1, cv2.LINE_AA)
    cell[_TITLE : _TITLE + drawn.shape[0], 4 : 4 + drawn.shape[1]] = drawn


def _draw_legend(strip: np.ndarray) -> None:
    x = 10
    for group, names in DENVER_GROUPS.items():
        text = f"{group}: {', '.join(names)}"
        cv2.rectangle(strip, (x, 14), (x + 24, 38), GROUP_COLORS[group], cv2.FILLED)
        cv2.putText(strip, text, (x + 30, 33), _FONT, 0.6, (0, 0, 0), 1, cv2.LINE_AA)
        x += 60 + cv2.getTextSize(text, _FONT, 0.6, 1)[0][0]
