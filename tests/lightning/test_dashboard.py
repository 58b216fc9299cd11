"""The dashboard: its keys are those that a training logs, and a second call updates the first."""

from __future__ import annotations

import http.server
import json
import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import wandb

from deepacc_d2.errors import ConfigError
from deepacc_lightning import dashboard, train
from deepacc_lightning.core.config import compose_config
from deepacc_lightning.wandb.panels import GPU_KEYS, LOSSES, stable_id

METHOD = ("alpha", "beta", "gamma", "m", "s", "delta", "center_share")


@pytest.fixture(autouse=True)
def session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No login, whatever the machine has; W&B reads the environment once unless torn down."""
    for name in ("WANDB_API_KEY", "WANDB_BASE_URL", "WANDB_MODE", "DEEPACC_COMMAND"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("NETRC", str(tmp_path / "home" / "netrc"))
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "home"))
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    wandb.teardown()
    yield
    wandb.teardown()


def make(tmp_path: Path, *overrides: str) -> dict[str, Any]:
    """Runs `make dashboard` and returns the file."""
    out = tmp_path / "spec.json"
    dashboard.run(compose_config("dashboard", [f"out={out}", *overrides]))
    return json.loads(out.read_text())


def panels(spec: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for section in spec["spec"]["section"]["panelBankConfig"]["sections"]:
        yield from section["panels"]


def of_kind(spec: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    return [panel["config"] for panel in panels(spec) if panel["viewType"] == kind]


@pytest.fixture(scope="module")
def logged(
    shared_overrides: list[str],
    tmp_path_factory: pytest.TempPathFactory,
    finished_run: Callable[[Path], SimpleNamespace],
) -> SimpleNamespace:
    """A run with as many test images as give every image that the dashboard shows."""
    out = tmp_path_factory.mktemp("dashboard") / "run"
    overrides = [o for o in shared_overrides if o != "logger=csv"]
    train.run(compose_config("train", [*overrides, f"out={out}", "experiment=siamese_gia"]))
    return finished_run(out)


def test_every_key_is_one_that_a_training_logs(logged: SimpleNamespace, tmp_path: Path) -> None:
    spec = make(tmp_path)
    keys = set(logged.keys)
    read = {
        key
        for kind in ("Run History Line Plot", "Bar Chart")
        for config in of_kind(spec, kind)
        for key in (*config["metrics"], *([config["xAxis"]] if "xAxis" in config else []))
    }
    read |= {
        re.sub(r"^evaluate/", "test/", key)
        for config in of_kind(spec, "Media Browser")
        for key in config["mediaKeys"]
    }
    # Three test images give no second best or worst one.
    assert read - keys - set(GPU_KEYS) == {"test/examples/best_2", "test/examples/worst_2"}
    (chart,) = of_kind(spec, "Vega2")
    table = chart["userQuery"]["queryFields"][0]["fields"][0]["args"][0]["value"]
    assert table in keys
    matched = {key for key in keys if re.fullmatch(LOSSES, key)}
    assert {"train/loss_margin", "train/loss_gia", "train/loss_rpn_cls"} <= matched
    for key in ("test/images", "test/per_class", "test/per_group"):
        assert f'"{key}"' in json.dumps(of_kind(spec, "Weave")), key
        assert key in keys


def test_every_column_and_axis_is_one_of_a_run(logged: SimpleNamespace, tmp_path: Path) -> None:
    spec = make(tmp_path)
    (parallel,) = of_kind(spec, "Parallel Coordinates Plot")
    named = [column["accessor"] for column in parallel["columns"]]
    assert named == [*(f"config:{name}.value" for name in METHOD), "summary:best/val_map50"]
    scatters = of_kind(spec, "Scatter Plot")
    assert [s["xAxis"] for s in scatters] == named[:-1]
    named += [s["yAxis"] for s in scatters]
    named += spec["spec"]["section"]["runSets"][0]["runFeed"]["columnOrder"]
    (importance,) = of_kind(spec, "Parameter Importance")
    named.append(f"summary:{importance['targetKey']}")
    for name in named:
        kind, _, key = name.partition(":")
        if kind == "config":
            assert key.removesuffix(".value") in logged.config, name
        elif kind == "summary":
            top, _, inner = key.partition(".")
            assert top in logged.summary, name
            assert not inner or inner in logged.summary[top], name
        else:
            assert name == "run:displayName"
    for bars in of_kind(spec, "Bar Chart"):
        assert bars["groupBy"] == "preset.value"
    assert "preset" in logged.config


def test_without_a_login_the_file_is_written_and_one_line_says_what_to_run(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    spec = make(tmp_path, "project=other", "entity=a team")
    assert spec["project"] == "other"
    captured = capfd.readouterr()
    assert captured.err == ""
    first, second = captured.out.splitlines()
    assert str(tmp_path / "spec.json") in first
    assert "`wandb login`" in second
    assert "`make dashboard PROJECT=other ENTITY='a team'`" in second


def test_the_same_call_gives_the_same_file(tmp_path: Path) -> None:
    assert make(tmp_path) == make(tmp_path)
    ids = [panel["__id__"] for panel in panels(make(tmp_path))]
    assert len(set(ids)) == len(ids)
    assert make(tmp_path, "name=Another")["name"] != make(tmp_path)["name"]
    assert re.fullmatch(r"[0-9a-z]{11}", stable_id("x"))


def test_other_parameters_and_another_metric(tmp_path: Path) -> None:
    spec = make(tmp_path, "parameters=[optim.optimizer.lr]", "metric=test/aer")
    (scatter,) = of_kind(spec, "Scatter Plot")
    assert scatter["xAxis"] == "config:optim.value.optimizer.lr"
    assert scatter["yAxis"] == "summary:test/aer"


class Server(http.server.BaseHTTPRequestHandler):
    """As much of W&B as saved views need: an account, projects and views by name."""

    views: dict[str, dict[str, Any]]
    projects: set[str]

    def do_GET(self) -> None:
        self._answer({})

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        query, given = asked["query"], asked.get("variables") or {}
        if "upsertModel" in query:
            self.projects.add("{entityName}/{name}".format(**given["input"]))
            project = {"id": "p", "name": "p", "entityName": "lab"}
            project |= {"description": None, "access": None, "views": None}
            data: dict[str, Any] = {"result": {"project": project, "model": project}}
            data["result"]["inserted"] = True
        elif "upsertView" in query:
            key = given.get("id") or f"view{len(self.views)}"
            self.views[key] = {"id": key, **given}
            data = {"upsertView": {"view": {"id": key, "name": given["name"]}, "inserted": True}}
        elif "allViews" in query:
            found = [v for v in self.views.values() if v["name"] == given["viewName"]]
            data = {"project": {"allViews": {"edges": [{"node": view} for view in found]}}}
        else:
            viewer = {"id": "u", "entity": "lab", "username": "lab", "email": "", "flags": "{}"}
            data = {"viewer": {**viewer, "teams": {"edges": []}}}
        self._answer(data)

    def _answer(self, data: dict[str, Any]) -> None:
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.end_headers()
        self.wfile.write(json.dumps({"data": data}).encode())

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Server]]:
    own: type[Server] = type("Own", (Server,), {"views": {}, "projects": set()})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), own) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{running.server_port}")
        yield own
        running.shutdown()


def test_a_second_call_updates_the_view(
    server: type[Server], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    spec = make(tmp_path, "project=mine")
    assert server.projects == {"lab/mine"}
    (view,) = server.views.values()
    assert view["displayName"] == "DeepACC-D2"
    assert json.loads(view["spec"]) == spec["spec"]
    make(tmp_path, "project=mine", "parameters=[alpha]")
    (again,) = server.views.values()
    assert again["id"] == view["id"]
    assert again["spec"] != view["spec"]
    make(tmp_path, "project=mine", "name=Another")
    assert len(server.views) == 2
    assert f"/lab/mine?nw={stable_id('DeepACC-D2')}" in capfd.readouterr().out


def test_a_server_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    with pytest.raises(ConfigError, match=r"127.0.0.1:9 cannot be reached .*make dashboard"):
        make(tmp_path)
    assert (tmp_path / "spec.json").is_file()


def test_bad_values(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="takes no such dashboard"):
        make(tmp_path, "name='\N{SNOWMAN}'")
    assert not (tmp_path / "spec.json").exists()
