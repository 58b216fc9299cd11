from __future__ import annotations

import json
import os
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest

from deepacc_d2.errors import DataError
from deepacc_d2.files import read_json, write_json
from deepacc_d2.text import fold, is_utf8, printable, read_text


def test_bytes_of_a_name_that_is_no_utf8_are_shown() -> None:
    name = os.fsdecode(b"caf\xe9.png")
    assert not is_utf8(name)
    assert printable(name) == r"caf\xe9.png"
    assert printable("\ud800") == r"\ud800"
    for sound in ("café.png", "染色体", ""):
        assert is_utf8(sound)
        assert printable(sound) == sound


def test_fold_makes_spellings_of_a_name_alike() -> None:
    forms = [unicodedata.normalize(form, "Müller É.PNG") for form in ("NFC", "NFD")]
    assert len({fold(text) for text in (*forms, *map(str.lower, forms))}) == 1
    assert fold("a") != fold("á")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_text_is_read(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "a.txt").write_text("Größe", encoding=encoding)
    assert read_text(tmp_path / "a.txt") == "Größe"


def test_other_text_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes("Größe".encode("latin-1"))
    with pytest.raises(DataError, match=r"a\.txt is not in UTF-8: save it as UTF-8"):
        read_text(tmp_path / "a.txt")
    with pytest.raises(DataError, match=r"b\.txt cannot be read \(No such file"):
        read_text(tmp_path / "b.txt")


def test_json_keeps_what_is_no_character(tmp_path: Path) -> None:
    value = {"name": os.fsdecode(b"caf\xe9.png"), "lone": "\ud800", "plain": "é"}
    write_json(tmp_path / "a.json", value)
    assert read_json(tmp_path / "a.json") == value
    assert "é" in (tmp_path / "a.json").read_text(encoding="utf-8")


def test_json_with_a_key_twice_is_told_where_that_matters(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"a": {"b": 1, "b": 2}}')
    assert read_json(tmp_path / "a.json") == {"a": {"b": 2}}
    with pytest.raises(DataError, match="has the key 'b' twice"):
        read_json(tmp_path / "a.json", unique_keys=True)


def test_json_cut_amid_a_character_was_cut_short(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(json.dumps("é", ensure_ascii=False).encode()[:-2])
    with pytest.raises(DataError, match="cut short"):
        read_json(tmp_path / "a.json")


@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "cp1252"])
def test_a_program_can_name_any_file(encoding: str) -> None:
    code = (
        "from deepacc_d2.errors import run_cli\n"
        "run_cli(lambda: print('caf\\udce9 \\u67d3 \\u00e9'))"
    )
    environment = {**os.environ, "PYTHONIOENCODING": encoding}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, check=False, env=environment
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert rb"caf\udce9" in done.stdout
