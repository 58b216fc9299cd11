from __future__ import annotations

import csv
from pathlib import Path

import pytest

from deepacc_lightning.training.csv_logger import CSVLogger


def _rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "csv" / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def _logger(folder: Path) -> CSVLogger:
    return CSVLogger(save_dir=folder, name="", version="csv")


@pytest.fixture
def logged(tmp_path: Path) -> Path:
    logger = _logger(tmp_path)
    for step in range(5):
        logger.log_metrics({"loss": step / 2}, step)
    logger.log_metrics({"map": 7.0}, 4)
    logger.save()
    return tmp_path


def test_a_new_logger_goes_on_with_the_file(logged: Path) -> None:
    logger = _logger(logged)
    logger.log_metrics({"loss": 9.0}, 5)
    logger.save()
    rows = _rows(logged)
    assert [row["step"] for row in rows] == ["0", "1", "2", "3", "4", "4", "5"]
    assert [row["loss"] for row in rows if row["loss"]] == [
        "0.0",
        "0.5",
        "1.0",
        "1.5",
        "2.0",
        "9.0",
    ]


def test_what_will_be_logged_again_is_dropped(logged: Path) -> None:
    logger = _logger(logged)
    logger.forget_from(3)
    logger.log_metrics({"loss": 30.0, "new": 1.0}, 3)
    logger.save()
    rows = _rows(logged)
    assert [(row["step"], row["loss"]) for row in rows] == [
        *[("0", "0.0"), ("1", "0.5"), ("2", "1.0")],
        ("3", "30.0"),
    ]
    assert rows[-1]["new"] == "1.0"
    assert "map" in rows[0]


def test_half_a_line_of_a_killed_process_is_dropped(logged: Path) -> None:
    with (logged / "csv" / "metrics.csv").open("a") as file:
        file.write("0.1,")
    _logger(logged).forget_from(100)
    assert [row["step"] for row in _rows(logged)] == ["0", "1", "2", "3", "4", "4"]


def test_nothing_to_forget(tmp_path: Path) -> None:
    _logger(tmp_path).forget_from(3)
    assert not (tmp_path / "csv" / "metrics.csv").exists()


def test_a_process_that_is_killed_while_it_writes_loses_nothing(
    logged: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    logger = _logger(logged)
    logger.log_hyperparams({"lr": 1.0})
    before = {path: path.read_bytes() for path in (logged / "csv").iterdir()}
    assert len(before) == 2

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        logger.log_hyperparams({"lr": 2.0})
    logger.log_metrics({"another": 1.0}, 5)  # a column more: all is written anew
    with pytest.raises(KeyboardInterrupt):
        logger.save()
    assert {path: path.read_bytes() for path in (logged / "csv").iterdir()} == before
