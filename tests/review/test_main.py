"""The command line, as a process: a server that is reached, and each other command."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from deepacc_d2.errors import ConfigError, UserError
from deepacc_d2.karyogram.orientation.find import SHIPPED
from deepacc_d2.review.__main__ import main
from deepacc_d2.review.people import People
from deepacc_d2.review.serving import ServeOptions, check_access, only_server
from deepacc_d2.review.store.intake import take_in
from deepacc_d2.review.store.store import Store


@pytest.fixture
def reviewed(results):
    """Results with a review beside them."""
    store = Store(results / "review" / "review.db")
    take_in(store, results)
    store.close()
    return results


def start(root, *arguments):
    return subprocess.Popen(
        [sys.executable, "-m", "deepacc_d2.review", "serve", str(root), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )


def test_serves_without_torch_and_stops_at_ctrl_c(results):
    server = start(results, "--port", "0")
    try:
        told = ""
        while "review at" not in told:
            line = server.stdout.readline()
            assert line, told
            told += line
        assert "6 new cells" in told
        port = int(re.search(r":(\d+)/", told)[1])
        url = f"http://127.0.0.1:{port}/api/v1"
        deadline = time.monotonic() + 20
        while True:
            try:
                me = json.load(urllib.request.urlopen(f"{url}/me", timeout=5))
                break
            except OSError:
                assert time.monotonic() < deadline
                time.sleep(0.1)
        assert me["role"] == "administrator"
        second = start(results, "--port", "0")
        assert "another server has" in second.communicate(timeout=60)[0]
        assert second.returncode == 2
        maps = Path(f"/proc/{server.pid}/maps")
        # Torch is loaded where there is a network that turns chromosomes, and only then.
        without = not maps.exists() or "libtorch" not in maps.read_text()
        assert without or SHIPPED.is_file()
    finally:
        server.send_signal(signal.SIGINT)
        server.wait(20)


def test_verify_export_backup_restore(reviewed, tmp_path, capsys):
    assert main(["verify", str(reviewed)]) == 0
    told = capsys.readouterr().out
    assert "trail of 6 entries is as it was written" in told
    known = told.split()[-1]
    assert main(["verify", str(reviewed), "--expect", known]) == 0
    assert main(["verify", str(reviewed), "--expect", "0" * 64]) == 1
    out = str(tmp_path / "out")
    assert main(["export", str(reviewed), "--to", out, "--karyogram", "none", "--no-overlay"]) == 0
    assert (tmp_path / "out" / "cells.csv").is_file()
    saved = str(tmp_path / "b.zip")
    assert main(["backup", str(reviewed), "--to", saved]) == 0
    assert main(["restore", str(tmp_path / "again"), "--from", saved]) == 0
    capsys.readouterr()
    assert main(["verify", str(tmp_path / "again")]) == 0
    assert capsys.readouterr().out.split()[-1] == known
    with pytest.raises(UserError, match="confirm cells"):
        main(["dataset", str(reviewed), "--to", str(tmp_path / "data")])


def test_users_by_the_command_line(reviewed, capsys, monkeypatch):
    import io

    def run(*arguments, password="correct horse"):
        monkeypatch.setattr(sys, "stdin", io.StringIO(password + "\n"))
        return main(["user", str(reviewed), *arguments, "--password-stdin"])

    run("add", "ada", "--role", "reviewer")
    run("disable", "ada")
    run("role", "ada", "--role", "reader")
    capsys.readouterr()
    run("list")
    assert capsys.readouterr().out == "ada\treader\tdisabled\n"
    with pytest.raises(ConfigError, match="at least 10"):
        run("add", "ben", password="short")
    with pytest.raises(ConfigError, match="give a name"):
        run("add")


@pytest.mark.parametrize("command", ["verify", "export --to x", "backup --to x"])
def test_a_folder_without_a_review(results, command):
    name, *more = command.split()
    with pytest.raises(ConfigError, match="serve it first"):
        main([name, str(results), *more])


def test_a_folder_without_predictions(tmp_path):
    with pytest.raises(ConfigError, match="run make predict"):
        main(["serve", str(tmp_path)])


def test_two_servers(results):
    with (
        only_server(results),
        pytest.raises(ConfigError, match="another server"),
        only_server(results),
    ):
        pass
    with only_server(results):
        pass


def test_what_others_reach_needs_users_tls_and_a_folder(sqlite_store, tmp_path):
    people = People(sqlite_store)
    check_access(ServeOptions(), people)
    check_access(ServeOptions(address="::1"), people)
    for port in (-1, 65_536):
        with pytest.raises(ConfigError, match=f"port {port} must be between 1 and 65535"):
            check_access(ServeOptions(port=port), people)
    shown = {"images": [tmp_path]}
    tls = {"certificate": tmp_path / "c", "key": tmp_path / "k"}
    open_to_all = {"address": "0.0.0.0"}
    with pytest.raises(ConfigError, match="add users first"):
        check_access(ServeOptions(**open_to_all, **shown, **tls, names=["lab"]), people)
    # A proxy on this machine hands on what others ask.
    with pytest.raises(ConfigError, match="add users first"):
        check_access(ServeOptions(behind_proxy=True), people)
    people.add("ada", "correct horse", "administrator", by="root")
    for options, says in (
        ({**open_to_all, **shown, "names": ["lab"]}, "--tls-certificate"),
        ({**open_to_all, **tls, "names": ["lab"]}, "--images"),
        ({**open_to_all, **tls, **shown}, "--name"),
        ({"certificate": tmp_path / "c"}, "both"),
    ):
        with pytest.raises(ConfigError, match=says):
            check_access(ServeOptions(**options), people)
    check_access(ServeOptions(**open_to_all, **shown, **tls, names=["lab"]), people)


def test_a_folder_alone_is_served(tmp_path: Path) -> None:
    said = []
    for words in (["serve", str(tmp_path / "no")], [str(tmp_path / "no")]):
        with pytest.raises(UserError) as error:
            main(words)
        said.append(str(error.value))
    assert said[0] == said[1]
    assert str(tmp_path / "no") in said[0]
