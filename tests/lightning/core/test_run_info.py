from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from deepacc_d2.errors import ConfigError
from deepacc_d2.files import write_json
from deepacc_lightning.core.run_info import (
    device_name,
    git_revision,
    make_run_dir,
    versions,
)


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
