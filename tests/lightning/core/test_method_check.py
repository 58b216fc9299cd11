"""Contradictory options are refused when a config is composed, with the names of the keys."""

from __future__ import annotations

from pathlib import Path

import pytest

from deepacc_d2.errors import ConfigError
from deepacc_lightning.core.config import compose_config
from tests.lightning.programs import Programs

PREDICTOR = "model.roi_heads.box_predictor"


def refuse(experiment: str, *overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        compose_config("train", [f"experiment={experiment}", *overrides])
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("delta", "-0.01"),
        ("delta", "1.01"),
        ("s", "0"),
        ("s", "-64"),
        ("s", ".inf"),
        ("s", ".nan"),
        ("m", "-0.1"),
        ("m", "3.1416"),
        ("m", ".nan"),
        ("alpha", "-1"),
        ("gamma", ".nan"),
        ("beta", "much"),
        ("delta", "null"),
        ("center_share", "-0.1"),
        ("center_share", "1.1"),
        ("center_share", ".nan"),
        ("center_share", "half"),
        ("center", "trio"),
        ("center", "null"),
        ("m", "true"),
    ],
)
def test_numbers_outside_their_range(key: str, value: str) -> None:
    message = refuse("siamese_gia", f"{key}={value}")
    assert message.startswith(f"{key}=")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("delta", "0"), ("delta", "1"), ("m", "0"), ("m", "3.1"), ("s", "0.1")),
        *(("center_share", "0"), ("center_share", "1")),
    ],
)
def test_the_ends_of_the_ranges_are_allowed(key: str, value: str) -> None:
    assert compose_config("train", ["experiment=siamese_gia", f"{key}={value}"])[key] == float(
        value
    )


def test_a_number_set_in_the_models_own_node_is_checked_too() -> None:
    key = f"{PREDICTOR}.margin_branch.s"
    assert refuse("aam", f"{key}=0").startswith(f"{key}=0")


def test_a_center_set_in_the_models_own_node_is_checked_too() -> None:
    key = f"{PREDICTOR}.inference_branch.center"
    assert refuse("deepacc", f"{key}=trio") == f"{key}='trio': choose single or pair"


@pytest.mark.parametrize(
    ("experiment", "overrides", "expected"),
    [
        ("siamese_gia", (), ("single", 1.0)),
        ("deepacc", (), ("pair", 0.5)),
        ("deepacc", ("center_share=1",), ("pair", 1)),
        ("siamese_gia", ("center=pair", "center_share=0.25"), ("pair", 0.25)),
        ("siamese", ("center=pair",), ("pair", 1.0)),
    ],
)
def test_presets_and_overrides_reach_the_inference_branch(
    experiment: str, overrides: tuple[str, ...], expected: tuple[str, float]
) -> None:
    cfg = compose_config("train", [f"experiment={experiment}", *overrides])
    branch = cfg.model.roi_heads.box_predictor.inference_branch
    assert (branch.center, branch.center_share) == expected
    assert (cfg.center, cfg.center_share) == expected


@pytest.mark.parametrize(
    ("experiment", "named"),
    [("siamese_gia", ("inference_branch", "gia")), ("siamese_aam", ("inference_branch",))],
)
def test_parts_that_need_a_margin_branch(experiment: str, named: tuple[str, ...]) -> None:
    message = refuse(experiment, f"{PREDICTOR}.margin_branch=null")
    assert "without margin_branch" in message
    assert all(name in message for name in named)


def test_gia_alone_without_a_margin_branch() -> None:
    message = refuse(
        "siamese_gia", f"{PREDICTOR}.margin_branch=null", f"{PREDICTOR}.inference_branch=null"
    )
    assert "gia without margin_branch" in message
    assert "inference_branch" not in message


def test_groups_that_do_not_cover_the_classes() -> None:
    groups = (
        "{A:[1,2,3],B:[4,5],C:[6,7,8,9,10,11,12],D:[13,14,15],E:[16,17,18],F:[19,20],G:[21,22,Y]}"
    )
    message = refuse("siamese_gia", f"{PREDICTOR}.gia.groups={groups}")
    assert f"{PREDICTOR}.gia.groups" in message
    assert "'X'" in message
    whole = groups.replace("12]", "12,X]")
    compose_config("train", ["experiment=siamese_gia", f"{PREDICTOR}.gia.groups={whole}"])


def test_another_number_of_classes() -> None:
    message = refuse("siamese_gia", f"{PREDICTOR}.num_classes=23")
    assert f"{PREDICTOR}.num_classes=23" in message


def test_an_unknown_anchor() -> None:
    assert "labelled or predicted" in refuse("siamese_gia", f"{PREDICTOR}.gia.anchor=best")


def test_the_program_exits_2_with_one_line_and_leaves_nothing_behind(
    tmp_path: Path, programs: Programs
) -> None:
    out = tmp_path / "run"
    done = programs.run("deepacc_lightning.train", "experiment=siamese_gia", "s=0", f"out={out}")
    assert done.returncode == 2
    errors = [line for line in done.stderr.splitlines() if line.startswith("error")]
    assert errors == ["error: s=0: the scale of the cosines must be greater than 0"]
    assert "Traceback" not in done.stderr
    assert not out.exists()
