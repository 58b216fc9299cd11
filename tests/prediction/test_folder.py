from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from deepacc_d2.cell import Cell
from deepacc_d2.errors import ConfigError, DataError
from deepacc_d2.files import write_text
from deepacc_d2.prediction.folder import OutputFolder, open_folder
from deepacc_d2.prediction.record import to_record

JOB: dict[str, Any] = {"kind": "prediction", "model": {"sha256": "ab"}, "settings": {"x": 1}}


def put(folder: OutputFolder, cell: Cell) -> None:
    write_text(folder.record(cell.name), json.dumps(to_record(cell)))


def test_a_folder_is_gone_on_with(tmp_path: Path, make_cell: Callable[..., Cell]) -> None:
    folder = open_folder(tmp_path / "out", JOB)
    assert folder.names() == []
    put(folder, make_cell("b"))
    put(folder, make_cell("a"))
    (folder.record("c").with_name(".c.json.1.tmp")).write_text("{")  # a killed process left it
    again = open_folder(tmp_path / "out", JOB)
    assert again.names() == ["a", "b"]
    assert [cell.name for cell in again.cells()] == ["a", "b"]
    assert (again.is_done("a"), again.is_done("c")) == (True, False)


def test_results_of_other_settings_are_never_mixed(
    tmp_path: Path, make_cell: Callable[..., Cell]
) -> None:
    put(open_folder(tmp_path, JOB), make_cell("a"))
    with pytest.raises(ConfigError, match=r"another settings \(\{\"x\": 1\}, now \{\"x\": 2\}\)"):
        open_folder(tmp_path, {**JOB, "settings": {"x": 2}})
    (tmp_path / "mine.txt").write_text("keep")
    replaced = open_folder(tmp_path, {**JOB, "settings": {"x": 2}}, overwrite=True)
    assert replaced.names() == []
    assert (tmp_path / "mine.txt").read_text() == "keep"


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_of_something_else_is_left_alone(tmp_path: Path, overwrite: bool) -> None:
    (tmp_path / "cells").mkdir()
    (tmp_path / "cells" / "thesis.txt").write_text("years of work")
    with pytest.raises(ConfigError, match="holds other files"):
        open_folder(tmp_path, JOB, overwrite=overwrite)
    assert (tmp_path / "cells" / "thesis.txt").read_text() == "years of work"


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_job_of_something_else(tmp_path: Path, overwrite: bool) -> None:
    (tmp_path / "job.json").write_text('{"kind": "another program"}')
    with pytest.raises(ConfigError, match="of something else"):
        open_folder(tmp_path, JOB, overwrite=overwrite)
    assert (tmp_path / "job.json").is_file()


def test_out_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("")
    with pytest.raises(ConfigError, match=r"out cannot be written"):
        open_folder(tmp_path / "out", JOB)


def test_damaged_record(tmp_path: Path) -> None:
    folder = open_folder(tmp_path, JOB)
    folder.record("a").write_text("[1]")
    with pytest.raises(DataError, match=r"a\.json is damaged"):
        folder.read("a")
    folder.record("a").write_text('{"format": 1')
    with pytest.raises(DataError, match=r"a\.json is no complete JSON"):
        folder.read("a")


def test_a_failed_write_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.json"
    write_text(path, "old")

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match="No space"):
        write_text(path, "new")
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]
