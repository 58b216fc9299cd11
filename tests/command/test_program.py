"""``deepacc`` as a process: fast, one-line errors, completion, and what it starts."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from deepacc_d2.command import program
from deepacc_d2.command.completion import SCRIPTS, candidates
from deepacc_d2.command.conf_keys import conf_dir
from deepacc_d2.errors import ConfigError

ROOT = Path(__file__).parents[2]
CONF = conf_dir()
HEAVY = {"torch", "numpy", "hydra", "omegaconf", "detectron2", "pytorch_lightning", "yaml"}


def deepacc(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "deepacc_d2.command", *words],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )


@pytest.mark.parametrize(
    "words", [["--help"], ["predict", "--help"], ["completion", "query", "tr"]]
)
def test_help_imports_nothing_heavy(words: list[str]) -> None:
    code = (
        "import sys, json; from deepacc_d2.command.program import run; "
        f"run({words!r}); print(json.dumps(sorted(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    modules = set(json.loads(done.stdout.splitlines()[-1]))
    assert not modules & HEAVY


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["predcit"], "error: deepacc has no command predcit: did you mean predict?"),
        (["karyotpe", "--help"], "did you mean karyotype?"),
        (["lint"], "error: deepacc has no command lint"),
        (["predict", "out=a"], "error: deepacc predict needs images="),
        (["completion", "tcsh"], "error: deepacc completion needs a shell: bash, zsh, fish"),
    ],
)
def test_wrong_words_get_one_line_and_status_2(words: list[str], message: str) -> None:
    done = deepacc(*words)
    assert done.returncode == 2
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert message in line


def test_version_is_the_packages() -> None:
    import deepacc_d2

    assert deepacc("--version").stdout.strip() == deepacc_d2.__version__


def test_a_program_is_started_as_make_starts_it(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[list[str]] = []

    def execv(path: str, arguments: list[str]) -> None:
        started.append([path, *arguments])
        raise SystemExit

    monkeypatch.setattr(os, "execv", execv)
    environment = {"MALLOC_TRIM_THRESHOLD_": "7"}
    monkeypatch.setattr(os, "environ", environment)
    monkeypatch.setattr(program, "check_installed", lambda: None)
    with pytest.raises(SystemExit):
        program.run(["train", "experiment=sep", "trainer.max_steps=2"])
    module = ["-m", "deepacc_lightning.train", "experiment=sep", "trainer.max_steps=2"]
    assert started == [[sys.executable, sys.executable, *module]]
    assert environment["MALLOC_TRIM_THRESHOLD_"] == "7"
    assert environment["MALLOC_MMAP_MAX_"] == "0"
    assert environment["DEEPACC_COMMAND"] == "deepacc train experiment=sep trainer.max_steps=2"
    assert "ONEDNN_PRIMITIVE_CACHE_CAPACITY" not in environment


@pytest.mark.parametrize("name", ["predict", "review"])
def test_prediction_keeps_nothing_for_sizes_that_do_not_come_again(name: str) -> None:
    environment = {"LRU_CACHE_CAPACITY": "99"}
    program.set_environment(environment, program.COMMANDS[name], f"make {name}")
    assert environment["ONEDNN_PRIMITIVE_CACHE_CAPACITY"] == "0"
    assert environment["LRU_CACHE_CAPACITY"] == "99", "what the user has set stays"


def test_actions_are_those_of_the_program_and_have_a_help_of_their_own() -> None:
    from deepacc_d2.review.__main__ import _parser

    (commands,) = (a for a in _parser()._actions if isinstance(a, argparse._SubParsersAction))
    actions = program.COMMANDS["review"].actions
    assert list(actions) == list(commands.choices)
    assert f"Actions: {', '.join(actions)}" in deepacc("review", "--help").stdout
    done = deepacc("review", "export", "--help")
    assert done.returncode == 0
    assert "--to" in done.stdout
    assert "--port" not in done.stdout


def test_without_detectron2_the_line_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(
        ConfigError, match=r"Detectron2 is missing: install it by .* -m pip install"
    ):
        program.check_installed()
    pinned = (ROOT / "requirements" / "detectron2.in").read_text().splitlines()
    assert program.DETECTRON2 in pinned
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name != "torch" or None)
    with pytest.raises(ConfigError, match="torch is missing: install this package with its"):
        program.check_installed()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["pred"], ["predict"]),
        (["train", "experiment=siamese_"], ["experiment=siamese_aam", "experiment=siamese_gia"]),
        (["predict", "ov"], ["overwrite=", "overlay="]),
        (["predict", "overlay="], ["overlay=true", "overlay=false"]),
        (["train", "trainer.limit_tr"], ["trainer.limit_train_batches="]),
        (["train", "scale.max_e"], ["scale.max_epochs="]),
        (["predict", "cases=f"], ["cases=folder"]),
        (["completion", "z"], ["zsh"]),
        (["nothing", ""], []),
    ],
)
def test_candidates(words: list[str], expected: list[str]) -> None:
    assert candidates(words, CONF) == expected


def test_files_are_candidates(tmp_path: Path) -> None:
    (tmp_path / "slides").mkdir()
    (tmp_path / "slide.tif").touch()
    found = candidates(["predict", f"images={tmp_path}/sl"], CONF)
    assert found == [f"images={tmp_path}/slide.tif", f"images={tmp_path}/slides/"]


@pytest.mark.parametrize("shell", SCRIPTS)
def test_scripts_are_of_their_shell(shell: str, tmp_path: Path) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed here")
    script = tmp_path / "script"
    script.write_text(SCRIPTS[shell])
    assert subprocess.run([shell, "-n", str(script)], check=False).returncode == 0


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed here")
@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("deepacc pred", "predict"),
        ("deepacc train experiment=siamese_g", "siamese_gia"),
        ("deepacc train trainer.limit_tr", "trainer.limit_train_batches="),
        ("deepacc predict out=a overl", "overlay="),
    ],
)
def test_bash_completes(line: str, expected: str) -> None:
    script = (
        f'deepacc() {{ "{sys.executable}" -m deepacc_d2.command "$@"; }}\n'
        f"{SCRIPTS['bash']}\n"
        f"COMP_WORDBREAKS=$' \\t\\n=:'; COMP_LINE=\"{line}\"; COMP_POINT=${{#COMP_LINE}}\n"
        "compopt() { :; }\n"
        '_deepacc; printf "%s\\n" "${COMPREPLY[@]}"'
    )
    done = subprocess.run(
        ["bash", "-c", script], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stdout.split() == [expected]
