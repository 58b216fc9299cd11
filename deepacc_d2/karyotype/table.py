"""The evaluation of karyotypes as text: tables in Markdown."""

from __future__ import annotations

import math
from collections.abc import Sequence

from tabulate import tabulate

from deepacc_d2.chromosomes import CLASSES
from deepacc_d2.disclaimer import DISCLAIMER
from deepacc_d2.karyotype.assignment import StrengthResult
from deepacc_d2.karyotype.calibration import Reliability
from deepacc_d2.karyotype.made import (
    ENOUGH_CLEAR_GAINS,
    LEAST_KEPT,
    CellScores,
    MadeScores,
)
from deepacc_d2.karyotype.made_table import composed_parts, made_parts
from deepacc_d2.karyotype.scoring import ANSWERS, Evaluation
from deepacc_d2.karyotype.settings import DOUBTS, KaryotypeSettings
from deepacc_d2.karyotype.share import Share

_RATES = {
    "acc": "acc, %",
    "aer": "aer, %",
    "precision": "precision, %",
    "recall": "recall, %",
    "wcr": "cells with each box right, %",
}
_SHARES = {
    "exact_counts": "cells with the right number of each class",
    "specificity": "normal cells called normal",
    "sensitivity": "abnormal cells called abnormal",
    "exact_abnormal": "abnormal cells with the right number of each class",
    "recorded": "cells that the data set records as numerically abnormal, called abnormal",
}


def evaluation_report(
    result: Evaluation,
    settings: KaryotypeSettings,
    strengths: Sequence[StrengthResult],
    *,
    title: str,
    fitted: Evaluation | None = None,
    made: MadeScores | None = None,
    real: CellScores | None = None,
    composed: CellScores | None = None,
) -> str:
    """Returns the tables of an evaluation, in Markdown.

    Args:
        result: of the test split.
        settings: that it was made with.
        strengths: what each strength of the prior gave on the split that it was chosen on.
        title: says what was evaluated.
        fitted: the same of the cells that the settings were fitted on.
        made: of cells with an inserted or removed chromosome, made of the test split.
        real: whole cells of the test split; shown with ``made`` or ``composed``.
        composed: of another laboratory's chromosome crops, laid out as pictures.
    """
    parts = [
        f"# Karyotypes of {title}",
        DISCLAIMER,
        f"Temperature {settings.temperature:.3f}, prior strength {settings.prior_strength:g}, "
        f"loss factor {settings.loss_factor:g}, "
        f"cell confidence {_confidence(settings)}.",
        "## Each box by itself, and the consistent assignment",
        _answers(result),
        f"The assignment changes {result.changed} of {result.boxes} boxes: {result.corrected} "
        f"become right, {result.spoilt} become wrong. Shares with 95 % Wilson intervals.",
        "## Calibration",
        _calibration(result, fitted),
        "## Cells and chromosomes in doubt",
        _doubt(result, fitted),
        "## Strengths of the prior, on the split that it was chosen on",
        _strengths(strengths, settings),
        *_rule(strengths),
        *(made_parts(made, real) if made is not None and real is not None else ()),
        *(composed_parts(composed) if composed is not None else ()),
        "## Counts of classes",
        _classes(result),
    ]
    return "\n\n".join(parts)


def _answers(result: Evaluation) -> str:
    scores = [result.scores[answer] for answer in ANSWERS]
    rows = [[label, *(_rate(getattr(s, key)) for s in scores)] for key, label in _RATES.items()]
    rows += [[label, *(str(getattr(s, key)) for s in scores)] for key, label in _SHARES.items()]
    return _table(rows, ["", "each box by itself", "assignment"])


def _rate(value: float) -> str:
    return "none" if math.isnan(value) else f"{value:.2f}"


def _confidence(settings: KaryotypeSettings) -> str:
    if not settings.cell_weights:
        return (
            f"sigmoid({settings.cell_a:.3f} + {settings.cell_b:.3f} x log-odds of the product): "
            "too few cells of either outcome for weights"
        )
    offset, *weights = settings.cell_weights
    named = zip(DOUBTS, weights, strict=True)
    terms = "".join(f" - {w:.3f} {name.replace('_', ' ')}" for name, w in named if w > 0)
    return f"sigmoid({offset:.3f}{terms})"


