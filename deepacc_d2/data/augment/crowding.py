"""An augmentation that moves isolated chromosomes onto others, so that they touch and cross.

Where real chromosomes touch or cross, detectors miss and misname most. An isolated chromosome can
be cut out by a threshold, exactly; put down elsewhere in its own image, it crowds the image without
a change of tone or of the number of copies of any class.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from detectron2.data import transforms as T
from numpy.typing import NDArray

from deepacc_d2.errors import ConfigError
from deepacc_d2.images.spread import WHITE

# Gray levels darker than the background that a chromosome's pixels are at least.
DEPTH = 35.0
# An isolated chromosome fills at least this share of its box.
LEAST_FILL = 0.12
# Dark pixels in its box that no chromosome claims, as a share of its own: more may be an arm of it
# that a pale band cuts off.
MOST_STRAY = 0.1
# Around the thresholded pixels, what the pale edge takes, in pixels.
EDGE = 2
# A moved chromosome's center ends up this far from its target's, in half the sum of sizes.
NEAREST, FARTHEST = 0.15, 0.9


@dataclass(frozen=True)
class Cutout:
    """An isolated chromosome.

    Attributes:
        row: of its box.
        corner: x, y of the mask's upper left pixel.
        mask: uint8 (h, w), 1 where it is, its edge included.
        margins: (4,) from the thresholded pixels to the box's sides, as XYXY, outward positive.
    """

    row: int
    corner: tuple[int, int]
    mask: NDArray[np.uint8]
    margins: NDArray[np.float64]


def isolated(image: NDArray[np.uint8], boxes: NDArray[np.floating]) -> list[Cutout]:
    """Finds the chromosomes that touch no other one.

    Args:
        image: uint8 (H, W), dark on a light, even background.
        boxes: (G, 4) XYXY of all chromosomes, in pixels.

    Returns:
        Those whose thresholded pixels are one part that does not leave the box, is no other box's
        part as well, and leaves nothing dark behind.
    """
    dark = (image < WHITE - DEPTH).astype(np.uint8)
    _, labels, stats, _ = cv2.connectedComponentsWithStats(dark, connectivity=8)
    height, width = image.shape
    corners = np.clip(np.rint(boxes), 0, [width, height, width, height]).astype(int)
    # Pixels of each part in each box; background's are none.
    areas = [
        np.bincount(labels[y0:y1, x0:x1].ravel(), minlength=len(stats))
        for x0, y0, x1, y1 in corners
    ]
    pixels = np.reshape(areas, (-1, len(stats)))
    pixels[:, 0] = 0
    parts = pixels.argmax(axis=1)
    claims = np.bincount(parts[pixels.any(axis=1)], minlength=len(stats))
    stray = pixels[:, claims == 0].sum(axis=1)
    found = []
    for row, (box, part) in enumerate(zip(boxes, parts, strict=True)):
        left, top, w, h, area = (int(v) for v in stats[part])
        x0, y0, x1, y1 = corners[row]
        if part == 0 or claims[part] > 1 or area < LEAST_FILL * (x1 - x0) * (y1 - y0):
            continue
        if stray[row] > MOST_STRAY * area:
            continue
        own = np.array([left, top, left + w, top + h], dtype=np.float64)
        margins = (own - box) * np.array([1, 1, -1, -1])
        if margins.min() < -1 or left < EDGE or top < EDGE:
            continue
        if left + w > width - EDGE or top + h > height - EDGE:
            continue
        around = np.s_[top - EDGE : top + h + EDGE, left - EDGE : left + w + EDGE]
        mask = (labels[around] == part).astype(np.uint8)
        kernel = np.ones((2 * EDGE + 1, 2 * EDGE + 1), np.uint8)
        mask = np.asarray(cv2.dilate(mask, kernel), dtype=np.uint8)
        mask[(labels[around] > 0) & (labels[around] != part)] = 0
        found.append(Cutout(row, (left - EDGE, top - EDGE), mask, margins))
    return found


@dataclass(frozen=True)
class Placed:
    """A chromosome that is cut out, changed and put down.

    Attributes:
        cutout: the chromosome.
        center: x, y of its patch's middle afterwards, in pixels.
        additive: light passes through both where it crosses another; else the darker one is seen.
    """

    cutout: Cutout
    center: tuple[float, float]
    additive: bool

    def changed(self, patch: NDArray[np.float32]) -> NDArray[np.float32]:
        """Changes the chromosome's darkness (h, w), 0 outside its mask, into a square (s, s)."""
        raise NotImplementedError


@dataclass(frozen=True)
class Move(Placed):
    """A chromosome that is turned about its mask's middle.

    Attributes:
        angle: in degrees.
    """

    angle: float

    def changed(self, patch: NDArray[np.float32]) -> NDArray[np.float32]:
        """Turns a patch (h, w) about its middle, into a square that holds it at any angle."""
        height, width = patch.shape
        side = int(np.ceil(np.hypot(height, width))) + 2
        matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), self.angle, 1.0)
        matrix[:, 2] += ((side - width) / 2, (side - height) / 2)
        return np.asarray(cv2.warpAffine(patch, matrix, (side, side)), dtype=np.float32)


