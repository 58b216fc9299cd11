"""Made and composed cells as text; never to be taken for patients' trisomies."""

from __future__ import annotations

from collections.abc import Sequence

from tabulate import tabulate

from deepacc_d2.karyotype.made import CellScores, MadeScores
from deepacc_d2.karyotype.share import Share

_CELLS = {
    "named": "chromosomes found and named right",
    "gained": "cells with a gain, the gained class counted right",
    "called": "cells with a gain, any gain called",
    "no_false_gain": "cells without a gain, no gain called",
    "no_false_loss": "cells without a loss, no loss called",
    "normal": "normal cells called normal",
}
_REAL = ("no_false_gain", "no_false_loss", "normal")


def made_parts(made: MadeScores, real: CellScores) -> list[str]:
    """Returns the parts of a report on made cells, with unchanged real ones."""
    rows: list[list[str | Share]] = [
        ["inserted third homologs counted right", *made.gains],
        ["removed chromosomes counted as missing", *made.losses],
        *(["real: " + _CELLS[name], *getattr(real, name)] for name in _REAL),
    ]
    groups: list[list[str | Share]] = [
        [group, *made.gains_by_group[group], *made.losses_by_group[group]]
        for group in made.gains_by_group
    ]
    return [
        "## Inserted third homologs and removed chromosomes",
        "Made of normal cells of the split that is judged: one homolog of another cell inserted at "
        "a clear place, or one chromosome wiped out. They show what counting does with three "
        f"copies; no patient has these changes. {made.not_made} more could not be made.",
        _table(rows, ["", "each box by itself", "assignment"]),
        f"Inserted homologs that have a box: {made.found}. Still counted by the assignment: "
        f"{made.named_kept} of those that the boxes alone count; {made.clear_kept} of those where "
        "each of the class's three boxes (of X and Y in a man, the second) is sure by itself, all "
        f"three under their names in {made.three_kept}.",
        _table(
            groups,
            ["group", "inserted, by box", "assignment", "removed, by box", "assignment"],
        ),
    ]


def composed_parts(composed: CellScores) -> list[str]:
    """Returns the parts of a report on another laboratory's composed karyotypes."""
    rows: list[list[str | Share]] = [
        [label, *getattr(composed, name)] for name, label in _CELLS.items()
    ]
    return [
        "## Another laboratory's chromosome crops, laid out as pictures",
        "Real karyotypes of another laboratory, cut into single chromosomes and laid out apart "
        "from each other on white. Copy numbers are those of the files: a chromosome that could "
        "not be cut looks like a loss.",
        _table(rows, ["", "each box by itself", "assignment"]),
    ]


def _table(rows: Sequence[Sequence[str | Share]], headers: list[str]) -> str:
    cells = [[str(cell) for cell in row] for row in rows]
    text: str = tabulate(cells, headers, tablefmt="github", disable_numparse=True)
    return text
