from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from deepacc_d2.data.made.cells import SourceCell, Workshop, plan
from deepacc_d2.data.synthetic import SyntheticConfig
from deepacc_d2.data.synthetic.render import render_metaphase

CONFIG = SyntheticConfig(
    **{"size": (480, 460), "overlap_rate": 0.0, "nucleus_rate": 0.0, "debris_rate": 0.2},
    **{"abnormality_rate": 0.0, "loss_rate": 0.0, "size_variation": 0.0, "seed": 2},
)


@pytest.fixture(scope="module")
def drawn() -> tuple[list[SourceCell], dict[str, np.ndarray]]:
    cells, images = [], {}
    for case in range(2):
        for cell in range(3):
            image, record = render_metaphase(CONFIG, case, cell)
            boxes = np.array([a["bbox"] for a in record["annotations"]])
            boxes[:, 2:] += boxes[:, :2]
            classes = np.array([a["category_id"] - 1 for a in record["annotations"]])
            name = f"{case}{cell}"
            cells.append(SourceCell(name, str(case), boxes, classes))
            images[name] = image
    return cells, images


def sham(classes: list[int], name: str) -> SourceCell:
    return SourceCell(name, None, np.zeros((len(classes), 4)), np.array(classes))


AUTOSOMES = [k for k in range(22) for _ in range(2)]


def test_each_class_has_its_turn_in_normal_cells() -> None:
    female, male = sham([*AUTOSOMES, 22, 22], "f"), sham([*AUTOSOMES, 22, 23], "m")
    abnormal = [sham([*AUTOSOMES, 20, 22, 22], "t"), sham([*AUTOSOMES[1:], 22, 23], "l")]
    turner = sham([*AUTOSOMES, 22], "x")
    cells = [*abnormal, female, male, turner]
    for gain in (True, False):
        orders = plan(cells, 72, gain=gain, seed=0)
        assert Counter(order.class_index for order in orders) == dict.fromkeys(range(24), 3)
        assert len({order.name for order in orders}) == 72
        for order in orders:
            assert set(order.receivers) <= ({3} if order.class_index == 23 else {2, 3})
    assert plan(cells, 48, gain=True, seed=0) == plan(cells, 48, gain=True, seed=0)
    assert plan(cells, 48, gain=True, seed=0) != plan(cells, 48, gain=True, seed=1)
    # Without a man no Y can be added as a second one; without a normal cell nothing can.
    assert {o.class_index for o in plan([female], 24, gain=True, seed=0)} == set(range(23))
    assert plan(abnormal, 24, gain=True, seed=0) == []


def test_made_cells_have_one_chromosome_more_or_less(
    drawn: tuple[list[SourceCell], dict[str, np.ndarray]],
) -> None:
    cells, images = drawn
    by_name = {cell.name: cell for cell in cells}
    workshop = Workshop(cells, images.__getitem__, seed=0)
    for gain in (True, False):
        orders = plan(cells, 12, gain=gain, seed=0)
        made = [cell for cell in map(workshop.make, orders) if cell is not None]
        assert len(made) > len(orders) / 2
        for each in made:
            before = np.bincount(by_name[each.of].classes, minlength=24)
            after = np.bincount(each.changed.classes, minlength=24)
            expected = np.zeros(24, dtype=int)
            expected[each.order.class_index] = 1 if gain else -1
            assert (after - before).tolist() == expected.tolist()
            assert len(each.changed.boxes) == len(each.changed.classes)
            assert not np.array_equal(each.changed.image, images[each.of])
            assert (each.donor is None) != gain
            assert each.donor != each.of
        if gain:
            assert all(each.changed.classes[-1] == each.order.class_index for each in made)
            assert sum(each.donor[0] == each.of[0] for each in made if each.donor) > len(made) / 2


def test_an_order_always_gives_the_same_cell(
    drawn: tuple[list[SourceCell], dict[str, np.ndarray]],
) -> None:
    cells, images = drawn
    orders = plan(cells, 6, gain=True, seed=0)
    first = [Workshop(cells, images.__getitem__).make(order) for order in orders]
    workshop = Workshop(cells, images.__getitem__)
    again = [workshop.make(order) for order in reversed(orders)][::-1]
    assert any(made is not None for made in first)
    for one, other in zip(first, again, strict=True):
        assert (one is None) == (other is None)
        if one is not None and other is not None:
            assert np.array_equal(one.changed.image, other.changed.image)


def test_what_cannot_be_made_is_skipped(
    drawn: tuple[list[SourceCell], dict[str, np.ndarray]],
) -> None:
    cells, images = drawn
    blank = Workshop(cells, lambda name: np.full_like(images[name], 240))
    alone = Workshop(cells[:1], images.__getitem__)
    for order in plan(cells[:1], 4, gain=True, seed=0):
        assert blank.make(order) is None
        assert alone.make(order) is None  # no other cell to take a homolog from
