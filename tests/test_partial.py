"""What killed processes leave: known for theirs and removed, and nothing of anybody else's."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from deepacc_d2 import partial
from deepacc_d2.data.synthetic import SyntheticConfig, write_dataset
from deepacc_d2.files import whole_directory, write_json
from deepacc_d2.partial import clear_files, clear_folders, partial_file, partial_folder, take_place

SMALL = SyntheticConfig(size=(224, 208), cells_per_case=1)
# Writes in the way that the argument says, and is killed amid it.
KILLED = """
import os, signal, sys
from pathlib import Path
from deepacc_d2.files import whole_directory, whole_file
root = Path(sys.argv[1])
with whole_directory(root / "set", overwrite=True) as folder:
    (folder / "half").write_text("half")
    with whole_file(root / "a.json") as path:
        path.write_text("half")
        os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def left(tmp_path: Path) -> Path:
    """A folder with what a killed process left."""
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], check=False)
    assert done.returncode == -9
    assert len(list(tmp_path.glob(".a.*.tmp.json"))) == 1
    assert len(list(tmp_path.glob(".set.part-*"))) == 1
    return tmp_path


def test_the_next_process_removes_it(left: Path) -> None:
    (left / ".a.txt").write_text("a user's")
    (left / ".b.1.tmp.json").write_text("of a process that lives")
    (left / ".set.part-1").mkdir()
    clear_files([left])
    clear_folders(left / "set")
    kept = sorted(p.name for p in left.iterdir() if p.suffix != ".lock")
    assert kept == [".a.txt", ".b.1.tmp.json", ".set.part-1"]


def test_a_data_set_made_again_leaves_nothing_else(left: Path) -> None:
    with whole_directory(left / "set", overwrite=False) as folder:
        write_json(folder / "dataset.json", {})
    clear_files([left])
    assert [p.name for p in left.iterdir()] == ["set"]
    (left / f".synthetic.part-{_dead()}").mkdir()
    write_dataset(left / "synthetic", SMALL, {"train": 1}, num_workers=1, progress=False)
    assert sorted(p.name for p in left.iterdir()) == ["set", "synthetic"]


def _dead() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


@pytest.mark.parametrize("can_exchange", [True, False])
def test_a_folder_takes_the_place_of_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, can_exchange: bool
) -> None:
    if not can_exchange:
        monkeypatch.setattr(partial, "_exchange", lambda one, other: False)
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).touch()
    new = partial_folder(tmp_path / "old")
    (tmp_path / "new").rename(new)
    take_place(new, tmp_path / "old")
    assert [str(p.relative_to(tmp_path)) for p in sorted(tmp_path.rglob("*"))] == ["old", "old/new"]


def test_names_keep_the_suffix_and_are_hidden() -> None:
    path = partial_file(Path("a/b.c.png"))
    assert path == Path(f"a/.b.c.{os.getpid()}.tmp.png")
