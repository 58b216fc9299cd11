"""The strips that the polarity network is trained on: of real cells, and of drawn ones.

Real chromosomes come with their class and no polarity; drawn ones with all that is known of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from deepacc_d2.chromosomes import CLASSES
from deepacc_d2.data.coco import load_coco_split
from deepacc_d2.data.synthetic.config import SyntheticConfig
from deepacc_d2.data.synthetic.render import render_metaphase
from deepacc_d2.images.read import read_gray
from deepacc_d2.karyogram.cut import Box, Cut
from deepacc_d2.karyogram.orientation.outlines import Outlines, cut_out
from deepacc_d2.karyogram.orientation.strips import Strips, of_straights, tip_rows
from deepacc_d2.karyogram.polarity import find_polarity
from deepacc_d2.karyogram.straighten import Straight, straighten

# Chromosomes with fewer pixels than this between them touch.
_NEAR = 2
# Tips of a drawn strip that are further than this from the telomeres (share of the length) are a
# wrong cut, which says nothing about polarity.
_OFF = 0.25


def boxes_of(annotations: Iterable[dict[str, Any]]) -> list[Box]:
    """Returns the XYXY boxes of COCO annotations."""
    return [(x, y, x + w, y + h) for x, y, w, h in (a["bbox"] for a in annotations)]


def lying_apart(cuts: Sequence[Cut], shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Returns for each cut of an image (H, W) whether no other one comes near it."""
    height, width = shape
    owners = np.zeros((height + 2 * _NEAR, width + 2 * _NEAR), np.uint8)
    places = []
    for cut in cuts:
        rows, columns = cut.mask.shape
        # Indices into the padded image of the mask and of what is around it.
        place = (slice(cut.y, cut.y + rows + 2 * _NEAR), slice(cut.x, cut.x + columns + 2 * _NEAR))
        around = cv2.dilate(
            np.pad(cut.mask, _NEAR).astype(np.uint8), np.ones((_NEAR + 1, _NEAR + 1), np.uint8)
        )
        places.append((place, around))
        owners[place] += np.asarray(around, dtype=owners.dtype)
    return np.array(
        [
            not cut.whole and not (owners[place][around > 0] > 1).any()
            for cut, (place, around) in zip(cuts, places, strict=True)
        ],
        bool,
    )


def annotated_cells(
    root: Path,
    split: str,
    images: int | None = None,
    *,
    outlines: Outlines | None = None,
) -> Iterable[tuple[list[Straight], list[int], list[bool]]]:
    """Cuts and straightens the chromosomes of a data set's images, by their true boxes.

    Args:
        root: a converted data set.
        split: of it.
        images: how many, evenly spaced; None for all.
        outlines: finds those of an image's chromosomes; without, they are cut by thresholds.

    Yields:
        The strips of one cell, their class indices, and whether each lies apart.
    """
    coco = load_coco_split(root, split)
    own: dict[int, list[dict[str, Any]]] = {}
    for annotation in coco["annotations"]:
        own.setdefault(annotation["image_id"], []).append(annotation)
    count = len(coco["images"])
    chosen = np.unique(np.linspace(0, count - 1, min(images or count, count)).round().astype(int))
    for number in chosen.tolist():
        record = coco["images"][number]
        annotations = own.get(record["id"], [])
        if not annotations:
            continue
        gray = read_gray(root / "images" / record["file_name"])
        boxes = boxes_of(annotations)
        cuts = cut_out(gray, boxes, outlines)
        apart = lying_apart(cuts, gray.shape)
        yield (
            [straighten(cut) for cut in cuts],
            [a["category_id"] - 1 for a in annotations],
            apart.tolist(),
        )


def read_real(
    root: Path, split: str, images: int | None = None, *, outlines: Outlines | None = None
) -> Iterable[tuple[Strips, NDArray[np.float64]]]:
    """Reads strips of real cells; arguments as for :func:`annotated_cells`.

    Yields:
        The strips of one cell, and float64 (N,) the log-odds that the p arm comes first by the
        comparison with the ideogram.
    """
    cells = annotated_cells(root, split, images, outlines=outlines)
    for number, (straights, classes, apart) in enumerate(cells):
        yield (
            of_straights(straights, classes, cell=number, apart=apart),
            matched(straights, classes),
        )


def matched(straights: list[Straight], classes: list[int]) -> NDArray[np.float64]:
    """Returns the log-odds (N,) that the p arm comes first, by the ideogram."""
    odds = []
    for straight, index in zip(straights, classes, strict=True):
        found = find_polarity(straight, CLASSES[index])
        sure = min(found.confidence, 1 - 1e-6)
        odds.append((-1 if found.flip else 1) * np.log(sure / (1 - sure)))
    return np.array(odds)


CONDENSATION, OPEN_RATE = 2.0, 0.2
"""Of drawn cells; see :class:`deepacc_d2.data.synthetic.SyntheticConfig`."""


def drawn_truth(
    cells: int, seed: int, *, outlines: Outlines | None = None
) -> Iterable[tuple[list[Straight], list[int], list[float], list[float]]]:
    """Draws cells, each of another case and staining batch.

    Chromosomes whose cut does not end at the telomeres are left out.

    Args:
        cells: how many.
        seed: of them.
        outlines: see :func:`annotated_cells`.

    Yields:
        The strips of one cell, their class indices, 1 where the p arm comes first, and the
        centromere's place from the first tip, 0 to 1.
    """
    # A margin as annotators and detectors leave it, and the looks of more than one laboratory.
    config = SyntheticConfig(
        seed=seed,
        box_margin=4,
        cells_per_case=1,
        num_batches=max(cells, 1),
        condensation=CONDENSATION,
        open_rate=OPEN_RATE,
    )
    for case in range(cells):
        image, record = render_metaphase(config, case, 0)
        yield _with_truth(image, record["annotations"], outlines)


def draw_cells(cells: int, seed: int, *, outlines: Outlines | None = None) -> Iterable[Strips]:
    """Yields the strips of drawn cells with their truth; see :func:`drawn_truth`."""
    drawn = drawn_truth(cells, seed, outlines=outlines)
    for number, (straights, classes, up, places) in enumerate(drawn):
        yield of_straights(straights, classes, cell=number, up=up, centromere=places)


def _with_truth(
    image: NDArray[np.uint8], annotations: list[dict[str, Any]], outlines: Outlines | None
) -> tuple[list[Straight], list[int], list[float], list[float]]:
    straights, classes, up, places = [], [], [], []
    cuts = cut_out(image, boxes_of(annotations), outlines)
    for cut, annotation in zip(cuts, annotations, strict=True):
        straight = straighten(cut)
        p, q = (complex(*tip) for tip in annotation["axis"])
        first, last = tip_rows(straight)
        axis = straight.axis[first:last]
        right = abs(axis[0] - p) + abs(axis[-1] - q)
        wrong = abs(axis[0] - q) + abs(axis[-1] - p)
        if cut.whole or min(right, wrong) > _OFF * len(axis):
            continue
        middle = np.abs(axis - complex(*annotation["centromere"]))
        straights.append(straight)
        classes.append(annotation["category_id"] - 1)
        up.append(float(right < wrong))
        places.append((float(np.argmin(middle)) + 0.5) / len(axis))
    return straights, classes, up, places
