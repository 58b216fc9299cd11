"""New images: taken or refused, predicted by a process apart, in the worklist."""

from __future__ import annotations

import json
import shutil
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hydra.utils import instantiate

from deepacc_d2.detection.detector import model_hash
from deepacc_d2.prediction.folder import OutputFolder
from deepacc_d2.review.store.database import reading
from deepacc_d2.review.store.lists import list_trail
from deepacc_d2.review.store.verify import verify
from deepacc_d2.review.uploads import files, worker
from deepacc_d2.review.uploads.queue import Uploads
from deepacc_lightning.core.config import compose_config, to_plain

from .test_api import client_of, login, make

TINY = (
    *("pixel_mean=228", "pixel_std=45", "scale=lab", "scale.backbone.stem_channels=8"),
    *("scale.backbone.res2_channels=8", "scale.fpn.out_channels=32", "scale.roi.fc_dims=[16,16]"),
    *("scale.rpn.pre_nms_topk=[100,100]", "scale.rpn.post_nms_topk=[40,40]"),
    *("data.root=unused", "out=unused", "experiment=siamese_gia"),
)

# Copies a cell that is there already, as if it had been found in the new image.
FAKE = """
import json, pathlib, sys, time
root = pathlib.Path(sys.argv[1])
print(json.dumps({"ready": True}), flush=True)
for line in sys.stdin:
    item = json.loads(line)
    if item["name"].startswith("bad"):
        print(json.dumps({"id": item["id"], "error": f"image {item['path']} is odd"}), flush=True)
        continue
    if item["name"].startswith("crash"):
        sys.exit(9)
    while (root / "hold").exists():
        time.sleep(0.02)
    record = json.loads((root / "cells" / "cell00.json").read_text())
    record.update(name=item["name"], case=item["case"])
    record["image"]["path"] = item["path"]
    (root / "cells" / f"{item['name']}.json").write_text(json.dumps(record))
    print(json.dumps({"id": item["id"]}), flush=True)
"""
FATAL = 'import json; print(json.dumps({"fatal": "the results are of another model"}))'


def png(side=64, seed=0):
    """An image's bytes."""
    pixels = np.random.default_rng(seed).integers(0, 255, (side, side), dtype=np.uint8)
    return cv2.imencode(".png", pixels)[1].tobytes()


@pytest.fixture
def uploads(sqlite_store, results):
    made = Uploads(sqlite_store, results, command=(sys.executable, "-c", FAKE))
    yield made
    made.close()


@pytest.fixture
def alone(sqlite_store, results, uploads):
    _, app = make(sqlite_store, results, uploads=uploads)
    client = client_of(app)
    client.headers["x-review-token"] = client.get("/api/v1/me").json()["token"]
    return client


def send(client, file, content, case=""):
    params = {"file": file, "case": case}
    return client.post("/api/v1/uploads", params=params, content=content)


