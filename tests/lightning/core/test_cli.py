from __future__ import annotations

import errno

import pytest
from omegaconf import OmegaConf

from deepacc_d2.errors import ConfigError
from deepacc_lightning.core.cli import (
    check_accelerator,
    check_data_root,
    check_overrides,
    ended_well,
)
from deepacc_lightning.core.config import compose_config
from tests.lightning.programs import Programs


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "experiment=nope",
            r"unknown experiment 'nope': there is aam, baseline, deepacc, retinanet, sep, "
            r"siamese, siamese_aam, siamese_gia",
        ),
        ("data=nope", r"unknown data 'nope': there is coco, synthetic"),
        ("scale=huge", r"unknown scale 'huge': there is lab, paper, quick"),
        ("trainr.max_epochs=3", r"'trainr\.max_epochs'.*Key 'trainr' is not in struct"),
        ("scale.max_epoch=3", r"'scale\.max_epoch'.*Key 'max_epoch' is not in struct"),
        ("scale.max_epochs", r"missing EQUAL"),
    ],
)
def test_misspelt_overrides_are_reported_in_one_line(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        check_overrides("train", [override])
    assert "\n" not in str(caught.value)


def test_good_overrides_pass() -> None:
    check_overrides("train", ["experiment=sep", "scale=paper", "+trainer.limit_train_batches=2"])
    check_overrides("evaluate", ["ckpt=a.ckpt", "data=coco", "data.root=b"])


def test_data_without_a_directory() -> None:
    with pytest.raises(ConfigError, match=r"data\.root is not set: pass DATA_DIR="):
        check_data_root(compose_config("train", ["data=coco"]))


def test_several_data_sets_are_for_training() -> None:
    cfg = compose_config("train", ["data=coco", "data.root=[/x/a,/x/b,c]"])
    check_data_root(cfg, several=True)
    assert cfg.data.name == "a+b+c"
    assert cfg.out.startswith("runs/baseline-quick-a+b+c/")
    with pytest.raises(ConfigError, match="only training is on several data sets"):
        check_data_root(compose_config("karyotype", ["data.root=[/x/a,/x/b]"]))
    many = compose_config("train", ["data=coco", "data.root=[a,b,c,d,e]"])
    assert many.data.name == "a+b+c+2more"


def test_accelerators_that_exist_pass() -> None:
    check_accelerator("auto")
    check_accelerator("cpu")


def test_the_command_line_exits_2_with_one_line(programs: Programs) -> None:
    done = programs.run("deepacc_lightning.train", "experiment=nope")
    assert done.returncode == 2
    lines = done.stderr.strip().splitlines()
    assert lines[-1].startswith("error: unknown experiment 'nope'")
    assert "Traceback" not in done.stderr


def test_a_full_disk_and_a_wrong_reference_are_one_line(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as caught, ended_well():
        raise OSError(errno.ENOSPC, "No space left on device", "a.csv")
    assert caught.value.code == 2
    assert "a.csv cannot be written (No space left on device)" in capsys.readouterr().err
    with pytest.raises(SystemExit) as caught, ended_well():
        OmegaConf.resolve(OmegaConf.create({"out": "a/${x}"}))
    assert caught.value.code == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line == (
        "error: Interpolation key 'x' not found: in a value, ${...} refers to another key; "
        "leave it out"
    )
