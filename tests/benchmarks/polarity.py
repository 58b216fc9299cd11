"""Which way up real chromosomes come, where a person placed them or their homologs can be asked.

    python tests/benchmarks/polarity.py --crops data/karyotype_crops
    python tests/benchmarks/polarity.py --pairs data/tseng2023-official --images 300
    python tests/benchmarks/polarity.py --drawn 60
    python tests/benchmarks/polarity.py --crops data/karyotype_crops --sheet sheet.png

``--crops``: a folder of cells, each with ``<class>_<n>.tiff`` of single chromosomes, p arm up,
class 1 to 24, cut as the file is (``--threshold``: by a threshold). ``--pairs``: a converted data
set; of each pair of homologs, whether the bands fit better as they were turned than with one turned
over (only with ``--alone`` is that no question of what was decided so); cut by thresholds, or by
the masks of a detector (``--masks CKPT``), as ``make predict`` does it. ``--drawn``: cells to draw,
seed 100.
``--ideogram`` compares with the ideogram instead of asking the network; ``--ckpt`` takes another
network than the included one.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import cv2
import numpy as np

from deepacc_d2.chromosomes import CLASSES
from deepacc_d2.data.bands import standard
from deepacc_d2.images.read import read_gray
from deepacc_d2.images.rings import Ring, trace
from deepacc_d2.karyogram.cut import cut_cell
from deepacc_d2.karyogram.orientation.find import find_polarities
from deepacc_d2.karyogram.orientation.network import PolarityNet
from deepacc_d2.karyogram.orientation.outlines import Outlines, outlines_by
from deepacc_d2.karyogram.orientation.read import annotated_cells, drawn_truth
from deepacc_d2.karyogram.orientation.weights import load_network, shipped_network
from deepacc_d2.karyogram.polarity import Polarity, profiles
from deepacc_d2.karyogram.straighten import Straight, straighten

Judge = Callable[[Sequence[Straight], Sequence[str]], list[Polarity]]

# White around a crop, as there is around a chromosome in a metaphase.
_RIM = 8
# Crops are white where the technician cut away; this much darker is chromosome, of 255.
_CUT_AWAY = 18


def crops(
    folder: Path, *, given: bool = True
) -> Iterable[tuple[str, list[Straight], list[str], list[bool]]]:
    """Yields of each cell its name, strips, classes, and whether the strip's first tip is p.

    Args:
        folder: of cells.
        given: the technician's cut is the mask, instead of a threshold.
    """
    for cell in sorted(path for path in folder.iterdir() if path.is_dir()):
        straights, names, up = [], [], []
        for path in sorted(cell.glob("*.tif*")):
            gray = np.pad(read_gray(path), _RIM, constant_values=255)
            whole = (0.0, 0.0, float(gray.shape[1]), float(gray.shape[0]))
            outline = {0: _outline(gray)} if given else None
            straight = straighten(cut_cell(gray, [whole], outline)[0])
            straights.append(straight)
            names.append(CLASSES[int(path.name.split("_")[0]) - 1])
            up.append(bool(straight.axis[0].imag < straight.axis[-1].imag))
        if straights:
            yield cell.name, straights, names, up


def _outline(gray: np.ndarray) -> list[Ring]:
    """Returns the rings around what of a crop is not white."""
    soft = cv2.GaussianBlur(255.0 - gray.astype(np.float32), (0, 0), 0.7)
    return [tuple(map(tuple, ring)) for ring in trace(soft - _CUT_AWAY)]


def interval(right: int, total: int) -> str:
    """Returns a share in percent with its 95 % Wilson interval."""
    if not total:
        return "-"
    p, z = right / total, 1.96
    middle = (p + z * z / (2 * total)) / (1 + z * z / total)
    half = z / (1 + z * z / total) * math.sqrt(p * (1 - p) / total + (z / (2 * total)) ** 2)
    return f"{100 * p:.1f} % ({100 * (middle - half):.1f} to {100 * (middle + half):.1f})"


def told(names: np.ndarray, right: np.ndarray, sure: np.ndarray) -> str:
    """Returns the shares right: of all, by class, and by how sure the judge was."""
    lines = [f"{len(right)} chromosomes, p arm up: {interval(int(right.sum()), len(right))}"]
    by_class = [(n, right[names == n]) for n in CLASSES if (names == n).any()]
    lines.append("by class: " + ", ".join(f"{n} {100 * r.mean():.1f}" for n, r in by_class))
    lines.append(f"worst class: {100 * min(r.mean() for _, r in by_class):.1f} %")
    for low, high in ((0.5, 0.75), (0.75, 0.9), (0.9, 0.97), (0.97, 0.99), (0.99, 1.01)):
        rows = (sure >= low) & (sure < high)
        if rows.any():
            lines.append(
                f"probability {low} to {min(high, 1)}: {rows.sum()} chromosomes, mean "
                f"{sure[rows].mean():.3f}, right {right[rows].mean():.3f}"
            )
    return "\n".join(lines)


def measure_crops(folder: Path, judge: Judge, sheet: Path | None, *, given: bool) -> None:
    """Prints how many of a folder's crops come p arm up; draws them."""
    names, right, sure, drawn = [], [], [], []
    for _, straights, classes, up in crops(folder, given=given):
        for straight, name, first, found in zip(
            straights, classes, up, judge(straights, classes), strict=True
        ):
            names.append(name)
            right.append(found.flip != first)
            sure.append(found.confidence)
            if sheet is not None:
                drawn.append((name, straight, found, found.flip != first))
    print(told(np.array(names), np.array(right), np.array(sure)))
    if sheet is not None:
        draw_sheet(sheet, drawn)


