from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np
import pytest

from deepacc_d2.cell import LEFT_OUT, UNIDENTIFIED, Cell, Mask, Pose
from deepacc_d2.disclaimer import DISCLAIMER
from deepacc_d2.errors import DataError
from deepacc_d2.prediction.record import from_record, to_record


def test_a_cell_comes_back_from_json(make_cell: Callable[..., Cell]) -> None:
    cell = make_cell("x", "case 7")
    record = json.loads(json.dumps(to_record(cell)))
    back = from_record(record)
    for field in ("name", "path", "width", "height", "karyotype", "karyotype_by_box", "case_id"):
        assert getattr(back, field) == getattr(cell, field), field
    assert (back.flags, back.view) == (cell.flags, cell.view)
    assert len(back.chromosomes) == 4
    for found, told in zip(back.chromosomes, cell.chromosomes, strict=True):
        assert (found.box, found.label, found.assigned) == (told.box, told.label, told.assigned)
        assert found.flags == told.flags
        np.testing.assert_allclose(found.probabilities, told.probabilities, atol=1e-5)
        assert found.confidence == pytest.approx(told.confidence, abs=1e-5)


def test_how_a_chromosome_lies_comes_back(make_cell: Callable[..., Cell]) -> None:
    cell = make_cell("x")
    cell.chromosomes[0].pose = Pose((0.6, -0.8), 0.98, (31.25, 40.5), 0.4, 0.9, "network")
    cell.chromosomes[1].pose = Pose((0.0, 1.0), 0.5, (1.0, 2.0), 0.5, None, "ideogram")
    record = json.loads(json.dumps(to_record(cell)))
    assert record["chromosomes"][0]["polarity"] == {
        "p_arm": [0.6, -0.8],
        "probability": 0.98,
        "centromere": {"point": [31.25, 40.5], "share": 0.4, "confidence": 0.9},
        "method": "network",
    }
    assert record["chromosomes"][2]["polarity"] is None
    assert [c.pose for c in from_record(record).chromosomes] == [c.pose for c in cell.chromosomes]
    del record["chromosomes"][0]["polarity"]
    assert from_record(record).chromosomes[0].pose is None, "a record of an earlier version"


def test_an_unfit_cell_and_an_unidentified_chromosome_come_back(
    make_cell: Callable[..., Cell],
) -> None:
    cell = make_cell("x")
    cell.status, cell.reasons, cell.draft = "unfit", ("only 3 chromosomes were found",), "3<1n>,X"
    cell.karyotype = cell.karyotype_by_box = ""
    cell.confidence = 3.1234567e-9
    cell.chromosomes[1].assigned = UNIDENTIFIED
    record = json.loads(json.dumps(to_record(cell)))
    assert [c["class"] for c in record["chromosomes"]] == ["1", "?", "X", None]
    assert (record["status"], record["count"], record["unidentified"]) == ("unfit", 3, 1)
    assert record["confidence"] == 3.1235e-9  # five decimals would make it 0
    back = from_record(record)
    assert (back.status, back.reasons, back.draft) == (cell.status, cell.reasons, cell.draft)
    assert [c.assigned for c in back.chromosomes] == [0, UNIDENTIFIED, 22, LEFT_OUT]
    assert back.counts().sum() == 2


def test_masks_and_doubts_come_back(make_cell: Callable[..., Cell]) -> None:
    cell = make_cell("x")
    ring, hole = ((1.0, 2.0), (9.5, 2.0), (5.25, 8.0)), ((4.0, 3.0), (6.0, 3.0), (5.0, 4.5))
    cell.chromosomes[0].mask = Mask((ring, hole), 0.125)
    cell.chromosomes[0].doubtful_cut = ("crossing", "bent")
    cell.chromosomes[1].doubtful_cut = ()
    record = json.loads(json.dumps(to_record(cell)))
    told = record["chromosomes"][0]
    assert told["mask"]["reconstructed"] == 0.125
    assert told["mask"]["polygons"][0] == [[1.0, 2.0], [9.5, 2.0], [5.25, 8.0]]
    assert told["doubtful_cut"] == ["crossing", "bent"]
    assert record["chromosomes"][2]["mask"] is None
    back = from_record(record).chromosomes
    assert [c.mask for c in back] == [c.mask for c in cell.chromosomes]
    assert [c.doubtful_cut for c in back] == [("crossing", "bent"), (), None, None]
    # Records of before there were masks.
    for chromosome in record["chromosomes"]:
        del chromosome["mask"], chromosome["doubtful_cut"]
    assert all(c.mask is None for c in from_record(record).chromosomes)


def test_what_a_record_tells(make_cell: Callable[..., Cell]) -> None:
    record = to_record(make_cell())
    assert record["count"] == 3
    assert {name: n for name, n in record["counts"].items() if n} == {"1": 2, "X": 1}
    assert [c["class"] for c in record["chromosomes"]] == ["1", "1", "X", None]
    assert [c["id"] for c in record["chromosomes"]] == [1, 2, 3, 4]
    assert record["disclaimer"] == DISCLAIMER


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 99}, "of format 99"),
        ({"chromosomes": [{}]}, "damaged"),
        ({"image": None}, "damaged"),
    ],
)
def test_bad_records(
    make_cell: Callable[..., Cell], change: dict[str, object], message: str
) -> None:
    with pytest.raises(DataError, match=rf"a\.json .*{message}"):
        from_record({**to_record(make_cell()), **change}, "a.json")
