from __future__ import annotations

import numpy as np
import pytest

from deepacc_d2.chromosomes import (
    CLASSES,
    DENVER_GROUPS,
    GROUP_OF,
    NUM_CLASSES,
    UnknownClassError,
    adjacency_matrix,
    category_id,
    class_index,
    coco_categories,
    denver_name,
    denver_order,
)
from deepacc_d2.errors import ConfigError, DataError

# Written out rather than derived: the class list of the 24_chromosomes_object set of Tseng et al.
_TSENG_TEXT = "A1 A2 A3 B4 B5 C6 C7 C8 C9 C10 C11 C12 D13 D14 D15 E16 E17 E18 F19 F20 G21 G22 X Y"
TSENG = _TSENG_TEXT.split()


def test_classes_are_1_to_22_then_x_and_y() -> None:
    assert NUM_CLASSES == 24
    assert list(CLASSES) == [name.lstrip("ABCDEFG") for name in TSENG]


def test_denver_groups_share_out_every_class_once() -> None:
    members = [name for names in DENVER_GROUPS.values() for name in names]
    assert sorted(members) == sorted(CLASSES)
    assert list(DENVER_GROUPS) == list("ABCDEFG")
    assert (GROUP_OF["X"], GROUP_OF["Y"]) == ("C", "G")
    assert [len(names) for names in DENVER_GROUPS.values()] == [3, 2, 8, 3, 3, 2, 3]


@pytest.mark.parametrize(("index", "label"), list(enumerate(TSENG)))
def test_names_of_tseng_et_al(index: int, label: str) -> None:
    assert class_index(label) == index
    assert denver_name(index) == label


@pytest.mark.parametrize("index", range(NUM_CLASSES))
def test_plain_names_and_numbers(index: int) -> None:
    name = CLASSES[index]
    assert class_index(name) == index
    assert class_index(f"chr{name}") == index
    assert class_index(f" {name.lower()} ") == index
    assert class_index(index + 1) == index  # LabelMe and YOLO number X as 23 and Y as 24
    assert class_index(f"{index + 1:02d}") == index
    assert category_id(name) == index + 1


@pytest.mark.parametrize(
    ("label", "name"),
    [("CX", "X"), ("GY", "Y"), ("chr_7", "7"), ("Chr-X", "X"), ("b4", "4"), ("23", "X")],
)
def test_other_spellings(label: str, name: str) -> None:
    assert CLASSES[class_index(label)] == name


@pytest.mark.parametrize(
    "label",
    [
        "",
        "0",
        "00",
        "25",
        "119",
        "-1",
        -1,
        "1.0",
        "Z",
        "A",
        "A4",
        "C5",
        "G1",
        "XY",
        "chr",
        "1 2",
        "1-",
    ],
)
def test_labels_that_name_no_class(label: str | int) -> None:
    with pytest.raises(UnknownClassError, match="unknown chromosome class") as caught:
        class_index(label)
    assert repr(label) in str(caught.value)
    assert isinstance(caught.value, DataError)


def test_denver_order_keeps_groups_together() -> None:
    order = denver_order()
    assert sorted(order) == list(range(NUM_CLASSES))
    assert "".join(GROUP_OF[CLASSES[i]] for i in order) == "AAABBCCCCCCCCDDDEEEFFGGG"
    assert order.index(CLASSES.index("X")) == order.index(CLASSES.index("12")) + 1
    assert order[-1] == CLASSES.index("Y")


def test_adjacency_by_loops() -> None:
    adjacency = adjacency_matrix()
    assert adjacency.dtype == bool
    for i, a in enumerate(CLASSES):
        for j, b in enumerate(CLASSES):
            expected = i != j and any(a in names and b in names for names in DENVER_GROUPS.values())
            assert adjacency[i, j] == expected


def test_adjacency_of_other_groups() -> None:
    adjacency = adjacency_matrix({"sex": ("X", "Y"), "autosomes": CLASSES[:22]})
    assert adjacency.sum() == 2 + 22 * 21
    np.testing.assert_array_equal(np.flatnonzero(adjacency[23]), [22])


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ({"all": CLASSES[:-1]}, "missing .'Y'."),
        ({"all": CLASSES, "again": ("5",)}, "wrong .'5'."),
        ({"all": (*CLASSES, "M")}, "wrong .'M'."),
    ],
)
def test_groups_that_are_no_partition(groups: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        adjacency_matrix(groups)


def test_coco_categories() -> None:
    categories = coco_categories()
    assert [c["id"] for c in categories] == list(range(1, 25))
    assert [c["name"] for c in categories] == list(CLASSES)
    assert {c["name"]: c["supercategory"] for c in categories} == GROUP_OF
