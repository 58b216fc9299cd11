"""Words in Hydra's grammar and make's variables become the same arguments."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from hydra import compose as hydra_compose
from hydra import initialize_config_dir

from deepacc_d2.command.arguments import arguments_of, compose, example_words
from deepacc_d2.command.conf_keys import conf_dir
from deepacc_d2.command.options import DEVELOPMENT
from deepacc_d2.command.table import COMMANDS
from deepacc_d2.errors import ConfigError

CONF = conf_dir()
PUBLIC = [command for command in COMMANDS.values() if command.group != DEVELOPMENT]


def composed(config: str, overrides: list[str]):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return hydra_compose(config, overrides)


@pytest.mark.parametrize("command", PUBLIC, ids=lambda command: command.name)
def test_examples_say_the_same_as_make_and_as_command(
    command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = shlex.split(example_words(command))
    given = arguments_of(command, words, CONF)
    assert given[: len(command.program)] == list(command.program)
    if not command.target:
        return
    variables = dict(word.split("=", 1) for word in shlex.split(command.example))
    by_make = compose(command.name, variables, CONF)
    if command.config and "," not in command.example:
        one, other = (composed(command.config, arguments[2:]) for arguments in (given, by_make))
        here = str(one).replace(str(tmp_path) + "/", "")
        assert here == str(other).replace(str(tmp_path) + "/", "")


def test_help_needs_nothing_else() -> None:
    for name in ("synthetic", "predict"):
        program = list(COMMANDS[name].program)
        assert compose(name, {"ARGS": "--help"}, CONF) == [*program, "--help"]


@pytest.mark.parametrize("command", PUBLIC, ids=lambda command: command.name)
def test_configs_have_every_key_of_the_table(command) -> None:
    if not command.config:
        return
    has_sets = command.config not in ("dashboard", "predict", "explain", "export")
    config = composed(command.config, ["data=coco"] if has_sets else [])
    for option in command.options:
        if "@" in option.key or option.kind == "data" or option.key in ("experiment", "table"):
            continue
        node = config
        for part in option.key.split("."):
            assert part in list(node.keys()), option.key  # `in` is false for ???
            node = node._get_node(part)


@pytest.mark.parametrize(
    "path", ["/a/epoch=3,step=4.ckpt", "/a b/[1].png", "slides/**/*.tif", "5", "~/x.png", "/a'b"]
)
def test_paths_need_no_quotes_of_hydras(path: str) -> None:
    words = [f"images={path}", f"ckpt={path}"]
    overrides = arguments_of(COMMANDS["predict"], words, CONF)[2:]
    config = composed("predict", overrides)
    expected = str(Path(path).expanduser())
    assert (config.images, config.ckpt) == (expected, expected)


def test_hydras_own_lists_quotes_and_words_stay() -> None:
    words = ["images=[a.png,b.png]", "ckpt=null", "out='a b'", "cases=folder", "karyogram=[svg]"]
    config = composed("predict", arguments_of(COMMANDS["predict"], words, CONF)[2:])
    assert list(config.images) == ["a.png", "b.png"]
    assert (config.ckpt, config.out, config.cases) == (None, "a b", "folder")
    swept = arguments_of(COMMANDS["sweep"], ["ckpt_path=a.ckpt,b.ckpt"], CONF)
    assert swept[-1] == "ckpt_path=a.ckpt,b.ckpt"


def test_data_may_be_a_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine").mkdir()
    monkeypatch.chdir(tmp_path)
    for word, expected in (
        ("data=mine", ["data=coco", f"data.root={tmp_path}/mine"]),
        ("data=synthetic", ["data=synthetic"]),
        ("data=synthetic,coco", ["data=synthetic,coco"]),
    ):
        assert arguments_of(COMMANDS["sweep"], [word], CONF)[2:] == expected


def test_programs_with_flags_take_keys_too() -> None:
    words = ["format=voc", "src=/a b", "out=/c", "strict=true", "overwrite=false", "seed=3"]
    given = arguments_of(COMMANDS["data"], words, CONF)[2:]
    assert given == ["--format=voc", "--src=/a b", "--out=/c", "--strict", "--seed=3"]
    words = ["out=/s", "box_margin=6", "size=[640,480]", "--train", "3"]
    given = arguments_of(COMMANDS["synthetic"], words, CONF)[2:]
    assert given == ["--out=/s", "--box-margin=6", "--size", "640", "480", "--train", "3"]
    given = arguments_of(COMMANDS["compare"], ["runs/a", "runs=runs/b", "by=m"], CONF)[2:]
    assert given == ["runs/a", "runs/b", "--by=m"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("predict out=a", "deepacc predict needs images= as in: deepacc predict images=slides"),
        ("context", "deepacc context needs ckpt= and data= as in: deepacc context ckpt=best.ckpt"),
        ("compare", "deepacc compare needs runs= as in: deepacc compare runs/a runs/b"),
        ("data-check", "deepacc data-check needs root= as in: deepacc data-check data/mine"),
        ("data format=voc src=a out=b splt=case", "data has no key splt: did you mean split?"),
        ("evaluate ckpt=a 'data=a b'", "there is no directory a"),
    ],
)
def test_what_is_missing_or_misspelt_is_said_in_one_line(words: str, message: str) -> None:
    name, *rest = shlex.split(words)
    with pytest.raises(ConfigError, match=message) as caught:
        arguments_of(COMMANDS[name], rest, CONF)
    assert "\n" not in str(caught.value)


def test_flags_of_hydra_pass(tmp_path: Path) -> None:
    assert arguments_of(COMMANDS["train"], ["--cfg", "job"], CONF)[2:] == ["--cfg", "job"]
    assert arguments_of(COMMANDS["predict"], ["--cfg", "job"], CONF)[2:] == ["--cfg", "job"]
    resumed = arguments_of(COMMANDS["train"], [f"resume={tmp_path}"], CONF)
    assert resumed[2:] == [f"resume={tmp_path}"]
