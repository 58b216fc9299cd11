from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from deepacc_d2.errors import ConfigError, DataError, UserError, run_cli


def _raiser(error: BaseException) -> Callable[[], int | None]:
    def main() -> int | None:
        raise error

    return main


@pytest.mark.parametrize(("result", "status"), [(None, 0), (0, 0), (1, 1)])
def test_status_of_a_main_that_returns(result: int | None, status: int) -> None:
    with pytest.raises(SystemExit) as caught:
        run_cli(lambda: result)
    assert caught.value.code == status


@pytest.mark.parametrize("kind", [UserError, DataError, ConfigError])
def test_user_error_is_one_line_and_exits_2(
    kind: type[UserError], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        run_cli(_raiser(kind("image a.jpg is empty: remove it")))
    assert caught.value.code == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err == "error: image a.jpg is empty: remove it\n"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EFBIG])
@pytest.mark.parametrize("name", ["out/cells.csv", None])
def test_a_full_disk_is_one_line(
    number: int, name: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        run_cli(_raiser(OSError(number, os.strerror(number), name)))
    assert caught.value.code == 2
    assert capsys.readouterr().err == (
        f"error: {name or 'a file'} cannot be written ({os.strerror(number)}): "
        "make room, or choose another OUT\n"
    )


def test_other_errors_of_files_keep_their_traceback() -> None:
    with pytest.raises(PermissionError):
        run_cli(_raiser(PermissionError(errno.EACCES, "no", "a")))


def test_sigterm_cleans_up_and_exits_143(tmp_path: Path) -> None:
    program = """
import sys, time
from pathlib import Path
from deepacc_d2.errors import run_cli
from deepacc_d2.files import whole_directory
def main():
    with whole_directory(Path(sys.argv[1]), overwrite=False):
        print("at work", flush=True)
        time.sleep(120)
run_cli(main)
"""
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path / "out")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "at work\n"
    assert any(tmp_path.iterdir())
    process.terminate()
    _, said = process.communicate(timeout=60)
    assert process.returncode == 143
    assert said == "interrupted by SIGTERM\n"
    assert list(tmp_path.iterdir()) == []


def test_ctrl_c_exits_130(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        run_cli(_raiser(KeyboardInterrupt()))
    assert caught.value.code == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_defects_of_the_program_keep_their_traceback() -> None:
    with pytest.raises(ZeroDivisionError):
        run_cli(_raiser(ZeroDivisionError()))
