"""``make polarity``: trains the network that turns chromosomes p arm up and finds centromeres.

Drawn chromosomes come with the truth. Real ones come with their class alone: all strips of a class
are aligned with each other over all cells, the ideogram decides the sign by vote, and the network
learns from those that are clear. Then it reads them all itself, and is trained again on those that
it is sure of where the alignment and the homolog of the same cell do not speak against it. Without
a data set, drawn chromosomes are all that it learns from: so is the included network made, as no
terms but our own are on them.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from deepacc_d2.command.flags import build_parser
from deepacc_d2.data.dataset import read_info
from deepacc_d2.detection.detector import DEFAULT_CHECKPOINT, model_hash
from deepacc_d2.errors import ConfigError, run_cli
from deepacc_d2.files import whole_file, write_json
from deepacc_d2.karyogram.orientation.card import card_of, summary, told
from deepacc_d2.karyogram.orientation.fit import (
    NEAR,
    answer,
    fit,
    fit_heat_temperature,
    fit_temperature,
    read_scores,
)
from deepacc_d2.karyogram.orientation.labels import Sign, align_classes, homolog_gains
from deepacc_d2.karyogram.orientation.network import PolarityNet, shown_place
from deepacc_d2.karyogram.orientation.outlines import Outlines, outlines_by
from deepacc_d2.karyogram.orientation.read import draw_cells, read_real
from deepacc_d2.karyogram.orientation.strips import Strips
from deepacc_d2.karyogram.orientation.weights import save_network

Array = NDArray[np.float64]

# Alignment's gain from which a strip is clear, and the network's log-odds (0.95).
_CLEAR, _SURE = 0.12, 3.0
# Difference of correlations from which a homolog speaks against.
_AGAINST = 0.15
# Share of what is shown that is drawn, and share of cells kept for the temperatures.
_DRAWN, _HELD = 0.3, 0.1
# A network of drawn strips that thresholds cut reads better, drawn and real ones, if strips have a
# margin at both tips. Of nine values, homologs of 100 validation images agree most often at this
# one. Of strips that masks cut, they agree most often without a margin.
_EXTENT = 0.94


def clear_labels(strips: Strips, gains: Array) -> tuple[Array, Array]:
    """Returns probability p arm first (N,) and weight (N,) by the alignment alone."""
    weight = (np.abs(gains) >= _CLEAR) & strips.apart
    return (gains > 0).astype(np.float64), weight.astype(np.float64)


def sure_labels(strips: Strips, odds: Array, gains: Array) -> tuple[Array, Array]:
    """Returns probability (N,) and weight (N,) by what a network says.

    Args:
        strips: real ones.
        odds: (N,) the network's log-odds.
        gains: (N,) of the alignment, 0 where it says nothing.
    """
    sign = np.sign(odds)
    sure = np.abs(odds) >= _SURE
    against = (gains * sign < -_CLEAR) | (homolog_gains(strips, odds) < -_AGAINST)
    return (odds > 0).astype(np.float64), (sure & ~against).astype(np.float64)


def balanced(strips: Strips, weight: Array) -> Array:
    """Scales weights (N,) so that all classes are shown alike; they sum to 1 where any is."""
    out = np.zeros_like(weight)
    for index in np.unique(strips.classes):
        rows = strips.classes == index
        total = weight[rows].sum()
        if total > 0:
            # Rare classes more often than they are, but not as often as if they were common.
            out[rows] = weight[rows] / total * np.sqrt(total)
    return out / max(out.sum(), 1e-12)


def train(
    real: Strips,
    gains: Array,
    drawn: Strips,
    *,
    steps: Sequence[int],
    batch: int = 64,
    lr: float = 3e-3,
    seed: int = 0,
    tell: Any = print,
) -> PolarityNet:
    """Trains in rounds, each on the labels that the one before gave.

    Args:
        real: real strips, with classes.
        gains: of their alignment, see :func:`labels.align_classes`.
        drawn: drawn strips, with polarity and centromere.
        steps: of each round.
        batch, lr, seed: of the training.
        tell: is called with lines of progress.
    """
    torch.manual_seed(seed)
    network = PolarityNet()
    both = Strips.join([real, drawn]) if len(real) else drawn
    up, weight = clear_labels(real, gains)
    for number, count in enumerate(steps):
        if number and len(real):
            odds = answer(network, real).odds
            up, weight = sure_labels(real, odds, gains)
        if len(real):
            tell(f"round {number + 1}: {100 * (weight > 0).mean():.1f} % of real strips are clear")
        shares = np.concatenate(
            [
                (1 - _DRAWN) * balanced(real, weight),
                _DRAWN * balanced(drawn, np.ones(len(drawn))),
            ]
        )
        labeled = both.replace(up=np.concatenate([up, drawn.up]).astype(np.float32))
        fit(
            network,
            labeled,
            shares,
            steps=count,
            batch=batch,
            lr=lr if number == 0 else 0.6 * lr,
            seed=seed + number,
            tell=tell,
        )
    return network


def calibrate(
    network: PolarityNet, real: Strips, gains: Array, drawn: Strips, *, extent: float = 1.0
) -> dict[str, Any]:
    """Fits the temperatures on strips that the network was not trained on, and measures it there.

    Real strips count with the label that alignment and homolog agree on.

    Args:
        network: trained; changed.
        real: real strips, with classes.
        gains: of their alignment.
        drawn: drawn strips, with polarity and centromere.
        extent: share of their length that the network shall be shown strips in.
    """
    network.extent.fill_(extent)
    score, straight, turned = read_scores(network, drawn)
    truth = drawn.up.astype(np.float64)
    scores, labels = [score.double().numpy()], [truth]
    if len(real):
        own = read_scores(network, real)[0].double().numpy()
        up, clear = clear_labels(real, gains)
        rows = clear > 0
        scores.append(own[rows])
        # Some labels are wrong: that must not make the network look worse than it is, nor better.
        labels.append(np.clip(up[rows], 0.01, 0.99))
    temperature = fit_temperature(np.concatenate(scores), np.concatenate(labels))
    network.temperature.fill_(temperature)
    known = np.isfinite(drawn.centromere)
    heat = straight.where(torch.from_numpy(drawn.up)[:, None] > 0.5, turned)
    heat_temperature = fit_heat_temperature(
        heat[torch.from_numpy(known)],
        shown_place(torch.from_numpy(drawn.centromere[known]), network.extent).double().numpy(),
    )
    network.heat_temperature.fill_(heat_temperature)
    found = answer(network, drawn)
    off = np.abs(found.centromere - drawn.centromere)[known]
    figures: dict[str, Any] = {
        "temperature": temperature,
        "heat_temperature": heat_temperature,
        "extent": round(float(network.extent), 4),
        "drawn": {
            "strips": len(drawn),
            "right": float(((found.odds > 0) == (truth > 0.5)).mean()),
            "centromere_median": float(np.median(off)),
            "centromere_near": float((off <= NEAR).mean()),
            "centromere_confidence": float(found.sure[known].mean()),
        },
    }
    if len(real):
        odds = answer(network, real).odds
        homologs = homolog_gains(real, odds)
        paired = homologs != 0
        figures["real"] = {
            "strips": len(real),
            "like_alignment": float(((odds > 0) == (gains > 0))[gains != 0].mean()),
            "homologs_agree": float((homologs[paired] > 0).mean()) if paired.any() else None,
        }
    return figures


def read_all(
    root: Path, split: str, images: int | None, outlines: Outlines | None
) -> tuple[Strips, Array]:
    """Reads the real strips of a data set with the ideogram's log-odds (N,)."""
    parts, odds = [], []
    cells = read_real(root, split, images, outlines=outlines)
    for strips, matched in tqdm(cells, desc="cells", disable=None):
        parts.append(strips)
        odds.append(matched)
    if not parts:
        raise ConfigError(f"{root}: its {split} split has no chromosomes to learn from")
    return Strips.join(parts), np.concatenate(odds)


