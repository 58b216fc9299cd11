from __future__ import annotations

from pathlib import Path

import pytest

from deepacc_d2.errors import ConfigError
from deepacc_lightning.core.cli import check_overrides
from deepacc_lightning.core.config import compose_config, normalized, recorded, to_plain

EPOCH = "epoch=3,map50=81.2.ckpt"


@pytest.mark.parametrize(
    ("config", "key", "path", "more"),
    [
        ("evaluate", "ckpt", f"runs/a=b,c/{EPOCH}", []),
        ("evaluate", "ckpt", EPOCH, []),
        ("evaluate", "data.root", "sets/a=b", ["data=coco"]),
        ("evaluate", "out", "x,y", []),
        ("predict", "images", "slides (1)/a,b/x=1", []),
        ("predict", "ckpt", 'say "hi"/a=b.ckpt', ["images=x"]),
        ("train", "init_weights", "a=b.pkl", ["data=coco", "data.root=x"]),
        ("train", "ckpt_path", "/r/epoch=3.ckpt", ["data=coco", "data.root=x"]),
    ],
)
def test_a_path_may_hold_signs_of_the_grammar(
    config: str, key: str, path: str, more: list[str]
) -> None:
    plain = to_plain(compose_config(config, [*more, f"{key}={path}"]))
    for part in key.split("."):
        plain = plain[part]
    assert plain == path


def test_a_list_is_a_path_where_a_file_is_called_so(tmp_path: Path) -> None:
    (tmp_path / "a,b").mkdir()
    assert normalized([f"data.root={tmp_path}/a,b"]) == [f'data.root="{tmp_path}/a,b"']
    assert normalized([f"data.root={tmp_path}/a,c"]) == [f"data.root={tmp_path}/a,c"]


@pytest.mark.parametrize(
    "override",
    [
        *("alpha=.05,.1", "experiment=sep,siamese_gia", "data.root=[a,b]", "x='a=b'", "--multirun"),
        *("m=interval(0,1)", "~callbacks.ema", "out=${oc.env:HOME}/x", "key=", "++a.b=3", "out=a"),
    ],
)
def test_what_the_grammar_takes_stays(override: str) -> None:
    assert normalized([override]) == [override]


def test_bad_grammar_that_is_no_path_is_still_reported() -> None:
    with pytest.raises(ConfigError):
        check_overrides("train", ["data=coco", "data.root=x", "alpha=.25,.5)"])


@pytest.mark.parametrize(
    ("config", "overrides"),
    [
        ("train", ["data=coco", "data.root=x", "experiment=deepacc", "callbacks=ema"]),
        ("evaluate", []),
        ("predict", ["images=x"]),
        ("context", ["ckpt=a", "data.root=x"]),
    ],
)
def test_no_key_of_ours_is_taken_for_a_secret(config: str, overrides: list[str]) -> None:
    cfg = compose_config(config, overrides)
    assert recorded(cfg) == to_plain(cfg)


def test_a_config_is_recorded_without_secrets() -> None:
    given = ["data=coco", "data.root=x", "init_weights=https://me:pw@host/w.pkl"]
    found = recorded(compose_config("train", [*given, "+logger.wandb.api_key=abcdef"]))
    assert found["init_weights"] == "https://***@host/w.pkl"
    assert found["logger"]["wandb"]["api_key"] == "***"


def test_a_file_that_stops_the_jobs_of_one_command_is_not_recorded() -> None:
    cfg = compose_config("train", ["data=coco", "data.root=x"])
    cfg.callbacks.stop_on_signal.asked = "/sweep/.stop-17"
    assert recorded(cfg)["callbacks"]["stop_on_signal"]["asked"] is None
    assert cfg.callbacks.stop_on_signal.asked == "/sweep/.stop-17"
