"""The HTTP API: what it tells and takes, and whom it refuses."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
from argon2 import PasswordHasher
from fastapi.testclient import TestClient
from sqlalchemy import text

from deepacc_d2.review.cases import Rule
from deepacc_d2.review.imaging import Imaging
from deepacc_d2.review.people import People
from deepacc_d2.review.store.database import writing
from deepacc_d2.review.store.verify import verify
from deepacc_d2.review.web.app import create_app, static_url
from deepacc_d2.review.web.context import Context

PASSWORD = "correct horse"


def make(store, root, **more):
    people = People(store)
    people._hasher = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
    values = {"imaging": Imaging(), "rule": Rule(3, 1, 0), "alone": "ada"} | more
    context = Context(store=store, root=root, people=people, **values)
    return context, create_app(context)


def client_of(app):
    return TestClient(app, base_url="http://127.0.0.1", raise_server_exceptions=False)


def login(app, name):
    client = client_of(app)
    answer = client.post("/api/v1/login", json={"user": name, "password": PASSWORD})
    assert answer.status_code == 200
    client.headers["x-review-token"] = client.get("/api/v1/me").json()["token"]
    return client


@pytest.fixture
def alone(sqlite_store, results):
    _, app = make(sqlite_store, results)
    client = client_of(app)
    client.headers["x-review-token"] = client.get("/api/v1/me").json()["token"]
    return client


@pytest.fixture
def shared(sqlite_store, results):
    context, app = make(sqlite_store, results)
    for name, role in (("rea", "reader"), ("rev", "reviewer"), ("adm", "administrator")):
        context.people.add(name, PASSWORD, role, by="root")
    return app


def post(client, cell, base, **event):
    return client.post(f"/api/v1/cells/{cell}/events", json={"event": event, "base": base})


def test_worklist_and_cell(alone):
    listed = alone.get("/api/v1/cells").json()
    assert listed["total"] == 6
    assert [c["confidence"] for c in listed["cells"]] == sorted(
        c["confidence"] for c in listed["cells"]
    )
    assert alone.get("/api/v1/cells", params={"words": "CASE 1 cell1"}).json()["total"] == 3
    assert alone.get("/api/v1/cells", params={"words": "%"}).json()["total"] == 0
    assert alone.get("/api/v1/cells", params={"state": "done"}).json()["total"] == 0
    cell = alone.get("/api/v1/cells/1").json()
    assert cell["count"] == len(cell["chromosomes"])
    assert cell["chromosomes"][0]["alternatives"][0] == ["1", 0.97]


def test_an_event_changes_what_is_told_at_once(alone, sqlite_store):
    cell = alone.get("/api/v1/cells/1").json()
    a = next(c["id"] for c in cell["chromosomes"] if c["class"] == "21")
    answer = post(alone, 1, cell["version"], kind="reclassify", chromosome=a, to="22")
    assert answer.status_code == 200
    after = answer.json()
    assert after["karyotype"].endswith(",-21,+22")
    assert (after["state"], after["can_undo"], after["touched"]) == ("in_review", 1, 1)
    found = alone.get("/api/v1/corrections", params={"predicted": "21", "current": "22"}).json()
    assert [(c["cell_id"], c["chromosome"]) for c in found["corrections"]] == [(1, a)]
    assert alone.get("/api/v1/corrections", params={"predicted": "5"}).json()["total"] == 0
    stale = post(alone, 1, cell["version"], kind="undo")
    assert (stale.status_code, stale.json()["version"]) == (409, after["version"])
    changes = alone.get("/api/v1/changes", params={"after": 6}).json()
    assert changes["cells"] == {"1": {"version": after["version"], "who": "ada"}}
    assert alone.get("/api/v1/cells/1/trail").json()[-1]["event"]["to"] == "22"
    assert verify(sqlite_store).problems == []


def test_pictures(alone):
    cell = alone.get("/api/v1/cells/1").json()
    image = alone.get("/api/v1/cells/1/image.png")
    pixels = cv2.imdecode(np.frombuffer(image.content, np.uint8), cv2.IMREAD_UNCHANGED)
    assert pixels.shape == (cell["height"], cell["width"])
    again = alone.get("/api/v1/cells/1/image.png", headers={"if-none-match": image.headers["etag"]})
    assert again.status_code == 304
    strips = alone.get("/api/v1/cells/1/strips").json()["strips"]
    assert {int(n) for n in strips} == {c["id"] for c in cell["chromosomes"]}
    assert alone.get("/api/v1/cells/1/karyogram.svg").content[:5] == b"<?xml"
    assert alone.get("/api/v1/cases/1/report.pdf").content[:4] == b"%PDF"


def test_a_split_is_proposed_and_done(alone):
    cell = alone.get("/api/v1/cells/1").json()
    tall = max(cell["chromosomes"], key=lambda c: c["box"][3] - c["box"][1])
    x0, y0, x1, y1 = tall["box"]
    line = [x0 - 5, (y0 + y1) / 2, x1 + 5, (y0 + y1) / 2]
    told = alone.post("/api/v1/cells/1/split", json={"chromosome": tall["id"], "line": line}).json()
    upper, lower = sorted(told["boxes"], key=lambda b: b[1])
    assert upper[3] <= (y0 + y1) / 2 + 1.5
    assert lower[1] >= (y0 + y1) / 2 - 1.5
    after = post(
        alone, 1, cell["version"], kind="split", chromosome=tall["id"], line=line, **told
    ).json()
    assert after["count"] == cell["count"] + 1
    assert after["unidentified"] == 2
    missed = {"chromosome": tall["id"], "line": [0, 0, 1, 5]}
    assert alone.post("/api/v1/cells/1/split", json=missed).status_code == 422


def test_a_case_is_signed_by_two_people(shared):
    rea, rev = login(shared, "rea"), login(shared, "rev")
    for n in (1, 2, 3):
        post(
            rea,
            n,
            rea.get(f"/api/v1/cells/{n}").json()["version"],
            kind="confirm",
            level="analyzed",
        )
    page = rea.get("/api/v1/cases/1").json()
    assert page["rule"] == {"counted": [3, 3], "analyzed": [3, 1], "karyotyped": [0, 0]}

    def sign(client, role, password=PASSWORD):
        base = client.get("/api/v1/cases/1").json()["version"]
        body = {"event": {"kind": "sign", "role": role}, "base": base, "password": password}
        return client.post("/api/v1/cases/1/events", json=body)

    assert sign(rea, "first", "wrong password").status_code == 401
    assert sign(rea, "first").status_code == 200
    assert sign(rea, "second").status_code == 403
    assert sign(rev, "second").json()["override"]["locked"] is True
    bundle = rea.get("/api/v1/cases/1/fhir").json()
    kinds = [e["resource"]["resourceType"] for e in bundle["entry"]]
    assert kinds == ["DiagnosticReport", "Observation", "Observation"]
    assert bundle["entry"][1]["resource"]["valueString"] == page["result"]["karyotype"]
    assert rea.get("/api/v1/cases/2/fhir").json()["detail"].endswith("sign it first")
    refused = post(rea, 1, rea.get("/api/v1/cells/1").json()["version"], kind="undo")
    assert "locked" in refused.json()["detail"]
    listed = rea.get("/api/v1/cases").json()
    assert [c["signed_by"] for c in listed] == [["rea", "rev"], []]
    base = rea.get("/api/v1/cases/1").json()["version"]
    body = {"event": {"kind": "reopen", "reason": "more cells"}, "base": base}
    assert rea.post("/api/v1/cases/1/events", json=body).status_code == 403
    assert rev.post("/api/v1/cases/1/events", json=body).json()["override"]["signatures"] == []


# Access


def test_who_is_not_logged_in_sees_nothing(shared):
    client = client_of(shared)
    paths = [
        path
        for path, methods in shared.openapi()["paths"].items()
        if "get" in methods and path != "/api/v1/login"
    ]
    assert len(paths) > 10
    for path in paths:
        filled = path.replace("{cell_id}", "1").replace("{case_id}", "1").replace("{suffix}", "svg")
        assert client.get(filled).status_code == 401, path
    for path in ("cells/1/events", "cases/1/events", "refresh", "cells/1/split", "logout"):
        answer = client.post(f"/api/v1/{path}", json={})
        assert answer.status_code in (401, 422), path
    assert client.get(f"{static_url()}/app.css").status_code == 200  # the login page needs it


def test_the_session_cookie_is_kept_from_scripts_and_other_sites(shared):
    answer = client_of(shared).post("/api/v1/login", json={"user": "rea", "password": PASSWORD})
    cookie = answer.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie


@pytest.mark.parametrize("with_login", [False, True])
def test_changing_needs_the_page_s_token(request, with_login):
    client = (
        login(request.getfixturevalue("shared"), "rea")
        if with_login
        else request.getfixturevalue("alone")
    )
    del client.headers["x-review-token"]
    assert client.post("/api/v1/refresh").status_code == 403
    client.headers["x-review-token"] = "guessed"
    assert client.post("/api/v1/refresh").status_code == 403


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "", "[", "10.0.0.1"])
def test_another_name_is_refused(alone, host):
    assert alone.get("/api/v1/me", headers={"host": host}).status_code == 400


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"origin": "http://127.0.0.1:1"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
    ],
)
def test_another_site_is_refused(alone, headers):
    assert alone.post("/api/v1/refresh", headers=headers).status_code == 403
    assert alone.post("/api/v1/refresh", headers={"origin": "http://127.0.0.1"}).status_code == 200


def test_answers_forbid_what_pages_do_not_need(alone):
    headers = alone.get("/").headers
    assert "script-src 'self'" in headers["content-security-policy"]
    assert "unsafe" not in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"
    assert alone.get("/api/v1/me").headers["cache-control"] == "no-store"


@pytest.mark.parametrize(
    "path",
    [
        f"{static_url()}/../../app.py",
        f"{static_url()}/%2e%2e/app.py",
        f"{static_url()}/..%2f..%2fevents.py",
        f"{static_url()}//etc/passwd",
        "/?name=../app",
        "/login?name=../../x",
        "/job.json",
        "/review/review.db",
    ],
)
def test_no_file_beside_the_pages_is_given(alone, path):
    answer = alone.get(path)
    assert answer.status_code == 404 or answer.content.startswith(b"<!doctype html>")
    assert b"import" not in answer.content[:200]


def test_images_outside_the_folders_shown_are_refused(sqlite_store, results, drawn_results):
    for root, status in ((results, 410), (drawn_results.parent / "slides", 200)):
        _, app = make(sqlite_store, results, imaging=Imaging([root]))
        assert client_of(app).get("/api/v1/cells/1/image.png").status_code == status


def test_an_image_that_has_gone(alone, sqlite_store):
    with writing(sqlite_store.engine) as connection:
        connection.execute(
            text(
                "UPDATE predictions SET prediction = replace(prediction, 'cell00.png', 'gone.png')"
            )
        )
    sqlite_store._cache.clear()
    for what in ("image.png", "strips", "karyogram.png"):
        answer = alone.get(f"/api/v1/cells/1/{what}")
        assert answer.status_code == 410
        assert "gone.png is missing" in answer.json()["detail"]
    assert alone.get("/api/v1/cells/1").status_code == 200


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b'{"event": {"kind": "turn", "chromosome": 1}}',
        b'{"event": {"kind": "nothing"}, "base": 1}',
        b'{"event": {"kind": "turn", "chromosome": 1}, "base": -1}',
        b'{"event": {"kind": "turn", "chromosome": 1}, "base": 1, "key": "../x"}',
        b'{"event": {"kind": "turn", "chromosome": 999}, "base": 1}',
        b"\xff\xfe",
    ],
)
def test_a_bad_request_is_told_in_one_line(alone, body):
    headers = {"content-type": "application/json"}
    answer = alone.post("/api/v1/cells/1/events", content=body, headers=headers)
    assert answer.status_code == 422
    assert "\n" not in answer.json()["detail"]


def test_too_large_a_request_is_refused(alone):
    assert alone.post("/api/v1/refresh", content=b"x" * 2_000_000).status_code == 413


def test_what_is_not_there(alone):
    assert alone.get("/api/v1/cells/99").status_code == 404
    assert alone.get("/api/v1/cases/99").status_code == 404
    assert alone.get("/api/v1/cells/x").status_code == 422


def test_only_an_administrator_checks_the_trail(shared):
    assert login(shared, "rev").get("/api/v1/verify").status_code == 403
    assert login(shared, "adm").get("/api/v1/verify").json()["problems"] == []


def test_new_predictions_are_taken_in(alone, results):
    source = json.loads((results / "cells" / "cell00.json").read_text())
    record = {**source, "name": "later", "case": "<script>alert(1)</script>"}
    (results / "cells" / "later.json").write_text(json.dumps(record))
    assert alone.post("/api/v1/refresh").json()["added"] == 1
    assert alone.get("/api/v1/cells", params={"words": "later"}).json()["total"] == 1
