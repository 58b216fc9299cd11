"""What the help shows, and where it must fit."""

from __future__ import annotations

from pathlib import Path

import pytest

from deepacc_d2.command.conf_keys import conf_dir, groups_of, own_keys, read_keys
from deepacc_d2.command.page import with_table
from deepacc_d2.command.table import COMMANDS
from deepacc_d2.command.text import help_of, make_help, overview, public

CONF = conf_dir()
CONFIGS = sorted({command.config for command in public() if command.config})


def test_the_overview_fits_a_screen() -> None:
    lines = overview().splitlines()
    assert len(lines) <= 24
    assert max(map(len, lines)) <= 80
    for command in public():
        assert any(line.startswith(f"  {command.name} ") for line in lines), command.name


@pytest.mark.parametrize("command", public(), ids=lambda command: command.name)
def test_help_has_every_key_and_an_example_within_a_screen(command) -> None:
    short = help_of(command, CONF, width=80).splitlines()
    assert len(short) <= 24
    text = help_of(command, CONF, width=80, full=True)
    assert max(map(len, [*short, *text.splitlines()])) <= 80
    assert f"  deepacc {command.name}" in text
    for option in command.options:
        assert f"{option.key}=" in text
        assert option.help
        assert "\n" not in option.help
    if command.config:
        words = text.replace("\n", " ").split()
        keys = {word.partition("=")[0] for word in words}
        listed = {option.key for option in command.options}
        for key in own_keys(command.config, CONF):
            assert key.name in keys | listed or not key.default, key.name
            assert key.name in " ".join(short) or not key.default, key.name
        for group in groups_of(command.config, CONF):
            assert group in keys, group


@pytest.mark.parametrize("config", CONFIGS)
def test_keys_read_from_conf_are_those_that_yaml_reads(config: str) -> None:
    import yaml

    def names(node: object, prefix: str = "") -> list[str]:
        found: list[str] = []
        for name, value in node.items() if isinstance(node, dict) else []:
            if name in ("defaults", "hydra"):
                continue
            found.append(f"{prefix}{name}")
            found += names(value, f"{prefix}{name}.")
        return found

    path = CONF / f"{config}.yaml"
    expected = names(yaml.safe_load(path.read_text()))
    found = [key.name for key in read_keys(path)]
    inline = {name for name in expected if name.rpartition(".")[0] in ("scale",)}
    assert found == [name for name in expected if name not in inline]


@pytest.mark.parametrize("config", CONFIGS)
def test_every_first_key_of_a_config_is_explained(config: str) -> None:
    rows = [key for key in own_keys(config, CONF) if key.default]
    option_keys = {o.key for c in public() if c.config == config for o in c.options}
    explained = ""
    for key in rows:
        if key.name in option_keys:
            explained = ""
        elif key.comment:
            explained = key.comment
        else:
            assert explained, f"conf/{config}.yaml: {key.name} has no comment of its own"


def test_make_help_has_every_variable_once_a_section() -> None:
    text = make_help()
    for command in COMMANDS.values():
        if command.target:
            assert f"  {command.name:<11} " in text
            for option in command.options:
                if option.variable:
                    assert f"  {option.variable:<11} " in text, option.variable
    sections = text.split("Variables of ")
    for section in sections[1:]:
        names = [line.split()[0] for line in section.splitlines()[1:] if line.strip()]
        assert len(names) == len(set(names)), section


def test_the_page_of_the_docs_is_up_to_date() -> None:
    page = (Path(__file__).parents[2] / "docs" / "COMMAND.md").read_text()
    assert with_table(page) == page, "run: python -m deepacc_d2.command.page"
