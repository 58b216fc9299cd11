from __future__ import annotations

import multiprocessing

import pytest

from deepacc_d2.detection.telemetry import stay_silent


def test_openvino_reports_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    backend = pytest.importorskip("openvino_telemetry.backend.backend_ga4")
    started: list[object] = []
    monkeypatch.setattr(multiprocessing.Process, "start", started.append)
    stay_silent()
    backend.GA4Backend("id", "deepacc", "1").send({"client_id": "0", "events": []})
    assert started == []
