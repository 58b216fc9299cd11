import dataclasses

import numpy as np
import pytest

from deepacc_d2.data.synthetic.config import SyntheticConfig, batch_style, cell_style
from deepacc_d2.errors import ConfigError


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("cells_per_case", 0, "cells_per_case must be at least 1"),
        ("num_batches", -2, "num_batches must be at least 1"),
        ("size", (64, 64), "size must be two sides"),
        ("size", (700,), "size must be two sides"),
        ("size", (2000, 400), "too narrow"),
        ("size_variation", 1.5, "size_variation must be in 0..1"),
        ("abnormality_rate", -0.1, "abnormality_rate must be in 0..1"),
        ("open_rate", 1.1, r"open_rate must be in 0\.\.1, not 1\.1"),
        ("condensation", 4.5, r"condensation must be in 0\.\.4, not 4\.5"),
        ("overlap_rate", float("nan"), "overlap_rate must be in 0..1"),
        ("nucleus_rate", -1.0, "nucleus_rate must be"),
        ("box_margin", -3.0, "box_margin must be"),
        ("seed", -1, "seed must not be negative"),
    ],
)
def test_impossible_options(option, value, message):
    with pytest.raises(ConfigError, match=message):
        SyntheticConfig(**{option: value})


def test_digest_depends_on_every_option():
    changed = {
        "cells_per_case": 5,
        "num_batches": 3,
        "size": (640, 600),
        "size_variation": 0.5,
        "abnormality_rate": 0.4,
        "loss_rate": 0.2,
        "condensation": 2.0,
        "open_rate": 0.5,
        "faded_rate": 0.5,
        "overlap_rate": 0.1,
        "nucleus_rate": 0.1,
        "debris_rate": 0.1,
        "box_margin": 2.0,
        "seed": 9,
    }
    assert set(changed) == {field.name for field in dataclasses.fields(SyntheticConfig)}
    digests = {SyntheticConfig(**{key: value}).digest() for key, value in changed.items()}
    assert len(digests | {SyntheticConfig().digest()}) == len(changed) + 1
    assert SyntheticConfig(size=[704, 685]).digest() == SyntheticConfig().digest()


def test_streams_are_reproducible_and_distinct():
    config = SyntheticConfig(seed=4)
    first = config.rng(3, 7, 1).random(4)
    assert np.array_equal(first, config.rng(3, 7, 1).random(4))
    assert not np.array_equal(first, config.rng(3, 1, 7).random(4))
    assert not np.array_equal(first, SyntheticConfig(seed=5).rng(3, 7, 1).random(4))


def test_styles_differ_more_between_batches_than_within():
    config = SyntheticConfig(num_batches=20)
    rng = np.random.default_rng(0)
    for name in ("length", "width", "curl", "gap", "light", "dark", "blur", "background"):
        cells = np.array(
            [
                [getattr(cell_style(batch_style(config, batch), rng), name) for _ in range(8)]
                for batch in range(20)
            ]
        )
        assert cells.mean(1).std() > 1.2 * cells.std(1).mean(), name


def test_condensation_and_open_chromatids_differ_as_told():
    def styles(**options):
        config = SyntheticConfig(num_batches=80, **options)
        return [batch_style(config, batch) for batch in range(80)]

    one, three = styles(), styles(condensation=3)
    slim = [np.std([np.log(s.length / s.width) for s in some]) for some in (one, three)]
    assert slim[1] > 2 * slim[0]
    assert not any(s.spread or s.apart for s in one)
    half = styles(open_rate=0.5)
    assert 25 < sum(s.spread > 0 for s in half) < 55
    # What is not about the opening stays as it was.
    assert [s.dark for s in half] == [s.dark for s in one]
    faded = [s.dark - s.light for s in styles(faded_rate=0.5)]
    contrasts = [s.dark - s.light for s in one]
    shares = np.array(faded) / contrasts
    assert 25 < (shares < 0.41).sum() < 55
    assert set(np.round(shares[shares > 0.41], 6)) == {1.0}
