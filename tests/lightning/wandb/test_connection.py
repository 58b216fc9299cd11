"""Online without a login or a server: one line, a few seconds, and all logs kept."""

from __future__ import annotations

import http.server
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import wandb

from deepacc_lightning import train
from deepacc_lightning.core.config import compose_config
from deepacc_lightning.wandb.connection import unreachable
from deepacc_lightning.wandb.loggers import WandbLogger, finished_runs

KEY = "a" * 40
FinishedRun = Callable[[Path], SimpleNamespace]


@pytest.fixture(autouse=True)
def session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """W&B reads the environment once in a process, unless it is torn down."""
    for name in ("WANDB_API_KEY", "WANDB_BASE_URL", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("NETRC", str(tmp_path / "home" / "netrc"))
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "home"))
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    wandb.teardown()
    yield
    wandb.teardown()


@pytest.fixture
def dead_port() -> Iterator[str]:
    """The address of a port that nothing listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{free.getsockname()[1]}"


@pytest.fixture
def silent_server() -> Iterator[str]:
    """The address of a server that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0), backlog=50) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture
def refusing_server() -> Iterator[str]:
    """The address of a server that is there, and refuses all that W&B asks for."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(404)

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("content-length", 0)))
            self.send_error(401)

        def log_message(self, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


class Accepting(http.server.BaseHTTPRequestHandler):
    """As much of W&B's server as a new run needs to start online."""

    def do_GET(self) -> None:
        self._answer({})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        query = json.loads(body)["query"] if self.path == "/graphql" else ""
        project = {"id": "p", "name": "p", "entity": {"id": "e", "name": "lab"}}
        data: dict[str, object] = {}
        if "upsertBucket" in query:
            bucket = {"id": "r", "name": "abcd1234", "displayName": "", "project": project}
            bucket |= {"description": None, "config": "{}", "sweepName": None}
            data = {"upsertBucket": {"bucket": bucket, "inserted": True}}
        elif "RunResumeStatus" in query:
            data = {"model": {**project, "bucket": None}}
        elif "CreateRunFiles" in query:
            # Without an answer to it W&B's process crashes, if it gets so far in time.
            data = {"createRunFiles": {"runID": "r", "uploadHeaders": [], "files": []}}
        elif "viewer" in query:
            viewer = {"id": "u", "entity": "lab", "username": "lab", "email": "", "flags": "{}"}
            data = {"viewer": {**viewer, "teams": {"edges": []}}}
        self._answer({"data": data})

    def _answer(self, content: dict[str, object]) -> None:
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.end_headers()
        self.wfile.write(json.dumps(content).encode())

    def log_message(self, *args: object) -> None:
        pass


def test_a_server_that_goes_away(
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    finished_run: FinishedRun,
) -> None:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Accepting)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{server.server_port}")
    logger = WandbLogger(project="p", save_dir=str(tmp_path), id="abcd1234", finish_timeout=1)
    with finished_runs([logger]):
        logger.log_hyperparams({"alpha": 0.5})
        assert logger.experiment.settings.mode == "online"
        server.shutdown()
        server.server_close()
        for step in range(3):
            logger.log_metrics({"train/loss": 1.0 / (step + 1)}, step=step)
    error = capfd.readouterr().err
    check_kept(tmp_path, error, finished_run)
    assert "took over 1 s for the end of the run" in error


def log_something(out: Path, timeout: float) -> float:
    """Logs a few numbers online, and returns how long it all took in seconds."""
    began = time.monotonic()
    logger = WandbLogger(
        project="p", save_dir=str(out), id="abcd1234", start_timeout=timeout, finish_timeout=timeout
    )
    with finished_runs([logger]):
        logger.log_hyperparams({"alpha": 0.5})
        for step in range(3):
            logger.log_metrics({"train/loss": 1.0 / (step + 1)}, step=step)
    return time.monotonic() - began


def check_kept(out: Path, error: str, finished_run: FinishedRun) -> None:
    """Checks the one warning, and that the directory it names holds all that was logged."""
    (line,) = error.strip().splitlines()
    assert line.startswith("warning: ")
    folder = Path(line.partition("`wandb sync ")[2].rstrip("`"))
    assert folder.parent == out / "wandb"
    run = finished_run(folder)
    assert run.run["run_id"] == "abcd1234"
    assert run.config["alpha"] == 0.5
    assert [row["train/loss"] for row in run.history] == pytest.approx([1.0, 1 / 2, 1 / 3])


def test_no_login(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], finished_run: FinishedRun
) -> None:
    log_something(tmp_path, timeout=5)
    error = capfd.readouterr().err
    check_kept(tmp_path, error, finished_run)
    assert "no W&B login (run `wandb login`)" in error


def test_a_port_that_nothing_listens_on(
    dead_port: str,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    finished_run: FinishedRun,
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setenv("WANDB_BASE_URL", dead_port)
    log_something(tmp_path, timeout=5)
    error = capfd.readouterr().err
    check_kept(tmp_path, error, finished_run)
    assert f"{dead_port} cannot be reached (Connection refused)" in error


def test_a_server_that_never_answers(
    silent_server: str,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    finished_run: FinishedRun,
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setenv("WANDB_BASE_URL", silent_server)
    seconds = log_something(tmp_path, timeout=1)
    error = capfd.readouterr().err
    check_kept(tmp_path, error, finished_run)
    assert f"{silent_server} cannot be reached (no answer" in error
    assert seconds < 60, "W&B alone waits 90 seconds"


def test_a_server_that_refuses(
    refusing_server: str,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    finished_run: FinishedRun,
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setenv("WANDB_BASE_URL", refusing_server)
    log_something(tmp_path, timeout=5)
    error = capfd.readouterr().err
    check_kept(tmp_path, error, finished_run)
    assert "401" in error


def test_a_training_goes_on_without_its_server(
    dead_port: str,
    overrides: list[str],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setenv("WANDB_BASE_URL", dead_port)
    overrides = [o for o in overrides if o != "logger=csv"]
    train.run(compose_config("train", [*overrides, "logger.wandb.offline=false", "test=false"]))
    warnings = [x for x in capfd.readouterr().err.splitlines() if "W&B" in x or "wandb" in x]
    assert len(warnings) == 1
    assert f"wandb sync {tmp_path / 'run' / 'wandb' / 'offline-run-'}" in warnings[0]
    facts = json.loads((tmp_path / "run" / "run.json").read_text())
    assert facts["status"] == "finished"
    assert len(list((tmp_path / "run" / "wandb").glob(f"offline-run-*-{facts['wandb_id']}"))) == 1


def test_offline_asks_no_server(
    silent_server: str,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    finished_run: FinishedRun,
) -> None:
    logger = WandbLogger(offline=True, project="p", save_dir=str(tmp_path), start_timeout=0.001)
    with finished_runs([logger]):
        logger.log_metrics({"train/loss": 1.0}, step=0)
    assert capfd.readouterr().err == ""
    assert [row["train/loss"] for row in finished_run(tmp_path).history] == [1.0]


def test_answers_of_any_kind_count(
    refusing_server: str, dead_port: str, silent_server: str
) -> None:
    assert unreachable(refusing_server, 5) is None, "404 is an answer"
    assert unreachable(dead_port, 5) == "Connection refused"
    began = time.monotonic()
    assert "no answer" in str(unreachable(silent_server, 0.3))
    assert time.monotonic() - began < 5
    assert unreachable("no address", 5) is not None
