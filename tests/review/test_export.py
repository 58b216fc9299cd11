"""Results of a review: one state in every file, a data set to train on, backups."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from sqlalchemy import text

from deepacc_d2.data.coco import load_coco_split, load_dataset_info
from deepacc_d2.data.validate import validate
from deepacc_d2.errors import ConfigError, DataError
from deepacc_d2.prediction.folder import OutputFolder
from deepacc_d2.review import events as ev
from deepacc_d2.review.backup import backup, restore
from deepacc_d2.review.dataset import write_dataset
from deepacc_d2.review.export import export
from deepacc_d2.review.store.database import reading, writing
from deepacc_d2.review.store.intake import take_in
from deepacc_d2.review.store.lists import figures
from deepacc_d2.review.store.store import Store
from deepacc_d2.review.store.verify import verify

from .fixtures import write_results


def add(store, number, *events, who="ada"):
    cell = store.cell(number)
    for event in events:
        cell = store.add_cell_event(number, event, base=cell.version, who=who)
    return cell


def ids(store, number, name):
    return [c.id for c in store.cell(number).state.chromosomes if c.name == name]


@pytest.fixture
def worked(sqlite_store):
    """Cell 1 gets an extra 21 drawn, a box deleted and one turned, and is confirmed."""
    add(
        sqlite_store,
        1,
        ev.Reclassify(chromosome=ids(sqlite_store, 1, "22")[0], to="21"),
        ev.Delete(chromosome=ids(sqlite_store, 1, "5")[0]),
        ev.Turn(chromosome=ids(sqlite_store, 1, "1")[0]),
        ev.Confirm(level="karyotyped", seconds=42.5),
    )
    add(sqlite_store, 2, ev.Confirm(level="analyzed", seconds=20))
    add(sqlite_store, 4, ev.Reclassify(chromosome=3, to="mar"), ev.Confirm(level="analyzed"))
    return sqlite_store


def test_all_files_tell_the_same_state(worked, tmp_path):
    pytest.importorskip("weasyprint")
    override = ev.Override(karyotype="46,XX,t(1;2)", reason="seen")
    worked.add_case_event(1, override, base=worked_version(worked), who="ada")
    out = tmp_path / "out"
    told = export(worked, out, overlay=False, karyogram=("svg",))
    assert (told.cells, told.cases, told.problems) == (6, 2, ())
    folder = OutputFolder(out)
    cells = {cell.name: cell for cell in folder.cells()}
    rows = {row["cell"]: row for row in csv.DictReader((out / "cells.csv").open())}
    coco = json.loads((out / "coco.json").read_text())
    for number in range(1, 7):
        cell = worked.cell(number).found.cell
        assert cells[cell.name].karyotype == cell.karyotype == rows[cell.name]["karyotype"]
        assert int(rows[cell.name]["count"]) == len(cell.counted)
        image = next(i["id"] for i in coco["images"] if Path(i["file_name"]).stem == cell.name)
        own = [a for a in coco["annotations"] if a["image_id"] == image]
        assert len(own) == len(cell.counted)
        counts = [sum(a["category_id"] == k + 1 for a in own) for k in range(24)]
        placed = [a for a in own if not a.get("unidentified")]
        assert [sum(a["category_id"] == k + 1 for a in placed) for k in range(24)] == list(
            cell.counts()
        ), counts
        assert (out / "karyograms" / f"{cell.name}.svg").stat().st_size > 1000
    first = json.loads(folder.record("cell00").read_text())
    assert "-5,+21,-22" in first["karyotype"]
    assert first["review"]["confirmed"] == "karyotyped"
    changed = [c for c in first["review"]["chromosomes"] if c["touched"]]
    assert sorted(c["predicted"]["class"] for c in changed) == ["22", "5"]
    case = json.loads((out / "cases" / "case_0.json").read_text())
    assert case["karyotype"] == "46,XX,t(1;2)"
    assert case["review"]["given_by"] == "ada"
    assert (out / "cases" / "case_0.pdf").read_bytes()[:4] == b"%PDF"
    job = json.loads((out / "job.json").read_text())
    assert verify(worked, job["trail"]["hash"]).problems == []
    with pytest.raises(DataError, match="exists"):
        export(worked, out)


def worked_version(store):
    with reading(store.engine) as connection:
        return connection.execute(text("SELECT version FROM cases WHERE id = 1")).scalar_one()


def test_a_turned_chromosome_is_turned_in_the_picture(worked, tmp_path):
    export(worked, tmp_path / "a", overlay=False, karyogram=("svg",))
    add(worked, 1, ev.Turn(chromosome=ids(worked, 1, "1")[0]))
    export(worked, tmp_path / "b", overlay=False, karyogram=("svg",))
    a, b = ((tmp_path / k / "karyograms" / "cell00.svg").read_text() for k in "ab")
    assert a != b


def test_an_image_that_has_gone_costs_its_picture_only(worked, tmp_path):
    pytest.importorskip("weasyprint")
    with writing(worked.engine) as connection:
        connection.execute(
            text(
                "UPDATE predictions SET prediction = replace(prediction, 'cell00.png', 'gone.png')"
            )
        )
    fresh = Store(worked.engine.url.render_as_string())
    told = export(fresh, tmp_path / "out", overlay=True, karyogram=())
    assert len(told.problems) == 1
    assert "gone.png" in told.problems[0]
    assert (tmp_path / "out" / "cells" / "cell00.json").is_file()
    assert not (tmp_path / "out" / "overlays" / "cell00.png").exists()


def test_figures_against_a_count_by_hand(worked):
    with reading(worked.engine) as connection:
        told = figures(connection)
    counts = [len(worked.cell(n).found.cell.counted) for n in (1, 2, 4)]
    # Cell 1: two touched, turning does not count; cell 2: none; cell 4: one marker.
    assert told["cells"] == 3
    assert told["touched"] == 3
    assert told["touched_share"] == pytest.approx(3 / sum(counts), abs=1e-5)
    assert told["untouched_cells"] == 1
    assert (told["seconds_per_cell"], told["timed_cells"]) == (31.25, 2)


def test_a_data_set_of_confirmed_cells_passes_the_check(worked, tmp_path):
    out = tmp_path / "data"
    told = write_dataset(worked, out, ratios="1:0:0")
    assert told.images == 2
    assert told.skipped == {"not confirmed as analyzed": 3, "with a chromosome of no class": 1}
    coco = load_coco_split(out, "train")
    assert [i["case_id"] for i in coco["images"]] == ["case 0", "case 0"]
    cell = worked.cell(1).found.cell
    own = sorted(
        (a["category_id"] - 1, *a["bbox"][:2])
        for a in coco["annotations"]
        if a["image_id"] == coco["images"][0]["id"]
    )
    assert own == sorted((c.assigned, *c.box[:2]) for c in cell.counted)
    assert load_dataset_info(out)["counts"]["train"] == 2
    validate(out)
    with pytest.raises(DataError, match="exists"):
        write_dataset(worked, out)


TINY = (
    *("scale.image_size=96", "scale.backbone.stem_channels=8", "scale.backbone.res2_channels=8"),
    *(
        "scale.fpn.out_channels=32",
        "scale.roi.fc_dims=[16,16]",
        "scale.roi.batch_size_per_image=32",
    ),
    *("scale.rpn.pre_nms_topk=[100,100]", "scale.rpn.post_nms_topk=[40,40]", "scale.batch_size=1"),
    *("scale.num_workers=0", "scale.max_epochs=1", "scale.check_val_every_n_epoch=1"),
    *("scale.precision=32-true", "logger=csv", "callbacks.progress=null", "test=false"),
    "+trainer.enable_progress_bar=false",
)
"""Overrides that make a training take seconds."""


@pytest.mark.slow
def test_a_data_set_of_confirmed_cells_is_trained_on(tmp_path):
    folder = write_results(tmp_path / "results", cases=3, cells=1)
    store = Store(tmp_path / "review.db")
    take_in(store, folder.root)
    for number in range(1, 4):
        add(store, number, ev.Confirm(level="analyzed"))
    data, out = tmp_path / "data", tmp_path / "run"
    assert write_dataset(store, data, ratios="1:1:1").images == 3
    store.close()
    command = [sys.executable, "-m", "deepacc_lightning.train", "data=coco", *TINY]
    command += [f"data.root={data}", f"out={out}"]
    subprocess.run(command, check=True, timeout=600)
    assert list(out.rglob("*.ckpt"))


def test_nothing_confirmed_is_no_data_set(sqlite_store, tmp_path):
    with pytest.raises(DataError, match="confirm cells as analyzed"):
        write_dataset(sqlite_store, tmp_path / "data")


def test_backup_and_restore(worked, tmp_path, url):
    path = tmp_path / "b.zip"
    entries = backup(worked, path)
    again = Store(url)
    assert restore(again, path) == entries
    for number in range(1, 7):
        assert again.cell(number).state == worked.cell(number).state
    assert verify(again, verify(worked).hash).problems == []
    add(again, 3, ev.Turn(chromosome=1))
    with pytest.raises(ConfigError, match="a review already"):
        restore(again, path)
    again.close()
    with pytest.raises(ConfigError, match="exists"):
        backup(worked, path)


def test_a_changed_or_damaged_backup_is_refused_and_leaves_nothing(worked, tmp_path):
    path = tmp_path / "b.zip"
    backup(worked, path)
    changed = tmp_path / "c.zip"
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(changed, "w") as new:
        for name in old.namelist():
            data = old.read(name)
            new.writestr(name, data.replace(b'"who": "ada"', b'"who": "eve"'))
    cut = tmp_path / "d.zip"
    cut.write_bytes(path.read_bytes()[:-100])
    lacking = tmp_path / "e.zip"
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(lacking, "w") as new:
        for name in old.namelist():
            if name != "trail.jsonl":
                new.writestr(name, old.read(name))
    for n, (bad, says) in enumerate(
        [(changed, "does not verify"), (cut, "cannot be read"), (lacking, "damaged")]
    ):
        store = Store(tmp_path / f"r{n}.db")
        with pytest.raises(DataError, match=says):
            restore(store, bad)
        assert verify(store).entries == 0
        store.close()
