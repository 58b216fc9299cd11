from __future__ import annotations

import numpy as np

from deepacc_d2.cell import UNIDENTIFIED, Cell, Chromosome
from deepacc_d2.karyotype.review import overlap_of_smaller, review_order


def test_overlap_is_a_share_of_the_smaller_box() -> None:
    boxes = [[0, 0, 10, 10], [5, 5, 15, 15], [2, 2, 4, 4], [50, 50, 60, 60], [3, 3, 3, 9]]
    share = overlap_of_smaller(boxes)
    assert share[0].tolist() == [0, 0.25, 1.0, 0, 0]
    assert share[0, 2] == share[2, 0]
    assert overlap_of_smaller([]).shape == (0, 0)


def cell(name: str, confidence: float, flags: tuple[str, ...], extra: int | None = None) -> Cell:
    p = np.full(25, 0.04)
    classes = [*np.repeat(np.arange(22), 2), 22, 22]
    found = [Chromosome((0, 0, 1, 1), p, int(k), int(k), 0.9) for k in classes]
    if extra is not None:
        found.append(Chromosome((0, 0, 1, 1), p, extra, extra, 0.95))
    return Cell(name, "", 9, 9, found, "", "", confidence, flags)


def test_the_order_of_review() -> None:
    fine = cell("fine", 0.1, ())
    odd = cell("odd", 0.9, ("abnormal",), extra=20)
    doubtful = cell("doubtful", 0.3, ("low_confidence",))
    doubtful.chromosomes[3].flags = ("touching",)
    doubtful.chromosomes[3].confidence = 0.1
    doubtful.chromosomes[7].flags = ("low_confidence",)
    doubtful.chromosomes[7].confidence = 0.5
    doubtful.chromosomes[9].flags = ("low_confidence", "touching")
    doubtful.chromosomes[9].confidence = 0.4
    items = review_order([odd, fine, doubtful])
    assert [(i.cell, i.chromosome) for i in items] == [
        *(("doubtful", None), ("doubtful", 9), ("doubtful", 7), ("doubtful", 3)),
        *(("odd", None), ("odd", 40), ("odd", 41), ("odd", 46)),
    ]
    assert items[-1].reasons == ("abnormal_class",)
    assert review_order([]) == []


def test_an_unidentified_chromosome_is_no_chromosome_of_an_abnormal_class() -> None:
    own = cell("odd", 0.5, (), extra=23)
    own.chromosomes[-1].assigned = UNIDENTIFIED
    own.chromosomes[-1].flags = ("unidentified",)
    (whole, item) = review_order([own])
    assert (whole.chromosome, item.chromosome, item.reasons) == (None, 46, ("unidentified",))
