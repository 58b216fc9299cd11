import numpy as np
import pytest

from deepacc_d2.chromosomes import CLASSES
from deepacc_d2.data.synthetic.karyotype import draw_karyotype, parse_karyotype


@pytest.mark.parametrize(
    ("iscn", "number", "sex", "expected"),
    [
        ("46,XX", 46, "female", {"X": 2, "21": 2}),
        ("46,XY", 46, "male", {"X": 1, "Y": 1}),
        ("47,XX,+21", 47, "female", {"21": 3, "X": 2}),
        ("47,XY,+13", 47, "male", {"13": 3, "X": 1, "Y": 1}),
        ("45,X", 45, "female", {"X": 1}),
        ("47,XXY", 47, "male", {"X": 2, "Y": 1}),
        ("47,XYY", 47, "male", {"X": 1, "Y": 2}),
    ],
)
def test_counts(iscn, number, sex, expected):
    karyotype = parse_karyotype(iscn)
    counts = karyotype.counts()
    assert sum(counts.values()) == len(karyotype.chromosomes) == number
    assert karyotype.sex == sex
    assert ("Y" in counts) == (sex == "male")
    autosomes = dict.fromkeys(CLASSES[:22], 2)
    assert counts == {**autosomes, **expected}


def test_number_must_agree():
    with pytest.raises(ValueError, match="lists 47"):
        parse_karyotype("46,XX,+21")


def test_rates():
    rng = np.random.default_rng(1)
    drawn = [draw_karyotype(rng, 0.25).iscn for _ in range(2000)]
    normal = sum(iscn in ("46,XX", "46,XY") for iscn in drawn) / 2000
    assert normal == pytest.approx(0.75, abs=0.04)
    assert drawn.count("46,XX") / 2000 == pytest.approx(0.375, abs=0.04)
    assert {"45,X", "47,XXY", "47,XX,+21", "47,XY,+18"} <= set(drawn)
    assert {draw_karyotype(rng, 0.0).iscn for _ in range(50)} == {"46,XX", "46,XY"}