def finished(client):
    """The list once nothing is predicted any more."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        told = client.get("/api/v1/uploads").json()
        if not told["active"]:
            return {item["name"]: item for item in told["items"]}
        time.sleep(0.02)
    raise AssertionError(told)


def test_an_image_becomes_a_cell_of_the_worklist(alone, sqlite_store, results):
    answer = send(alone, "new 1.png", png(), case=" case 7 ")
    assert answer.json() == {"id": 1, "name": "new_1", "known": False}
    item = finished(alone)["new_1"]
    assert (item["state"], item["case"], item["who"]) == ("done", "case 7", "ada")
    cell = alone.get(f"/api/v1/cells/{item['cell']}").json()
    assert (cell["name"], cell["case"], cell["state"]) == ("new_1", "case 7", "new")
    kept = results / "review" / "images" / "new_1.png"
    assert kept.read_bytes() == png()
    with reading(sqlite_store.engine) as connection:
        kinds = [(e["kind"], e["who"]) for e in list_trail(connection)][-2:]
    assert kinds == [("upload", "ada"), ("import", "deepacc_d2")]
    assert verify(sqlite_store).problems == []


def test_the_same_image_twice_is_taken_once_and_another_of_its_name_gets_another(alone):
    names = [send(alone, "a.png", png(seed=n)).json()["name"] for n in (0, 0, 1)]
    assert names == ["a", "a", "a_2"]
    # cell00 is predicted already, of another image.
    assert send(alone, "CELL00.png", png()).json()["name"] == "CELL00_2"
    assert sorted(finished(alone)) == ["CELL00_2", "a", "a_2"]


@pytest.mark.parametrize(
    ("file", "content", "says"),
    [
        ("a.exe", png(), "a.exe is not an image: give .jpg"),
        ("png", png(), "png is not an image"),
        ("a.png", b"", "a.png is empty"),
        ("a.png", b"no image at all", "a.png is no JPEG, PNG, BMP, TIFF or WebP image"),
        ("x/../../a.png", png()[:1000], "a.png is truncated or damaged"),
        ("<img src=x onerror=alert(1)>.png", b"no", "onerror=alert(1)>.png is no JPEG"),
    ],
)
def test_a_bad_file_is_refused_in_one_line_and_leaves_nothing(alone, results, file, content, says):
    answer = send(alone, file, content)
    assert answer.status_code == 422
    told = answer.json()["detail"]
    assert says in told
    assert "\n" not in told
    assert str(results) not in told
    assert list((results / "review").glob("images/*")) == []
    assert finished(alone) == {}


def test_a_large_file_is_refused_before_it_is_read(alone, monkeypatch, results):
    monkeypatch.setattr(files, "MOST_BYTES", 1000)
    answer = send(alone, "a.png", png())
    assert answer.status_code == 413
    assert "crop or shrink" in answer.json()["detail"]
    assert list((results / "review").glob("images/*")) == []


def test_a_full_disk_is_told(alone, monkeypatch):
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(files.shutil, "disk_usage", lambda _: usage._replace(free=1000))
    answer = send(alone, "a.png", png())
    assert answer.status_code == 503
    assert "no space left" in answer.json()["detail"]


@pytest.mark.parametrize("file", ["../../../etc/passwd.png", "..\\..\\boot.png", "C:\\a\\b.png"])
def test_no_file_is_written_elsewhere(alone, results, file):
    name = send(alone, file, png()).json()["name"]
    assert name in ("passwd", "boot", "b")
    assert [p.name for p in (results / "review" / "images").iterdir()] == [f"{name}.png"]


def test_a_name_of_300_letters(alone):
    name = send(alone, "ä" * 300 + ".png", png()).json()["name"]
    assert len(name.encode()) <= 180
    assert finished(alone)[name]["state"] == "done"


def test_one_image_that_fails_costs_no_other(alone, results):
    for name in ("bad.png", "crash.png", "good.png"):
        assert send(alone, name, png()).status_code == 200
    told = finished(alone)
    assert told["bad"]["message"] == "bad.png is odd"
    assert "ended (exit 9)" in told["crash"]["message"]
    assert told["good"]["state"] == "done"
    assert not (results / "review" / "images" / "bad.png").exists()


def test_where_nothing_can_be_predicted_all_are_told_at_once(sqlite_store, results):
    uploads = Uploads(sqlite_store, results, command=(sys.executable, "-c", FATAL))
    _, app = make(sqlite_store, results, uploads=uploads)
    client = client_of(app)
    client.headers["x-review-token"] = client.get("/api/v1/me").json()["token"]
    for n in range(3):
        send(client, f"a{n}.png", png())
    told = finished(client)
    assert {item["message"] for item in told.values()} == {"the results are of another model"}
    uploads.close()


def test_a_signed_case_takes_no_image(sqlite_store, results, uploads):
    context, app = make(sqlite_store, results, uploads=uploads)
    for name, role in (("rea", "reader"), ("rev", "reviewer")):
        context.people.add(name, "correct horse", role, by="root")
    for name, role in (("rea", "first"), ("rev", "second")):
        client = login(app, name)
        base = client.get("/api/v1/cases/1").json()["version"]
        event = {"kind": "sign", "role": role, "reason": "few cells"}
        body = {"event": event, "base": base, "password": "correct horse"}
        assert client.post("/api/v1/cases/1/events", json=body).status_code == 200
    case = client.get("/api/v1/cases/1").json()["name"]
    answer = send(client, "a.png", png(), case=case)
    assert answer.status_code == 422
    assert "is signed: reopen it" in answer.json()["detail"]
    assert send(client, "a.png", png(), case="other").status_code == 200


def test_who_is_not_logged_in_sends_nothing(sqlite_store, results, uploads):
    context, app = make(sqlite_store, results, uploads=uploads)
    context.people.add("rea", "correct horse", "reader", by="root")
    assert send(client_of(app), "a.png", png()).status_code == 401
    reader = login(app, "rea")
    del reader.headers["x-review-token"]
    assert send(reader, "a.png", png()).status_code == 403
    assert not (results / "review" / "images").exists()


def test_what_a_stopped_server_did_not_finish_is_predicted_by_the_next(
    alone, sqlite_store, results, uploads
):
    (results / "hold").touch()
    for name in ("a.png", "b.png"):
        send(alone, name, png(), case="c")
    uploads.close()
    (results / "hold").unlink()
    following = Uploads(sqlite_store, results, command=(sys.executable, "-c", FAKE))
    assert following.resume() == 2
    _, app = make(sqlite_store, results, uploads=following)
    assert {i["state"] for i in finished(client_of(app)).values()} == {"done"}
    following.close()
    assert Uploads(sqlite_store, results).resume() == 0


def test_the_process_predicts_with_the_model_and_settings_of_the_job(tmp_path, results):
    checkpoint = tmp_path / "tiny.ckpt"
    config = to_plain(compose_config("train", list(TINY)))
    torch.manual_seed(5)
    model = instantiate(config["model"])
    torch.save({"model": model.state_dict(), "deepacc_config": config}, checkpoint)
    job = json.loads((results / "job.json").read_text())
    with pytest.raises(worker.ConfigError, match="is another one: start the server with"):
        worker.load(job, str(checkpoint))
    job["model"]["sha256"] = model_hash(checkpoint)
    with pytest.raises(worker.ConfigError, match="other settings"):
        worker.load(job, str(checkpoint))
    from deepacc_d2.prediction.predictor import load_predictor

    predictor = load_predictor(checkpoint, device="cpu", min_foreground=0.3)
    job["settings"] = json.loads(json.dumps(predictor.settings()))
    (results / "job.json").write_text(json.dumps(job))
    image = Path(json.loads((results / "cells" / "cell00.json").read_text())["image"]["path"])
    lines = [
        json.dumps({"id": n, "path": str(path), "name": f"new{n}", "case": None})
        for n, path in enumerate((image, tmp_path / "gone.png"))
    ]
    told = []
    worker.work(lines, told.append, OutputFolder(results), job, worker.load(job, str(checkpoint)))
    assert told[0] == {"id": 0}
    assert "gone.png" in told[1]["error"]
    found = OutputFolder(results).read("new0")
    wanted = predictor.cell(cv2.imread(str(image), cv2.IMREAD_GRAYSCALE), name="new0")
    boxes = [np.array([c.box for c in each.chromosomes]) for each in (found, wanted)]
    np.testing.assert_allclose(*boxes, atol=0.01)


def test_without_the_model_the_process_says_so_and_ends(results, capsys, monkeypatch):
    monkeypatch.setattr(sys, "stdout", sys.stdout)  # given back afterwards
    assert worker.main([str(results), "/nowhere/model.ckpt"]) == 2
    told = json.loads(capsys.readouterr().out)
    assert "is not there: name it with --checkpoint" in told["fatal"]
