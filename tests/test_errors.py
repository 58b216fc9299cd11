from __future__ import annotations

from collections.abc import Callable

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


def test_ctrl_c_exits_130(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        run_cli(_raiser(KeyboardInterrupt()))
    assert caught.value.code == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_defects_of_the_program_keep_their_traceback() -> None:
    with pytest.raises(ZeroDivisionError):
        run_cli(_raiser(ZeroDivisionError()))
