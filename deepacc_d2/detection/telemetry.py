"""OpenVINO and NNCF report their use to their makers: here they do not."""

from __future__ import annotations

from typing import Any


def stay_silent() -> None:
    """Keeps OpenVINO's telemetry from sending anything; call it before OpenVINO is used.

    It has no switch but a file in the user's home. A laboratory's machine must tell nobody what it
    does, and each report is sent by a fork of this process, which may wait forever for a lock that
    another thread held.
    """
    try:
        from openvino_telemetry.backend import backend_ga4
    except ImportError:
        return
    backend_ga4.GA4Backend.send = _send_nothing


def _send_nothing(self: Any, message: Any) -> None:
    pass
