"""Training on a few strips, and what it is shown."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from deepacc_d2.errors import ConfigError, DataError
from deepacc_d2.karyogram.cut import Cut
from deepacc_d2.karyogram.orientation.augment import augment
from deepacc_d2.karyogram.orientation.fit import answer
from deepacc_d2.karyogram.orientation.read import draw_cells, lying_apart
from deepacc_d2.karyogram.orientation.strips import Strips
from deepacc_d2.karyogram.orientation.train import (
    balanced,
    calibrate,
    held_out,
    main,
    sure_labels,
    train,
)
from deepacc_d2.karyogram.orientation.weights import load_network


@pytest.fixture(scope="module")
def drawn():
    return Strips.join(list(draw_cells(3, seed=5)))


def test_drawn_strips_know_their_polarity_and_centromere(drawn):
    assert len(drawn) > 100
    assert 0.2 < drawn.up.mean() < 0.8, "either tip may come first"
    acrocentric = np.isin(drawn.classes, [12, 13, 14, 20, 21])
    along = np.where(drawn.up > 0.5, drawn.centromere, 1 - drawn.centromere)
    assert along[acrocentric].mean() < 0.33
    assert (along < 0.62).mean() > 0.95, "the p arm is the short one"


def test_a_network_learns_from_drawn_strips(drawn):
    network = train(
        drawn[:0], np.zeros(0), drawn, steps=(40,), batch=32, lr=3e-3, tell=lambda line: None
    )
    figures = calibrate(network, drawn[:0], np.zeros(0), drawn)
    assert figures["drawn"]["right"] > 0.8
    assert figures["drawn"]["centromere_median"] < 0.08
    found = answer(network, drawn)
    assert ((found.odds > 0) == (drawn.up > 0.5)).mean() == figures["drawn"]["right"]
    assert ((found.sure >= 0) & (found.sure <= 1)).all()


def test_augmented_strips_keep_their_way_up_and_centromere():
    # A black mark at the centromere is found where the centromere is said to be.
    dark = torch.zeros(64, 128, 24)
    dark[:, 38:42] = 1
    body = torch.ones(64, 128, 24)
    place = torch.full((64,), 40 / 128)
    out, inside, moved = augment(dark, body, place, torch.Generator().manual_seed(0))
    assert out.shape == inside.shape == dark.shape
    assert torch.isfinite(out).all()
    found = (out[:, :, 8:16].mean(2).argmax(1) + 0.5) / 128
    known = ~moved.isnan()
    assert known.float().mean() > 0.9
    close = (found - moved)[known].abs() < 0.04
    assert close.float().mean() > 0.75, "but for those that another chromosome crosses"
    _, _, unknown = augment(dark, body, torch.full((64,), torch.nan), torch.Generator())
    assert unknown.isnan().all()


def test_rare_classes_are_shown_more_often_than_they_are(drawn):
    weight = balanced(drawn, np.ones(len(drawn)))
    assert weight.sum() == pytest.approx(1)
    of_class = {c: weight[drawn.classes == c] for c in np.unique(drawn.classes)}
    counts = {c: len(w) for c, w in of_class.items()}
    rare, common = min(counts, key=counts.get), max(counts, key=counts.get)
    assert of_class[rare][0] >= of_class[common][0]
    assert not balanced(drawn, np.zeros(len(drawn))).any()


def test_what_alignment_or_homolog_deny_is_not_learned(drawn):
    odds = np.where(drawn.up > 0.5, 5.0, -5.0)
    up, weight = sure_labels(drawn, odds, np.zeros(len(drawn)))
    assert (up == drawn.up).all()
    assert weight.mean() > 0.7, "homologs that stand alike agree"
    _, denied = sure_labels(drawn, odds, -np.sign(odds))
    assert not denied.any()
    _, unsure = sure_labels(drawn, 0.1 * odds, np.zeros(len(drawn)))
    assert not unsure.any()


def test_cells_are_held_out_whole(drawn):
    held = held_out(drawn, 0)
    assert 0 < held.sum() < len(drawn)
    for cell in np.unique(drawn.cells):
        assert len(set(held[drawn.cells == cell])) == 1


def test_chromosomes_that_touch_do_not_lie_apart():
    def cut(x, y, *, whole=False):
        return Cut(x, y, np.zeros((10, 10), np.float32), np.ones((10, 10), bool), whole=whole)

    cuts = [cut(0, 0), cut(11, 0), cut(40, 40), cut(60, 40), cut(5, 80, whole=True)]
    assert lying_apart(cuts, (100, 100)).tolist() == [False, False, True, True, False]
    assert lying_apart([cut(90, 90)], (100, 100)).tolist() == [True], "at the image's border"
    assert lying_apart([], (10, 10)).tolist() == []


def test_too_few_images_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="at least 20"):
        main(["--data", str(tmp_path), "--images", "3", "--out", str(tmp_path / "out")])


@pytest.mark.slow
def test_the_command_keeps_strips_and_cuts_as_it_is_told(tmp_path):
    few = ["--drawn", "10", "--steps", "10", "--out", str(tmp_path)]
    assert main(few) == 0
    by_masks = np.load(tmp_path / "strips.npz")
    assert "--thresholds" not in json.loads((tmp_path / "polarity.json").read_text())["command"]
    assert load_network(tmp_path / "polarity.ckpt")[0].extent == 1
    before = (tmp_path / "strips.npz").stat().st_mtime_ns
    assert main(few) == 0
    assert (tmp_path / "strips.npz").stat().st_mtime_ns == before, "the same settings: kept"
    assert main([*few, "--thresholds"]) == 0
    by_thresholds = np.load(tmp_path / "strips.npz")
    assert "--thresholds" in json.loads((tmp_path / "polarity.json").read_text())["command"]
    assert load_network(tmp_path / "polarity.ckpt")[0].extent < 1, "a margin at both tips"
    # Masks part chromosomes that thresholds leave together, so that more end at their telomeres.
    assert len(by_masks["drawn_dark"]) > len(by_thresholds["drawn_dark"])


def test_a_missing_detector_is_refused(tmp_path):
    missing = tmp_path / "no.ckpt"
    with pytest.raises(DataError, match=r"no\.ckpt"):
        main(["--drawn", "10", "--ckpt", str(missing), "--out", str(tmp_path / "out")])
