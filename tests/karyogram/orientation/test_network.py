"""The network's symmetries hold by construction, whatever its weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from deepacc_d2.chromosomes import NUM_CLASSES
from deepacc_d2.karyogram.orientation.fit import fit_temperature, locate
from deepacc_d2.karyogram.orientation.network import (
    PLACES,
    UNKNOWN,
    PolarityNet,
    own_place,
    prepare,
    shown,
    shown_place,
)
from deepacc_d2.karyogram.orientation.strips import LENGTH, WIDTH


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(3)
    made = PolarityNet()
    for value in made.parameters():
        torch.nn.init.normal_(value, 0, 0.1)
    return made.eval()


@pytest.fixture(scope="module")
def strips():
    generator = torch.Generator().manual_seed(0)
    dark = torch.rand(NUM_CLASSES + 1, LENGTH, WIDTH, generator=generator)
    body = (torch.rand(NUM_CLASSES + 1, LENGTH, WIDTH, generator=generator) > 0.3).float()
    slimness = 1 + 6 * torch.rand(NUM_CLASSES + 1, generator=generator)
    return prepare(dark, body), slimness, torch.arange(NUM_CLASSES + 1)


@torch.inference_mode()
def test_a_strip_turned_over_gets_the_turned_answer(network, strips):
    strip, slimness, classes = strips
    assert int(classes[-1]) == UNKNOWN
    score, straight, turned = network(strip, slimness, classes)
    again = network(strip.flip(3), slimness, classes)
    assert score.abs().min() > 1e-4, "a network that says nothing would be symmetric too"
    torch.testing.assert_close(again[0], -score, rtol=0, atol=1e-5)
    torch.testing.assert_close(again[1], turned.flip(1), rtol=0, atol=1e-5)
    torch.testing.assert_close(again[2], straight.flip(1), rtol=0, atol=1e-5)


@torch.inference_mode()
def test_mirroring_left_to_right_changes_nothing(network, strips):
    strip, slimness, classes = strips
    for one, other in zip(
        network(strip, slimness, classes), network(strip.flip(2), slimness, classes), strict=True
    ):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-5)
    one_view = network(strip, slimness, classes, mirror=False)[0]
    assert (one_view - network(strip, slimness, classes)[0]).abs().max() > 1e-4


@torch.inference_mode()
def test_a_symmetric_strip_has_even_odds(network):
    half = torch.rand(1, LENGTH // 2, WIDTH)
    strip = prepare(torch.cat([half, half.flip(1)], 1), torch.ones(1, LENGTH, WIDTH))
    score, _, _ = network(strip, torch.tensor([4.0]), torch.tensor([0]))
    assert abs(float(score)) < 1e-5


def test_stain_depth_is_no_matter(strips):
    dark = torch.rand(2, LENGTH, WIDTH)
    body = torch.ones(2, LENGTH, WIDTH)
    torch.testing.assert_close(prepare(0.3 * dark + 0.2, body), prepare(dark, body))


def test_the_network_is_small(network):
    assert 100_000 < sum(p.numel() for p in network.parameters()) < 300_000


def test_a_place_is_found_between_grid_points():
    at = (np.arange(PLACES) + 0.5) / PLACES
    for true in (0.03, 0.262, 0.5, 0.97):
        heat = torch.from_numpy(-0.5 * ((at - true) / 0.02) ** 2)[None].float()
        place, sure = locate(heat)
        assert abs(float(place) - true) < 0.006
        assert float(sure) > 0.95
    place, sure = locate(torch.zeros(1, PLACES))
    assert float(sure) < 0.15, "a flat answer is no answer"


def test_a_fitted_temperature_makes_probabilities_come_true():
    rng = np.random.default_rng(0)
    odds = rng.normal(0, 3, 20000)
    up = rng.random(20000) < 1 / (1 + np.exp(-odds))
    assert abs(fit_temperature(2.5 * odds, up.astype(float)) / 2.5 - 1) < 0.1


@pytest.mark.parametrize("extent", [1.0, 0.94, 0.5])
def test_what_is_shown_is_where_its_place_says(extent):
    # A dark row in a uniform body, at each tenth of the length.
    along = torch.arange(LENGTH)
    for place in (0.05, 0.3, 0.5, 0.85):
        strip = torch.zeros(1, 2, WIDTH, LENGTH)
        strip[:, 1] = 1
        strip[:, 0, :, int(place * LENGTH)] = 1
        seen = shown(strip, torch.tensor(extent))
        assert seen.shape == strip.shape
        middle = float((seen[0, 0, 5] * (along + 0.5)).sum() / seen[0, 0, 5].sum() / LENGTH)
        true = torch.tensor((int(place * LENGTH) + 0.5) / LENGTH)
        assert middle == pytest.approx(0.5 + (float(true) - 0.5) * extent, abs=2e-3)
        assert float(shown_place(true, torch.tensor(extent))) == pytest.approx(middle, abs=2e-3)
        back = own_place(torch.tensor(middle), torch.tensor(extent))
        assert float(back) == pytest.approx(float(true), abs=4e-3)
        # The body takes that share of the length, in the middle, and all of the width.
        body = seen[0, 1]
        assert float(body.sum(1).mean()) == pytest.approx(extent * LENGTH, abs=1.1)
        assert float((body - body.flip(1)).abs().max()) < 1e-4
        assert float(body[:, LENGTH // 2].min()) == pytest.approx(1.0)
