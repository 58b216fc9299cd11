import dataclasses

import numpy as np
import pytest

from deepacc_d2.data.synthetic.chromosome import (
    Heteromorphism,
    bent_axis,
    draw_chromosome,
    point_at,
    render,
)
from deepacc_d2.data.synthetic.config import SyntheticConfig, batch_style
from deepacc_d2.ideogram import load_ideograms

PLAIN = Heteromorphism(short_arm=1.0, variable=1.0)
STYLE = dataclasses.replace(
    batch_style(SyntheticConfig(), 0), band_jitter=0.0, mottle=0.0, gap=0.0, rim=0.0
)


def draw(name, seed=0, style=STYLE, variant=PLAIN):
    return draw_chromosome(np.random.default_rng(seed), load_ideograms()[name], style, variant)


@pytest.mark.parametrize("curl", [0.0, 0.7, 1.5])
def test_axis_has_its_length_and_bounded_curvature(curl):
    for seed in range(40):
        axis = bent_axis(np.random.default_rng(seed), 150.0, 8.0, curl)
        steps = np.diff(axis)
        assert np.abs(steps).sum() == pytest.approx(150, rel=1e-6)
        turns = np.angle(steps[1:] / steps[:-1]) / np.abs(steps[1:])
        assert np.abs(turns).max() <= 1 / (1.1 * 8.0) + 1e-6
        assert abs(axis.mean()) < 1e-6
        if curl == 0:
            assert abs(axis[-1] - axis[0]) > 0.98 * 150


def test_mean_lengths_are_those_of_the_ideogram():
    mean = {
        name: np.mean([draw(name, seed).length for seed in range(60)])
        for name in ("1", "4", "9", "13", "18", "22")
    }
    for name, length in mean.items():
        expected = load_ideograms()[name].length
        assert length / mean["1"] == pytest.approx(expected, rel=0.05)


def test_centromere_place():
    for name in ("1", "5", "13", "Y"):
        places = [c.centromere / c.length for c in (draw(name, seed) for seed in range(30))]
        assert np.mean(places) == pytest.approx(load_ideograms()[name].centromere, abs=0.02)


def test_short_variant_shortens_the_acrocentric_p_arm_only():
    short = Heteromorphism(short_arm=0.5, variable=1.0)
    assert draw("14", 3, variant=short).centromere < 0.8 * draw("14", 3).centromere
    assert draw("4", 3, variant=short).length == draw("4", 3).length


def test_dark_bands_are_denser_than_light_bands():
    style = dataclasses.replace(STYLE, band_blur=0.8, grain=0.0)
    ideogram = load_ideograms()["5"]
    dark, light = [], []
    for seed in range(10):
        chromosome = draw("5", seed, style)
        profile = chromosome.density_profile.mean(1)
        for band, low, high in zip(
            ideogram.bands, ideogram.edges[:-1], ideogram.edges[1:], strict=True
        ):
            value = profile[int((4 + (low + high) / 2 * chromosome.length) / 0.5)]
            if band.stain == "gpos100":
                dark.append(value)
            elif band.stain == "gneg":
                light.append(value)
    assert np.mean(dark) > 1.5 * np.mean(light)


@pytest.mark.parametrize("name", ["1", "9", "15", "21", "Y"])
def test_rendered_body(name):
    for seed in range(8):
        chromosome = draw(name, seed)
        center = complex(200.3, 180.7)
        patch = render(np.random.default_rng(seed), chromosome, STYLE, center)
        h, w = patch.mask.shape
        assert patch.density.shape == (h, w)
        assert patch.density.min() >= 0
        assert not patch.mask[[0, -1]].any(), "the patch's rim is empty"
        assert not patch.mask[:, [0, -1]].any()
        # A rod: area about length times mean width, less its rounded tips.
        area = chromosome.length * 2 * chromosome.width_profile[8:-8].mean()
        assert 0.82 * area < patch.mask.sum() < 1.05 * area
        middle = point_at(chromosome.axis + center, chromosome.centromere / chromosome.length)
        column, row = round(middle.real) - patch.x, round(middle.imag) - patch.y
        assert patch.mask[row, column]


def test_centromere_is_a_constriction():
    style = dataclasses.replace(STYLE, constriction=0.3)
    ratio = []
    for seed in range(20):
        chromosome = draw("3", seed, style)
        width = chromosome.width_profile
        at = int((4 + chromosome.centromere) / 0.5)
        ratio.append(width[at] / np.median(width))
    assert np.mean(ratio) < 0.85


OPEN = dataclasses.replace(STYLE, apart=0.0, spread=1.0, curl=0.0, constriction=0.1)


def rows_across(name, seed, style):
    """Runs of mask pixels across the axis, at places along it from the p to the q tip."""
    chromosome = draw(name, seed, style)
    # Upright, p arm up.
    turn = (
        1j
        * abs(chromosome.axis[-1] - chromosome.axis[0])
        / (chromosome.axis[-1] - chromosome.axis[0])
    )
    chromosome = dataclasses.replace(chromosome, axis=chromosome.axis * turn)
    patch = render(np.random.default_rng(seed), chromosome, style, complex(200, 200))
    rows = patch.mask[patch.mask.any(1)]
    edges = np.diff(np.pad(rows, ((0, 0), (1, 1))).astype(int), axis=1)
    return chromosome, (edges == 1).sum(1)


@pytest.mark.parametrize("name", ["1", "7", "14"])
def test_open_chromatids_meet_at_the_centromere(name):
    for seed in range(6):
        chromosome, runs = rows_across(name, seed, OPEN)
        assert set(runs) <= {1, 2}
        joined = np.flatnonzero(runs == 1)
        share = np.median(joined) / len(runs)
        assert abs(share - chromosome.centromere / chromosome.length) < 0.15
        assert runs[-4] == 2, "the long arm is open at its tip"


def test_chromatids_may_lie_apart_all_along():
    style = dataclasses.replace(OPEN, apart=1.0)
    parted = [rows_across("3", seed, style)[1] for seed in range(8)]
    assert sum(bool((runs[3:-3] == 2).all()) for runs in parted) >= 4


def test_closed_chromosomes_have_no_gap():
    assert draw("1", 0, STYLE).gap_profile is None
    assert draw("1", 0, STYLE).reach == draw("1", 0, STYLE).half_width
    assert draw("1", 0, OPEN).reach > 1.3 * draw("1", 0, OPEN).half_width