class PlacingTransform(T.Transform):
    """Cuts chromosomes of one image out, and puts them down changed; boxes follow.

    Made for that image alone.

    Args:
        image: uint8 (H, W).
        moves: what goes where; each chromosome at most once.
    """

    def __init__(self, image: NDArray[np.uint8], moves: Sequence[Placed]) -> None:
        super().__init__()
        self.moves = moves
        self.boxes: dict[int, NDArray[np.float64]] = {}
        dark = self.darkness(image)
        # All are cut out before the first is put down, lest one be cut out together with a piece
        # of another that was put there.
        patches = [self._cut(dark, move) for move in moves]
        for move, patch in zip(moves, patches, strict=True):
            self._put(dark, move, patch)
        self.placed = np.clip(np.rint(WHITE - dark), 0, 255).astype(np.uint8)

    @staticmethod
    def darkness(image: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Returns how far an image (H, W) is below white, in gray levels."""
        return np.asarray(WHITE - image.astype(np.float32), dtype=np.float32)

    def apply_image(self, img: np.ndarray) -> np.ndarray:
        """Returns the image (H, W) that this was made for, changed.

        Raises:
            ValueError: it is another image.
        """
        if img.shape != self.placed.shape:
            raise ValueError(f"made for an image {self.placed.shape}, not {img.shape}")
        return self.placed

    def _cut(self, dark: NDArray[np.float32], move: Placed) -> NDArray[np.float32]:
        """Takes a chromosome out of the darkness (H, W), in place, and returns it changed."""
        mask = move.cutout.mask
        x, y = move.cutout.corner
        place = np.s_[y : y + mask.shape[0], x : x + mask.shape[1]]
        solid = mask > 0
        patch = np.where(solid, np.maximum(dark[place], 0), 0).astype(np.float32)
        dark[place][solid] = 0
        return move.changed(patch)

    def _put(self, dark: NDArray[np.float32], move: Placed, patch: NDArray[np.float32]) -> None:
        """Puts a changed chromosome down in the darkness (H, W), in place, and notes its box."""
        rows, columns = np.nonzero(patch >= min(DEPTH, float(patch.max())))
        side = len(patch)
        height, width = dark.shape
        # The chromosome stays inside the image; its square may reach out.
        left = round(move.center[0] - side / 2)
        top = round(move.center[1] - side / 2)
        left = int(np.clip(left, -columns.min(), width - 1 - columns.max()))
        top = int(np.clip(top, -rows.min(), height - 1 - rows.max()))
        x0, y0 = max(0, left), max(0, top)
        x1, y1 = min(width, left + side), min(height, top + side)
        own = patch[y0 - top : y1 - top, x0 - left : x1 - left]
        under = dark[y0:y1, x0:x1]
        if move.additive:  # transmissions multiply
            through = (1 - np.clip(under, 0, WHITE) / WHITE) * (1 - own / WHITE)
            mixed = WHITE * (1 - through)
            dark[y0:y1, x0:x1] = np.where(own > 0, mixed, under)
        else:
            dark[y0:y1, x0:x1] = np.maximum(under, own)
        margin = float(np.clip(move.cutout.margins, 0, None).mean())
        bounds = np.array(
            [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1], dtype=np.float64
        )
        box = bounds + [left, top, left, top] + margin * np.array([-1, -1, 1, 1])
        self.boxes[move.cutout.row] = np.clip(box, 0, [width, height, width, height])

    def apply_box(self, box: np.ndarray) -> np.ndarray:
        """Returns the boxes (G, 4), in the order in which they were found, after the moves."""
        moved = np.array(box, dtype=np.float64)
        for row, new in self.boxes.items():
            moved[row] = new
        return moved

    def apply_coords(self, coords: np.ndarray) -> np.ndarray:
        """Points cannot be moved: which chromosome they are on is not known."""
        raise NotImplementedError("only boxes can follow moved chromosomes")


class RandomCrowding(T.Augmentation):
    """Moves a few isolated chromosomes onto or next to others.

    After :class:`~deepacc_d2.images.transforms.NormalizeTone`, on which the threshold rests.

    Args:
        most: chromosomes that are moved at most.
        prob: share of images that it is done to.
    """

    def __init__(self, most: int = 8, prob: float = 0.5) -> None:
        super().__init__()
        if most < 1 or not 0 <= prob <= 1:
            raise ConfigError(f"crowding needs most >= 1 and 0 <= prob <= 1, not {most}, {prob}")
        self.most, self.prob = most, prob

    def get_transform(self, image: np.ndarray, boxes: np.ndarray) -> T.Transform:
        """Draws the moves in an image (H, W) with boxes (G, 4)."""
        if self._rand_range() >= self.prob or boxes is None or len(boxes) < 2:
            return T.NoOpTransform()
        cutouts = isolated(image, np.asarray(boxes, dtype=np.float64))
        centers = (boxes[:, :2] + boxes[:, 2:]) / 2
        sizes = np.sqrt(np.prod(np.maximum(boxes[:, 2:] - boxes[:, :2], 1), axis=1))
        wanted = 1 + int(self._rand_range(0, self.most))
        order = np.argsort([float(self._rand_range()) for _ in cutouts])
        busy: set[int] = set()
        moves: list[Move] = []
        for n in order:
            if len(moves) >= wanted:
                break
            cutout = cutouts[int(n)]
            target = int(self._rand_range(0, len(boxes)))
            # A chromosome under another one could not be cut out any more.
            if (
                cutout.row in busy
                or target == cutout.row
                or target in {m.cutout.row for m in moves}
            ):
                continue
            busy |= {cutout.row, target}
            reach = (sizes[cutout.row] + sizes[target]) / 2
            distance = reach * self._rand_range(NEAREST, FARTHEST)
            direction = self._rand_range(0, 2 * np.pi)
            center = centers[target] + distance * np.array([np.cos(direction), np.sin(direction)])
            moves.append(
                Move(
                    cutout,
                    angle=float(self._rand_range(0, 360)),
                    center=(float(center[0]), float(center[1])),
                    additive=bool(self._rand_range() < 0.6),
                )
            )
        return PlacingTransform(image, moves) if moves else T.NoOpTransform()