def _calibration(result: Evaluation, fitted: Evaluation | None) -> str:
    rows: list[list[object]] = []
    for split, each in _splits(result, fitted):
        rows += [
            [
                f"boxes, as the network says{split}",
                _percent(each.before.error),
                *_none(each.before),
            ],
            [f"boxes, calibrated{split}", _percent(each.after.error), *_none(each.after)],
            [
                f"cells: all counts right{split}",
                _percent(each.cells.error),
                *(_area(each.ranking), _percent(each.tied), each.cells.count.sum()),
            ],
        ]
    return _table(
        rows,
        [
            *("confidence of", "expected calibration error, %"),
            *("area under the ROC curve", "tied, %", "of"),
        ],
    )


def _area(value: float) -> str:
    return "none" if math.isnan(value) else f"{value:.3f}"


def _none(table: Reliability) -> tuple[object, ...]:
    return "", "", table.count.sum()


def _splits(result: Evaluation, fitted: Evaluation | None) -> list[tuple[str, Evaluation]]:
    return [("", result)] + ([] if fitted is None else [(", as fitted", fitted)])


def _doubt(result: Evaluation, fitted: Evaluation | None) -> str:
    labels = {
        "right_total": "cells with the right number of chromosomes, unidentified ones counted",
        "unidentified": "boxes that are unidentified",
        "unfit": "cells that are unfit by their boxes",
        "unfit_right": "of these, cells with all counts right",
    }
    splits = _splits(result, fitted)
    rows = [
        [f"{label}{split}", str(getattr(each, name))]
        for name, label in labels.items()
        for split, each in splits
    ]
    return _table(rows, ["", "assignment"])


def _percent(share: float) -> str:
    return _rate(100 * share)


def _strengths(strengths: Sequence[StrengthResult], settings: KaryotypeSettings) -> str:
    chosen = settings.prior_strength, settings.loss_factor
    made = any(each.named_gains or each.losses for each in strengths)
    rows = [
        [
            f"{each.strength:g}{' (chosen)' if _both(each) == chosen else ''}",
            f"{each.loss_factor:g}",
            f"{each.wrong} of {each.boxes}",
            str(each.right),
            f"{each.kept} of {each.aneuploid}",
            f"{_percent(each.detected)} and {_percent(each.false)}",
            *(_of_made(each) if made else ()),
            "yes" if each.allowed else "no",
        ]
        for each in strengths
    ]
    return _table(
        rows,
        [
            *("strength", "loss factor", "wrong boxes", "cells with all counts right"),
            "abnormal cells kept",
            "changed classes found, unchanged called changed, %",
            *(_OF_MADE if made else ()),
            "allowed",
        ],
    )


def _both(each: StrengthResult) -> tuple[float, float]:
    return each.strength, each.loss_factor


_OF_MADE = (
    "clear inserted third homologs still counted",
    "all named by their boxes, still counted",
    "removed chromosomes noticed",
)


def _of_made(each: StrengthResult) -> tuple[str, str, str]:
    return (
        str(Share(each.kept_gains, each.clear_gains)),
        str(Share(each.kept_named_gains, each.named_gains)),
        str(Share(each.detected_losses, each.losses)),
    )


def _rule(strengths: Sequence[StrengthResult]) -> list[str]:
    """Returns the sentence on made gains, if there are any."""
    clear = max((each.clear_gains for each in strengths), default=0)
    if clear >= ENOUGH_CLEAR_GAINS:
        return [
            f"Allowed is what keeps {100 * LEAST_KEPT:.0f} % of the clear inserted third homologs "
            "counted and separates changed from unchanged classes no worse than no prior. Of the "
            f"loss factors it is what still notices {100 * LEAST_KEPT:.0f} % of the removed "
            "chromosomes that factor 1 does, with at most a tenth more wrong boxes than the best "
            "strength has; of these the one with the most cells right is chosen."
        ]
    if not any(each.named_gains or each.losses for each in strengths):
        return []
    return [
        f"Only {clear} inserted third homologs are clear, fewer than {ENOUGH_CLEAR_GAINS}: they "
        "decide nothing."
    ]


def _classes(result: Evaluation) -> str:
    own, assigned = (result.scores[answer] for answer in ANSWERS)
    rows = [
        [
            name,
            *(f"+{s.too_many[k]} -{s.too_few[k]}" for s in (own, assigned)),
        ]
        for k, name in enumerate(CLASSES)
    ]
    return _table(rows, ["class", "each box by itself", "assignment"])


def _table(rows: Sequence[Sequence[object]], headers: list[str]) -> str:
    text: str = tabulate(rows, headers, tablefmt="github", disable_numparse=True)
    return text