def read_once(
    path: Path, root: Path | None, images: int, cells: int, seed: int, *, masks: Path | None
) -> tuple[Strips, Array, Strips]:
    """Reads real and drawn strips, or takes them from an earlier run with the same settings.

    Args:
        path: where they are kept.
        root: the data set; None for drawn strips alone.
        images: of it.
        cells: to draw.
        seed: of them.
        masks: the checkpoint whose masks cut them; None cuts by thresholds.

    Returns:
        Real strips, the ideogram's log-odds of each, drawn strips.

    Raises:
        UserError: see :func:`~deepacc_d2.karyogram.orientation.outlines.outlines_by`.
    """
    outlines = None if masks is None else outlines_by(masks)
    known = "-" if root is None else f"{root.resolve()} {read_info(root).fingerprint} {images}"
    by = "thresholds" if masks is None else model_hash(masks)
    settings = f"{known} {cells} {seed} {by}"
    if path.is_file():
        with np.load(path) as kept:
            if str(kept["settings"]) == settings:
                return (_kept(kept, "real"), kept["ideogram"], _kept(kept, "drawn"))
    cells_drawn = draw_cells(cells, seed, outlines=outlines)
    drawn = Strips.join(list(tqdm(cells_drawn, desc="drawn cells", total=cells, disable=None)))
    real, ideogram = drawn[:0], np.zeros(0)
    if root is not None:
        real, ideogram = read_all(root, "train", images, outlines)
    arrays = {
        f"{kind}_{field.name}": getattr(strips, field.name)
        for kind, strips in (("real", real), ("drawn", drawn))
        for field in fields(Strips)
    }
    with whole_file(path) as temporary, temporary.open("wb") as stream:
        np.savez_compressed(stream, settings=settings, ideogram=ideogram, **arrays)
    return real, ideogram, drawn