def measure_pairs(
    root: Path, images: int, judge: Judge, sheet: Path | None, outlines: Outlines | None
) -> None:
    """Prints how many pairs of homologs agree."""
    agree = total = apart_agree = apart_total = 0
    drawn = []
    for straights, classes, apart in annotated_cells(root, "test", images, outlines=outlines):
        names = [CLASSES[c] for c in classes]
        found = judge(straights, names)
        curves = []
        for name, straight, polarity in zip(names, straights, found, strict=True):
            bands, _ = profiles(straight)
            curves.append(standard(bands[::-1] if polarity.flip else bands))
            if sheet is not None:
                drawn.append((name, straight, polarity, True))
        for index in range(len(CLASSES)):
            rows = [n for n, c in enumerate(classes) if c == index]
            if len(rows) == 2:
                first, second = curves[rows[0]], curves[rows[1]]
                fits = bool(first @ second > first @ second[::-1])
                total, agree = total + 1, agree + fits
                if apart[rows[0]] and apart[rows[1]]:
                    apart_total, apart_agree = apart_total + 1, apart_agree + fits
    print(f"{total} pairs of homologs, agree: {interval(agree, total)}")
    print(f"both apart from others: {apart_total} pairs, {interval(apart_agree, apart_total)}")
    if sheet is not None:
        draw_sheet(sheet, drawn)


def measure_drawn(cells: int, judge: Judge) -> None:
    """Prints polarity and centromere on drawn cells, seed 100."""
    names, right, sure, off, centromere_sure = [], [], [], [], []
    for straights, classes, up, places in drawn_truth(cells, seed=100):
        known = [CLASSES[c] for c in classes]
        for name, first, place, found in zip(
            known, up, places, judge(straights, known), strict=True
        ):
            names.append(name)
            right.append(found.flip != bool(first))
            sure.append(found.confidence)
            along = 1 - found.centromere if found.flip else found.centromere
            off.append(abs(along - place))
            centromere_sure.append(found.centromere_confidence or 0.0)
    print(told(np.array(names), np.array(right), np.array(sure)))
    error, good = np.array(off), np.array(right)
    quarters = np.percentile(error, [50, 90])
    print(
        f"centromere off, share of length: median {quarters[0]:.4f}, 90 % {quarters[1]:.4f}; "
        f"p arm up only: median {np.median(error[good]):.4f}; within 0.05: "
        f"{(error <= 0.05).mean():.3f}, mean confidence {np.mean(centromere_sure):.3f}"
    )


def draw_sheet(
    out: Path, drawn: Sequence[tuple[str, Straight, Polarity, bool]], each: int = 24
) -> None:
    """Draws strips as turned, a row a class; a gray bar marks those called wrong."""
    rows = []
    rng = np.random.default_rng(0)
    for name in CLASSES:
        own = [d for d in drawn if d[0] == name]
        chosen = rng.permutation(len(own))[:each]
        cells = [_tile(*own[int(n)][1:]) for n in chosen]
        cells += [np.full((104, 40, 3), 255, np.uint8)] * (each - len(cells))
        label = np.full((104, 40, 3), 255, np.uint8)
        cv2.putText(label, name, (4, 60), cv2.FONT_HERSHEY_SIMPLEX, 0.7, (0, 0, 0), 2)
        rows.append(np.hstack([label, *cells]))
    cv2.imwrite(str(out), np.vstack(rows))


def _tile(straight: Straight, polarity: Polarity, right: bool) -> np.ndarray:
    step = -1 if polarity.flip else 1
    level = 255 * (1 - np.clip(straight.dark[::step, ::step], 0, 1))
    scale = min(96 / level.shape[0], 34 / level.shape[1])
    size = (max(1, round(level.shape[1] * scale)), max(1, round(level.shape[0] * scale)))
    small = cv2.resize(level.astype(np.uint8), size, interpolation=cv2.INTER_AREA)
    tile = np.full((104, 40, 3), 255, np.uint8)
    left = 3 + (34 - size[0]) // 2
    tile[4 : 4 + size[1], left : left + size[0]] = small[..., None]
    place = 4 + round(polarity.centromere * (size[1] - 1))
    tile[place, :3] = tile[place, -3:] = (0, 0, 220)
    if not right:
        tile[:2] = (0, 0, 255)
    return tile


def main() -> None:
    """Prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--crops", type=Path)
    parser.add_argument("--pairs", type=Path)
    parser.add_argument("--images", type=int, default=300, help="of --pairs")
    parser.add_argument("--masks", type=Path, help="of --pairs: a detector whose masks cut them")
    parser.add_argument("--drawn", type=int, default=0)
    parser.add_argument("--sheet", type=Path, help="draw strips, as turned, by class")
    parser.add_argument("--ckpt", type=Path)
    parser.add_argument("--threshold", action="store_true", help="cut the crops by a threshold")
    parser.add_argument("--alone", action="store_true", help="do not weigh copies together")
    parser.add_argument("--ideogram", action="store_true")
    options = parser.parse_args()
    network: PolarityNet | None = None
    if not options.ideogram:
        network = load_network(options.ckpt)[0] if options.ckpt else shipped_network()

    def judge(straights: Sequence[Straight], names: Sequence[str]) -> list[Polarity]:
        return find_polarities(straights, names, network, together=not options.alone)

    print("by the " + ("ideogram" if network is None else "network"))
    if options.crops:
        measure_crops(options.crops, judge, options.sheet, given=not options.threshold)
    if options.pairs:
        outlines = outlines_by(options.masks) if options.masks else None
        measure_pairs(options.pairs, options.images, judge, options.sheet, outlines)
    if options.drawn:
        measure_drawn(options.drawn, judge)


if __name__ == "__main__":
    main()
