"""Where things lie on the page."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from deepacc_d2.chromosomes import CLASSES, DENVER_GROUPS
from deepacc_d2.karyogram.layout import FOOTER, PAGE_WIDTH, ROWS, expected_counts, lay_out
from deepacc_d2.karyogram.strip import Strip

NORMAL = [*(name for name in CLASSES[:22] for _ in range(2)), "X", "Y"]


def strip(name, length=100, width=20, *, placed=True, centromere=0.4):
    dark = np.full((length, width), 0.5, np.float32)
    return Strip(name, placed, dark, 1.0, centromere, 0.9, cut=True)


def layout_of(names, **options):
    strips = [strip(name, **options) for name in names]
    counts = np.bincount([CLASSES.index(n) for n in names], minlength=24)
    return lay_out(strips, counts), strips


def slots_of(layout):
    return {slot.name: slot for slot in layout.slots}


def test_rows_are_the_denver_groups_with_the_sex_chromosomes_last():
    assert [name for row in ROWS for name in row] == list(CLASSES)
    for row, groups in zip(ROWS, ("AB", "C", "DE", "FG"), strict=True):
        autosomes = [n for g in groups for n in DENVER_GROUPS[g] if n not in ("X", "Y")]
        assert [n for n in row if n not in ("X", "Y")] == autosomes
    assert ROWS[-1][-2:] == ("X", "Y")


def test_a_normal_cell_fills_every_place_without_overlap():
    layout, strips = layout_of(NORMAL)
    places = [place for slot in layout.slots for place in slot.places]
    assert sorted(place.strip for place in places) == list(range(46))
    assert not any(place.extra for place in places)
    assert all(slot.surplus == 0 for slot in layout.slots)
    for a, b in itertools.combinations(places, 2):
        assert a.x1 <= b.x0 or b.x1 <= a.x0 or a.y1 <= b.y0 or b.y1 <= a.y0
    for place in places:
        assert 0 <= place.x0 < place.x1 <= PAGE_WIDTH
        assert 0 < place.y0 < place.y1 < layout.height - FOOTER
        own = strips[place.strip]
        assert place.x1 - place.x0 == pytest.approx(own.width * layout.scale)
        assert place.y1 - place.y0 == pytest.approx(own.length * layout.scale)


def test_centromeres_of_a_row_lie_on_one_level_and_labels_below():
    names = ["1", "1", "3", "4", "13"]
    strips = [
        strip(n, length, centromere=c)
        for n, length, c in (
            ("1", 160, 0.5),
            ("1", 150, 0.45),
            ("3", 130, 0.5),
            ("4", 120, 0.3),
            ("13", 70, 0.2),
        )
    ]
    layout = lay_out(strips, np.bincount([CLASSES.index(n) for n in names], minlength=24))
    levels = {}
    for slot in layout.slots:
        for place in slot.places:
            assert place.y1 < slot.y
            if place.strip is not None:
                own = strips[place.strip]
                levels.setdefault(slot.y, []).append(
                    place.y0 + own.centromere * own.length * layout.scale
                )
    assert len(levels) == 2
    for found in levels.values():
        assert np.ptp(found) < 1e-6


@pytest.mark.parametrize(
    ("sex", "expected"),
    [("XX", (2, 0)), ("XY", (1, 1)), ("X", (2, 0)), ("XXY", (1, 1)), ("XYY", (1, 1)), ("", (2, 0))],
)
def test_places_of_the_sex_chromosomes(sex, expected):
    counts = np.zeros(24, np.int64)
    for name in sex:
        counts[CLASSES.index(name)] += 1
    found = expected_counts(counts)
    assert (found["X"], found["Y"]) == expected


def test_missing_and_extra_ones_are_told():
    layout, _ = layout_of([n for n in NORMAL if n != "Y"] + ["21"])
    slots = slots_of(layout)
    assert slots["X"].surplus == -1, "45,X"
    assert [place.strip is None for place in slots["X"].places] == [False, True]
    assert slots["Y"].places == ()
    assert slots["21"].surplus == 1
    assert [place.extra for place in slots["21"].places] == [False, False, True]


@pytest.mark.parametrize("names", [["7"] * 5, NORMAL + ["2"] * 14, ["1"] * 60, ["Y"] * 300, []])
def test_any_number_fits_the_page(names):
    layout, _ = layout_of(names)
    places = [place for slot in layout.slots for place in slot.places]
    assert sum(place.strip is not None for place in places) == len(names)
    for slot in layout.slots:
        for a, b in itertools.pairwise(slot.places):
            assert a.x1 <= b.x0 + 1e-6
        assert slot.x0 >= 0
        assert slot.x1 <= PAGE_WIDTH
    for a, b in itertools.pairwise(layout.slots):
        assert a.x1 <= b.x0 + 1e-6 or a.y < b.y
    assert 0 < layout.height < 4000


def test_left_out_boxes_lie_below_and_those_without_room_are_counted():
    strips = [strip("1"), *(strip("2", placed=False) for _ in range(40))]
    layout = lay_out(strips, np.eye(24, dtype=np.int64)[0])
    assert len(layout.left_out) + layout.hidden == 40
    assert layout.hidden > 0
    lowest = max(slot.y for slot in layout.slots)
    for place in layout.left_out:
        assert place.y0 > lowest
        assert place.y1 < layout.height - FOOTER
        assert place.x1 < PAGE_WIDTH
