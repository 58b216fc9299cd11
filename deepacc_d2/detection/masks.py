"""From boxes to masks: which pixels of an image are whose, as outlines in its own pixels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from deepacc_d2.cell import Mask
from deepacc_d2.images.gray import Gray
from deepacc_d2.images.rings import Ring, area, bounds, fill, thinned, trace
from deepacc_d2.images.view import View
from deepacc_d2.modeling.instance_masks import InstanceMasks, windows

# Parts smaller than this share of the largest are specks; so are holes of this share of it.
LEAST_PART, LEAST_HOLE = 0.08, 0.03
# Fewer square pixels of the view than this are no mask.
LEAST_AREA = 6.0
# Logit at which a mask ends. Outlines by hand lie where a chromosome's rim has faded, further out
# than one half: chosen on every second spread of another laboratory's, in docs/RESULTS_DETECTOR.md.
EDGE = -0.6
# Windows that are looked at together: more take more memory and no less time.
AT_ONCE = 32


def find_masks(
    network: InstanceMasks, view: View, boxes: NDArray[np.floating], gray: Gray
) -> list[Mask | None]:
    """Returns the mask of each box, None where it shows nothing.

    Args:
        network: in evaluation mode.
        view: what the detector was shown of the image.
        boxes: (N, 4) XYXY in pixels of the image.
        gray: uint8 (H, W), the image.
    """
    height, width = gray.shape
    rings: list[list[Ring]] = [[] for _ in range(len(boxes))]
    for row, level, place in _levels(network, view, _to_view(view, boxes)):
        rings[row] = _rings(level, place, view, (height, width))
    shared = _shared(rings, (height, width))
    return [
        Mask(tuple(tuple(ring) for ring in own), share) if own else None
        for own, share in zip(rings, shared, strict=True)
    ]


def _to_view(view: View, boxes: NDArray[np.floating]) -> NDArray[np.float64]:
    """Returns boxes (N, 4) of the image in pixels of the view."""
    height, width = view.image.shape
    x0, y0, x1, y1 = view.crop
    scale = np.tile([width / (x1 - x0), height / (y1 - y0)], 2)
    return (np.asarray(boxes, np.float64).reshape(-1, 4) - [x0, y0, x0, y0]) * scale


def _levels(
    network: InstanceMasks, view: View, boxes: NDArray[np.float64]
) -> list[tuple[int, NDArray[np.float32], NDArray[np.float64]]]:
    """Returns, for each box, its row, its window's logits (S, S) and the window XYXY."""
    device = next(network.parameters()).device
    image = torch.from_numpy(np.ascontiguousarray(view.image))[None, None].to(device)
    # An infinite or upside-down box would be a window of any size.
    sound = np.nan_to_num(np.clip(boxes, -1e4, 1e5))
    every = torch.from_numpy(sound).float().to(device)
    found = []
    with torch.inference_mode():
        for group in windows(every):
            for part in torch.arange(len(group.rows)).split(AT_ONCE):
                rows, areas = group.rows[part], group.areas[part]
                logits = network(image, every[rows], areas, group.side).cpu().numpy()
                places = areas.double().cpu().numpy()
                found += list(zip(rows.tolist(), logits, places, strict=True))
    return found


def _rings(
    level: NDArray[np.float32],
    place: NDArray[np.float64],
    view: View,
    size: tuple[int, int],
) -> list[Ring]:
    """Returns the outlines in a window's logits, in pixels of the image, clipped to it."""
    lines = trace(level - EDGE)
    scale = (place[2] - place[0]) / len(level)
    areas = np.array([area(line) for line in lines]) * scale**2
    if not len(areas) or areas.max() < LEAST_AREA:
        return []
    height, width = size
    kept: list[Ring] = []
    for line, own in zip(lines, areas, strict=True):
        if own < (LEAST_HOLE if _is_hole(line) else LEAST_PART) * areas.max():
            continue
        corners = np.tile(line * scale + place[:2], 2)
        points = view.to_original(corners)[:, :2]
        points = np.clip(thinned(points), 0, [width, height])
        if len(points) >= 3 and area(points) > 0:
            kept.append([(round(float(x), 2), round(float(y), 2)) for x, y in points])
    return kept


def _is_hole(line: NDArray[np.float64]) -> bool:
    """Whether levels are below :data:`EDGE` in what a line encloses."""
    # contourpy keeps what is above on the left of a line, y up: see its signed area.
    x, y = line.T
    return bool(x @ np.roll(y, -1) - y @ np.roll(x, -1) < 0)


def _shared(rings: Sequence[Sequence[Ring]], size: tuple[int, int]) -> list[float]:
    """Returns the share of each mask's pixels that are others' as well."""
    height, width = size
    count = np.zeros((height, width), np.uint8)
    filled: list[tuple[tuple[slice, slice], NDArray[np.bool_]] | None] = []
    for own in rings:
        if not own:
            filled.append(None)
            continue
        x0, y0, x1, y1 = bounds(own)
        left, top = int(np.floor(x0)), int(np.floor(y0))
        right, bottom = min(int(np.ceil(x1)), width), min(int(np.ceil(y1)), height)
        inside = fill(own, (max(bottom - top, 0), max(right - left, 0)), (left, top))
        place = (slice(top, bottom), slice(left, right))
        count[place] += inside
        filled.append((place, inside))
    return [
        0.0 if each is None else float((count[each[0]][each[1]] > 1).sum() / max(each[1].sum(), 1))
        for each in filled
    ]
