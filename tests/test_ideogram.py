import itertools

import numpy as np
import pytest

from deepacc_d2.chromosomes import CLASSES
from deepacc_d2.errors import DataError
from deepacc_d2.ideogram import ACROCENTRIC, load_bands, load_ideograms

STAINS = {"gneg", "gpos25", "gpos50", "gpos75", "gpos100", "acen", "gvar", "stalk"}


def test_all_24_chromosomes_in_class_order():
    assert tuple(load_ideograms()) == CLASSES
    assert 500 <= len(load_bands()) <= 600


@pytest.mark.parametrize("name", CLASSES)
def test_bands_of_a_chromosome(name):
    bands = load_ideograms()[name].bands
    arms = [band.arm for band in bands]
    assert arms == sorted(arms), "p before q"
    assert set(arms) == {"p", "q"}
    assert bands[0].start_bp == 1
    for left, right in itertools.pairwise(bands):
        assert right.start_bp == left.stop_bp + 1
        assert right.iscn_start >= left.iscn_stop
    assert all(band.iscn_stop > band.iscn_start for band in bands)
    assert {band.stain for band in bands} <= STAINS
    # The centromere is the last band of p and the first of q.
    last_p = arms.count("p") - 1
    assert bands[last_p].stain == bands[last_p + 1].stain == "acen"


def test_edges_and_known_morphology():
    ideograms = load_ideograms()
    for ideogram in ideograms.values():
        assert np.all(np.diff(ideogram.edges) > 0)
        assert ideogram.edges[0] == 0
        assert ideogram.edges[-1] == 1
    # Metacentric, submetacentric and acrocentric chromosomes by their centromeric index.
    for name in ("1", "3", "16", "19", "20"):
        assert 0.36 < ideograms[name].centromere <= 0.5
    for name in ("4", "5", "18"):
        assert 0.15 < ideograms[name].centromere < 0.33
    stalks = {band.chromosome for band in load_bands() if band.stain == "stalk"}
    assert stalks == set(ACROCENTRIC)


def test_lengths_follow_the_size_order():
    length = {name: ideogram.length for name, ideogram in load_ideograms().items()}
    assert length["1"] == 1
    assert all(length[str(n)] > length[str(n + 3)] for n in range(1, 20))
    assert length["7"] > length["X"] > length["13"]
    # Base pairs, counted independently of the ISCN units, give about the same proportions.
    pairs = {name: ideogram.bands[-1].stop_bp for name, ideogram in load_ideograms().items()}
    for name in CLASSES:
        assert length[name] == pytest.approx(pairs[name] / pairs["1"], abs=0.09)


def test_broken_table_is_named(tmp_path):
    table = tmp_path / "bands.csv"
    table.write_text("# comment\nchromosome,arm,band\n1,p,36\n")
    with pytest.raises(DataError, match=r"bands\.csv"):
        load_bands(table)
    with pytest.raises(DataError, match="missing"):
        load_bands(tmp_path / "missing.csv")
