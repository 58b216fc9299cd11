"""Strips of a cell turned by a network, or without one by the ideogram."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from deepacc_d2.chromosomes import CLASSES
from deepacc_d2.errors import DataError
from deepacc_d2.karyogram.orientation.find import find_polarities, pose_of, strip_place, turn
from deepacc_d2.karyogram.orientation.network import PolarityNet
from deepacc_d2.karyogram.orientation.read import drawn_truth
from deepacc_d2.karyogram.orientation.strips import LENGTH, WIDTH, to_size
from deepacc_d2.karyogram.orientation.weights import SHIPPED, load_network, save_network
from deepacc_d2.karyogram.polarity import Polarity, find_polarity
from deepacc_d2.karyogram.straighten import Straight


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(5)
    made = PolarityNet()
    for value in made.parameters():
        torch.nn.init.normal_(value, 0, 0.1)
    return made.eval()


def banded(rows=90, half=6, rim=3, seed=0):
    """A straight chromosome with bands of its own, with white around."""
    rng = np.random.default_rng(seed)
    level = np.repeat(rng.uniform(0.2, 0.9, -(-rows // 6)), 6)[:rows]
    dark = np.zeros((rows + 2 * rim, 2 * (half + rim) + 1), np.float32)
    dark[rim : rim + rows, rim:-rim] = level[:, None]
    axis = 20 + 1j * (30 + np.arange(len(dark), dtype=float))
    return Straight(dark, dark > 0, axis, 1.0)


def over(straight):
    """The same strip turned over."""
    return Straight(
        straight.dark[::-1, ::-1].copy(),
        straight.mask[::-1, ::-1].copy(),
        straight.axis[::-1],
        straight.zoom,
    )


@pytest.mark.parametrize("name", ["1", "13", "21", "X", "Y", None])
def test_a_turned_strip_is_shown_the_same(network, name):
    found = find_polarities([banded()], [name], network)[0]
    again = find_polarities([over(banded())], [name], network)[0]
    assert found.flip != again.flip
    assert found.confidence == pytest.approx(again.confidence, abs=1e-5)
    assert found.centromere == pytest.approx(again.centromere, abs=1e-3)
    one, two = pose_of(banded(), found), pose_of(over(banded()), again)
    np.testing.assert_allclose(one.p_arm, two.p_arm, atol=1e-6)
    np.testing.assert_allclose(one.centromere, two.centromere, atol=0.2)


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (2, 1), (3, 40), (200, 1)])
@pytest.mark.parametrize("inside", [True, False])
def test_strips_of_a_few_pixels_and_empty_ones(network, shape, inside):
    axis = 1j * np.arange(shape[0], dtype=float)
    tiny = Straight(np.zeros(shape, np.float32), np.full(shape, inside), axis, 1.0)
    for judge in (network, None):
        found = find_polarities([tiny], ["21"], judge)[0]
        assert 0.5 <= found.confidence <= 1
        assert 0 <= found.centromere <= 1
        pose = pose_of(tiny, found)
        assert np.isfinite([*pose.p_arm, *pose.centromere]).all()
        assert np.hypot(*pose.p_arm) == pytest.approx(1)
    assert find_polarities([], [], network) == []


def test_without_a_network_the_ideogram_decides():
    found = find_polarities([banded(), banded()], ["9", None], None)
    assert found[0] == find_polarity(banded(), "9")
    assert found[0].method == "ideogram"
    assert found[1].confidence == 0.5
    assert not found[1].flip


def test_strips_of_one_cell_do_not_depend_on_each_other(network):
    together = find_polarities([banded(seed=n) for n in range(4)], ["1", "2", "Y", None], network)
    alone = [
        find_polarities([banded(seed=n)], [name], network)[0]
        for n, name in enumerate(["1", "2", "Y", None])
    ]
    for one, other in zip(together, alone, strict=True):
        assert one.confidence == pytest.approx(other.confidence, abs=1e-5)
        assert one.flip == other.flip


def test_the_pose_is_in_pixels_of_the_image():
    straight = banded(rows=80, rim=3)  # telomeres at y = 33 and y = 112
    pose = pose_of(straight, Polarity(False, 0.9, 0.25, 0.8, "network"))
    np.testing.assert_allclose(pose.p_arm, (0, -1))
    np.testing.assert_allclose(pose.centromere, (20, 33 + 0.25 * 79))
    pose = pose_of(straight, Polarity(True, 0.9, 0.25, 0.8, "network"))
    np.testing.assert_allclose(pose.p_arm, (0, 1))
    np.testing.assert_allclose(pose.centromere, (20, 112 - 0.25 * 79))
    assert strip_place(straight, Polarity(False, 0.9, 0.0)) == pytest.approx(3 / 86)
    assert strip_place(straight, Polarity(True, 0.9, 1.0)) == pytest.approx(83 / 86)


def test_a_strip_is_brought_to_size_from_tip_to_tip():
    for zoom in (1, 3):
        straight = banded(rows=60 * zoom, half=5 * zoom, rim=3 * zoom)
        dark, body, slimness = to_size(straight)
        assert dark.shape == body.shape == (LENGTH, WIDTH)
        assert slimness == pytest.approx(60 * zoom / (10 * zoom + 1))
        assert body[1].max() > 200
        assert body[-2].max() > 200
        across = (body[LENGTH // 2] > 127).sum()
        assert across == pytest.approx(WIDTH / 1.5, abs=1.1)
        np.testing.assert_array_equal(to_size(over(straight))[0], dark[::-1, ::-1])


def test_weights_are_read_as_they_were_written(tmp_path, network):
    save_network(tmp_path / "own.ckpt", network, {"name": "test"})
    again, card = load_network(tmp_path / "own.ckpt")
    assert card == {"name": "test"}
    found = [find_polarities([banded()], ["3"], n)[0] for n in (network, again)]
    assert found[0].confidence == pytest.approx(found[1].confidence, abs=0.02)
    network.extent.fill_(0.9)
    save_network(tmp_path / "own.ckpt", network, {})
    network.extent.fill_(1.0)
    assert float(load_network(tmp_path / "own.ckpt")[0].extent) == pytest.approx(0.9)
    # One that an earlier version wrote has none.
    content = torch.load(tmp_path / "own.ckpt")
    del content["model"]["extent"]
    torch.save(content, tmp_path / "earlier.ckpt")
    assert float(load_network(tmp_path / "earlier.ckpt")[0].extent) == 1.0
    (tmp_path / "bad.ckpt").write_bytes(b"nothing")
    with pytest.raises(DataError, match="no polarity network"):
        load_network(tmp_path / "bad.ckpt")
    with pytest.raises(DataError, match="cannot be read"):
        load_network(tmp_path / "none.ckpt")
    torch.save({"model": {"other": torch.zeros(1)}}, tmp_path / "other.ckpt")
    with pytest.raises(DataError, match="make polarity"):
        load_network(tmp_path / "other.ckpt")


def test_the_included_network_says_what_it_is():
    network, card = load_network(SHIPPED)
    assert {"name", "licence", "data", "command"} <= set(card)
    assert "image" not in card["data"], "drawn cells alone: no terms of others are on it"
    assert card["licence"] == "Apache-2.0"
    assert SHIPPED.stat().st_size < 2**20
    assert not network.training


def test_the_included_network_turns_drawn_cells_and_finds_their_centromeres():
    # Cells of another seed than it was trained on, read as a karyogram reads them.
    right, off = [], []
    for straights, classes, up, places in drawn_truth(5, seed=991):
        found = turn(straights, [CLASSES[c] for c in classes])
        right += [p.flip != bool(u) for p, u in zip(found, up, strict=True)]
        along = [1 - p.centromere if p.flip else p.centromere for p in found]
        off += [abs(a - place) for a, place in zip(along, places, strict=True)]
        assert {p.method for p in found} == {"network"}
    assert np.mean(right) > 0.95
    assert np.median(off) < 0.02
