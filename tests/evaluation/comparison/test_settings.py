"""What differs between runs is found; what only follows from it is not shown."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import pytest

from deepacc_d2.errors import ConfigError
from deepacc_d2.evaluation.comparison.runs import read_runs
from deepacc_d2.evaluation.comparison.settings import (
    Settings,
    compare_settings,
    flatten,
    inseparable,
    short_labels,
    show,
)

MakeRun = Callable[..., Path]


@pytest.fixture
def settings_of(make_run: MakeRun) -> Callable[..., Settings]:
    batches = itertools.count()

    def build(*options: dict, **kwargs: object) -> Settings:
        batch = next(batches)
        paths = [make_run(f"{batch}/run{n}", **own) for n, own in enumerate(options)]
        return compare_settings(read_runs(paths)[0], **kwargs)  # type: ignore[arg-type]

    return build


def test_copies_and_what_a_preset_brings_are_not_shown(
    settings_of: Callable[..., Settings],
) -> None:
    found = settings_of(
        {"preset": "sep", "out": "/a", "logger.csv.save_dir": "/a"},
        {"preset": "aam", "seed": 1, "alpha": 0.5, "scale.max_epochs": 8},
    )
    # Not model.roi_heads.alpha, model.roi_heads.name and trainer.max_epochs.
    assert list(found.labels.values()) == ["preset", "seed", "alpha", "max_epochs"]
    assert found.varying["scale.max_epochs"] == [4, 8]
    assert found.common["m"] == 0.25
    assert "out" not in found.common
    assert "alpha" not in found.common


def test_centers_that_a_preset_brings_are_not_shown_beside_it(
    settings_of: Callable[..., Settings], make_run: MakeRun
) -> None:
    branch = "model.roi_heads.box_predictor.inference_branch"
    old = {"preset": "siamese_gia", "delta": 0.5, branch: {"delta": 0.5}}
    centers = {"center": "pair", "center_share": 0.5}
    new = {"preset": "deepacc", "delta": 0.5, branch: {"delta": 0.5, **centers}, **centers}
    assert list(settings_of(old, new).labels) == ["preset"]
    # A run of before there were pairs has single ones.
    single = {"center": "single", "center_share": 1.0}
    said = {"preset": "siamese_gia", "delta": 0.5, branch: {"delta": 0.5, **single}, **single}
    assert list(settings_of(old, said).labels) == []
    assert settings_of(old, said).common["center"] == "single"
    swept = {"overrides": ["center=pair", "center_share=0.5"]}
    paths = [
        make_run("swept/a", **said),
        make_run("swept/b", facts=swept, **{**new, "preset": "siamese_gia"}),
    ]
    found = compare_settings(read_runs(paths)[0])
    assert list(found.labels) == ["center", "center_share"]


def test_of_the_model_only_what_a_command_named_is_shown_beside_the_preset(
    make_run: MakeRun, settings_of: Callable[..., Settings]
) -> None:
    key = "model.roi_heads.fc"
    quiet = ({"preset": "sep"}, {"preset": "aam", key: [32, 32]})
    assert list(settings_of(*quiet).labels) == ["preset"]
    for number, facts in enumerate(({"command": ["x", f"{key}=1"]}, {"overrides": [f"++{key}=1"]})):
        paths = [
            make_run(f"{number}/a", preset="sep"),
            make_run(f"{number}/b", preset="aam", facts=facts, **{key: [32, 32]}),
        ]
        assert list(compare_settings(read_runs(paths)[0]).labels) == ["preset", key]


def test_hardware_and_places_do_not_count(settings_of: Callable[..., Settings]) -> None:
    found = settings_of(
        {},
        {"trainer.devices": 2, "data.root": "/b", "group": "g", "wandb_id": "x", "resume": "y"},
        {"callbacks.progress.refresh_rate": 3, "ablation.jobs": 4, "pixel_mean": 1.0},
    )
    assert not found.varying
    places = [{"out": f"/r/{n}", "trainer.default_root_dir": f"/r/{n}/x"} for n in "ab"]
    assert not settings_of(*places).varying


def test_the_protocol_of_an_ablation_and_an_average_of_weights_count(
    settings_of: Callable[..., Settings],
) -> None:
    found = settings_of({"ablation.protocol": "heads"}, {"callbacks.ema.decay": 0.99})
    assert set(found.labels.values()) == {"protocol", "decay"}
    assert found.varying["callbacks.ema.decay"] == ["-", 0.99]


def test_labels_are_the_shortest_that_tell_apart() -> None:
    keys = ["optim.optimizer.lr", "heads.optim.optimizer.lr", "scale.size", "m", "a.steps"]
    assert short_labels(keys, reserved=("steps",)) == {
        "optim.optimizer.lr": "optim.optimizer.lr",
        "heads.optim.optimizer.lr": "heads.optim.optimizer.lr",
        "scale.size": "size",
        "m": "m",
        "a.steps": "a.steps",
    }


def test_keys_are_resolved_by_label_end_or_whole(settings_of: Callable[..., Settings]) -> None:
    found = settings_of({"alpha": 0.1}, {"alpha": 0.2, "optim.optimizer.lr": 0.1})
    assert found.resolve("lr") == found.resolve("optim.optimizer.lr") == "optim.optimizer.lr"
    assert found.resolve("image_size") == "scale.image_size"
    assert found.values("scale.image_size") == [96, 96]
    with pytest.raises(ConfigError, match=r"BY=max_epochs is several keys \(trainer"):
        found.resolve("max_epochs")
    with pytest.raises(ConfigError, match=r"BY=nope is no key of these runs: .* alpha, lr"):
        found.resolve("nope")


def test_settings_that_always_vary_together_are_reported(
    settings_of: Callable[..., Settings],
) -> None:
    runs = [{"alpha": a, "m": a * 2, "seed": s} for a in (0.1, 0.2) for s in (0, 1)]
    assert inseparable(settings_of(*runs)) == [("alpha", "m")]
    crossed = [{"alpha": a, "m": m} for a in (0.1, 0.2) for m in (0.1, 0.2)]
    assert inseparable(settings_of(*crossed)) == []
    samples = [{"alpha": 0.1 * k, "m": 0.3 * k} for k in range(1, 6)]
    assert inseparable(settings_of(*samples)) == []


def test_values_are_flattened_and_shown() -> None:
    assert flatten({"a": {"b": [1, [2]], "c": {}}, "d": None}) == {
        "a.b": "[1, [2]]",
        "a.c": "{}",
        "d": None,
    }
    assert [show(v) for v in (0.1, 1e-5, None, True, 3, "x")] == [
        "0.1",
        "1e-05",
        "null",
        "true",
        "3",
        "x",
    ]
    assert show("/a/very/long/path/" + "x" * 60) == "…" + "x" * 39
