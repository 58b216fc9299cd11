from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
import torch

from deepacc_d2.errors import ConfigError
from deepacc_d2.files import write_json
from deepacc_lightning.core.run_info import (
    describe_run,
    device_name,
    git_revision,
    make_run_dir,
    remote_has_login,
    versions,
)
from deepacc_lightning.training.run_record import RunRecord


def test_revision_is_that_of_the_sources() -> None:
    found = git_revision()
    assert set(found) == {"revision", "dirty"}
    if found["revision"] is not None:
        assert len(found["revision"]) == 40
        assert isinstance(found["dirty"], bool)


def test_versions_are_those_imported() -> None:
    found = versions()
    assert found["torch"] == torch.__version__.split("+")[0] or found["torch"] == torch.__version__
    assert {"python", "pytorch-lightning", "hydra-core", "numpy"} <= set(found)


def test_device_has_a_name() -> None:
    assert device_name(torch.device("cpu")).endswith(f"{torch.get_num_threads()} threads")


def test_run_directory_is_made_and_left_clean(tmp_path: Path) -> None:
    path = make_run_dir(tmp_path / "a" / "b")
    assert path.is_dir()
    assert list(path.iterdir()) == []
    assert make_run_dir(path) == path


def test_unwritable_run_directory(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"file/run cannot be written .*OUT="):
        make_run_dir(tmp_path / "file" / "run")


def test_json_appears_whole(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"path": tmp_path, "n": 1})
    assert json.loads((tmp_path / "a.json").read_text()) == {"path": str(tmp_path), "n": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_facts_hold_no_secret(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("sys.argv", ["train", "+logger.wandb.api_key=abcdef", "seed=3"])
    monkeypatch.setenv("MY_TOKEN", "s3cr3t-value")
    facts = describe_run(overrides=["x=s3cr3t-value"], data={"root": "https://me:pw@host/x"})
    assert facts["command"] == ["train", "+logger.wandb.api_key=***", "seed=3"]
    assert "s3cr3t" not in json.dumps(facts)
    record = RunRecord(tmp_path, overrides=["password=abc"])
    record.add(note="token=xyz")
    told = (tmp_path / "run.json").read_text()
    assert "abc" not in told
    assert "xyz" not in told


def test_a_login_in_the_address_of_a_remote_is_seen(tmp_path: Path) -> None:
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    assert not remote_has_login(tmp_path)
    for name, address, login in (
        ("a", "https://github.com/x/y", False),
        ("b", "https://ghp_123@github.com/x/y", True),
    ):
        add = ["git", "-C", str(tmp_path), "remote", "add", name, address]
        subprocess.run(add, check=True)
        assert remote_has_login(tmp_path) is login
