from __future__ import annotations

import json
from pathlib import Path

import pytest
from wandb.proto import wandb_internal_pb2

from deepacc_d2.errors import DataError
from deepacc_lightning.wandb.offline import (
    BLOCK,
    FIRST,
    FULL,
    HEADER,
    LAST,
    MIDDLE,
    RECORD_HEADER,
    describe,
    find_runs,
    read_run,
    records,
)


def write_log(path: Path, payloads: list[bytes]) -> None:
    """Writes LevelDB's log format as its documentation says it, without checksums."""
    content = bytearray(HEADER)
    for payload in payloads:
        rest, begun = payload, False
        while True:
            room = BLOCK - len(content) % BLOCK
            if room < RECORD_HEADER.size:
                content += bytes(room)
                continue
            part, rest = rest[: room - RECORD_HEADER.size], rest[room - RECORD_HEADER.size :]
            kind = (MIDDLE if begun else FIRST) if rest else (LAST if begun else FULL)
            content += RECORD_HEADER.pack(0, len(part), kind) + part
            begun = True
            if not rest:
                break
    path.write_bytes(content)


@pytest.mark.parametrize("size", [0, 1, BLOCK - 21, BLOCK - 20, BLOCK - 14, BLOCK - 7, 3 * BLOCK])
def test_records_of_any_size_come_back(size: int, tmp_path: Path) -> None:
    payloads = [b"first", b"x" * size, b"between", b"y" * size, b"last"]
    write_log(tmp_path / "run-a.wandb", payloads)
    assert list(records(tmp_path / "run-a.wandb")) == payloads


def test_a_file_that_is_still_written_gives_what_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "run-a.wandb"
    write_log(path, [b"first", b"second"])
    path.write_bytes(path.read_bytes()[:-3])
    assert list(records(path)) == [b"first"]


def record(**fields: object) -> bytes:
    return wandb_internal_pb2.Record(**fields).SerializeToString()


def item(key: str | list[str], value: object) -> dict[str, object]:
    named = {"key": key} if isinstance(key, str) else {"nested_key": key}
    return {**named, "value_json": json.dumps(value)}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "wandb" / "offline-run-20260101_000000-abcd1234"
    folder.mkdir(parents=True)
    payloads = [
        record(
            run={
                "run_id": "abcd1234",
                "project": "p",
                "run_group": "g",
                "job_type": "sep",
                "tags": ["quick"],
                "config": {"update": [item("alpha", 0.1), item("model", {"a": 1})]},
            }
        ),
        record(config={"update": [item("alpha", 0.2)]}),
        record(history={"item": [item(["train/loss"], 1.5), item(["_step"], 0)]}),
        record(history={"item": [item(["val/map50"], 20.0), item(["_step"], 1)]}),
        record(summary={"update": [item(["val/map50", "max"], 20.0), item("test/aer", 31.25)]}),
        record(metric={"name": "val/map50", "step_metric": "step", "summary": {"max": True}}),
        record(exit={"exit_code": 1}),
    ]
    write_log(folder / "run-abcd1234.wandb", payloads)
    return tmp_path


def test_what_a_run_holds(folder: Path) -> None:
    (path,) = find_runs(folder)
    run = read_run(path)
    assert (run.run_id, run.project, run.group, run.job_type) == ("abcd1234", "p", "g", "sep")
    assert run.tags == ["quick"]
    assert run.config == {"alpha": 0.2, "model": {"a": 1}}
    assert run.history == [{"train/loss": 1.5, "_step": 0}, {"val/map50": 20.0, "_step": 1}]
    assert run.logged_keys() == ["train/loss", "val/map50"]
    assert run.summary == {"val/map50": {"max": 20.0}, "test/aer": 31.25}
    assert run.metrics == {"val/map50": {"step_metric": "step", "summary": ["max"]}}
    assert run.exit_code == 1


def test_description_names_what_matters(folder: Path) -> None:
    (path,) = find_runs(folder)
    lines = describe(read_run(path)).splitlines()
    assert lines[0].split() == ["run", "abcd1234"]
    assert "columns  alpha=0.2" in lines
    assert "train/   loss" in lines
    assert "results  test/aer=31.2" in lines
    assert lines[-1] == f"upload   wandb sync {path.parent}"


def test_runs_are_found_oldest_first_and_once(folder: Path) -> None:
    newer = folder / "wandb" / "run-20260102_000000-efgh5678"
    newer.mkdir()
    write_log(newer / "run-efgh5678.wandb", [])
    (folder / "wandb" / "latest-run").symlink_to(newer.name)
    assert [path.stem for path in find_runs(folder)] == ["run-abcd1234", "run-efgh5678"]


def test_bad_input(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no \.wandb file below"):
        find_runs(tmp_path)
    path = tmp_path / "run-a.wandb"
    with pytest.raises(DataError, match="cannot be read"):
        read_run(path)
    path.write_bytes(b"something else")
    with pytest.raises(DataError, match="is no W&B run"):
        read_run(path)