def _kept(arrays: Mapping[str, Any], kind: str) -> Strips:
    return Strips(**{field.name: arrays[f"{kind}_{field.name}"] for field in fields(Strips)})


def held_out(strips: Strips, seed: int) -> NDArray[np.bool_]:
    """Returns which strips (N,) are of the cells that are kept for the temperatures."""
    cells = np.unique(strips.cells)
    count = max(1, round(_HELD * len(cells)))
    chosen = np.random.default_rng(seed).choice(cells, count, replace=False)
    return np.isin(strips.cells, chosen)


def main(arguments: list[str] | None = None) -> int:
    """Command line: reads, trains, writes the network and its figures."""
    options = build_parser("polarity").parse_args(arguments)
    if options.images < 20 or options.drawn < 10 or options.steps < 10:
        raise ConfigError("images, drawn, steps: give at least 20, 10 and 10 of them")
    torch.set_num_threads(1)
    start = time.process_time()
    options.out.mkdir(parents=True, exist_ok=True)
    real, ideogram, drawn = read_once(
        options.out / "strips.npz",
        options.data,
        options.images,
        options.drawn,
        options.seed,
        masks=None if options.thresholds else options.ckpt or DEFAULT_CHECKPOINT,
    )
    gains = np.zeros(len(real))
    signs: list[Sign] = []
    print(f"{len(real)} real and {len(drawn)} drawn strips, {time.process_time() - start:.0f} s")
    if len(real):
        gains[real.apart], signs = align_classes(real[real.apart], ideogram[real.apart])
        print(told(signs))
    held, held_drawn = np.zeros(len(real), bool), held_out(drawn, options.seed)
    steps: tuple[int, ...] = (options.steps,)
    if len(real):
        held = held_out(real, options.seed)
        first = max(1, round(0.55 * options.steps))
        steps = (first, max(1, options.steps - first))
    network = train(real[~held], gains[~held], drawn[~held_drawn], steps=steps, seed=options.seed)
    extent = _EXTENT if options.thresholds and not len(real) else 1.0
    figures = calibrate(network, real[held], gains[held], drawn[held_drawn], extent=extent)
    seconds = time.process_time() - start
    card = card_of(options, seconds, signs, figures)
    save_network(options.out / "polarity.ckpt", network, card)
    write_json(options.out / "polarity.json", card)
    print(summary(figures))
    print(f"written to {options.out / 'polarity.ckpt'} after {seconds:.0f} s")
    return 0


if __name__ == "__main__":
    run_cli(main)
