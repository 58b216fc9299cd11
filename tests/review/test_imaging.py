"""Pictures for the pages: kept once, of very large images too, and splits along masks."""

from __future__ import annotations

import itertools
import json
import re
import threading
import time

import cv2
import numpy as np
import pytest

from deepacc_d2.errors import DataError
from deepacc_d2.karyogram.cut import Cut
from deepacc_d2.prediction.folder import OutputFolder
from deepacc_d2.prediction.outputs import write_cell
from deepacc_d2.review import events as ev
from deepacc_d2.review.geometry import split_by_masks
from deepacc_d2.review.imaging import LONGEST_SHOWN, Imaging, Memory
from deepacc_d2.review.state import EditError
from deepacc_d2.review.store.database import reading
from deepacc_d2.review.store.intake import take_in
from deepacc_d2.review.store.lists import neighbors
from deepacc_d2.review.web.cells import describe

from .fixtures import cell_of, probabilities_of


def test_what_several_threads_ask_for_is_made_once():
    memory, made = Memory(1000), []

    def make():
        made.append(threading.get_ident())
        time.sleep(0.1)
        return "value"

    found = []
    threads = [
        threading.Thread(target=lambda: found.append(memory.get("key", make, len)))
        for _ in range(5)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == ["value"] * 5
    assert len(made) == 1


def test_what_cannot_be_made_is_tried_again():
    memory = Memory(1000)

    def fail():
        raise DataError("gone")

    with pytest.raises(DataError, match="gone"):
        memory.get("key", fail, len)
    assert memory.get("key", lambda: "back", len) == "back"


def test_a_prepared_cell_has_its_pictures_in_memory(sqlite_store, monkeypatch):
    imaging = Imaging()
    imaging.prepare(sqlite_store.cell(1))
    imaging.close()
    imaging._ahead.shutdown(wait=True)
    monkeypatch.setattr("deepacc_d2.review.imaging.make_strips", None)
    monkeypatch.setattr("deepacc_d2.review.imaging.image_of", None)
    cell = sqlite_store.cell(1)
    assert imaging.strips(cell).keys() == {c.id for c in cell.state.chromosomes}
    assert imaging.png(cell)[0].startswith(b"\x89PNG")


def test_sixty_megapixels(sqlite_store, results, tmp_path):
    width, height = 7800, 7700
    gray = np.full((height, width), 230, np.uint8)
    boxes = []
    for n in range(46):
        x, y = 200 + 1000 * (n % 7), 200 + 1000 * (n // 7)
        gray[y + 10 : y + 290, x + 10 : x + 70] = 60
        boxes.append((x, y, x + 80, y + 300))
    path = tmp_path / "large.png"
    cv2.imwrite(str(path), gray, [cv2.IMWRITE_PNG_COMPRESSION, 1])
    classes = [k // 2 for k in range(44)] + [22, 23]
    cell = cell_of(
        boxes,
        [probabilities_of(k) for k in classes],
        **{"name": "large", "path": str(path), "width": width, "height": height, "case_id": None},
        view={},
    )
    write_cell(OutputFolder(results), gray, cell, overlay=False, karyogram=())
    assert take_in(sqlite_store, results).added == ["large"]
    with reading(sqlite_store.engine) as connection:
        assert neighbors(connection, 7) == {"previous": None, "next": None}
    found, imaging = sqlite_store.cell(7), Imaging()
    assert len(imaging.strips(found)) == 46
    shown = cv2.imdecode(np.frombuffer(imaging.png(found)[0], np.uint8), cv2.IMREAD_GRAYSCALE)
    assert shown.shape == (round(height * LONGEST_SHOWN / width), LONGEST_SHOWN)
    strip = imaging.strips(found)[1]
    assert strip["length"] == pytest.approx(280, abs=15)


@pytest.mark.parametrize("names", [["slide2", "slide10", "slide1"], ["b 1", "a 20", "a 3"]])
def test_the_next_cell_is_by_number(sqlite_store, results, names):
    record = json.loads((results / "cells" / "cell00.json").read_text())
    for name in names:
        record.update(name=name, case="numbers")
        (results / "cells" / f"{name}.json").write_text(json.dumps(record))
    take_in(sqlite_store, results)
    ids = {}
    with reading(sqlite_store.engine) as connection:
        for number in range(7, 10):
            ids[sqlite_store.read(connection, number).name] = number
        order = sorted(names, key=lambda name: (name[0], int(re.sub(r"\D", "", name))))
        for first, second in itertools.pairwise(order):
            assert neighbors(connection, ids[first])["next"] == ids[second]
            assert neighbors(connection, ids[second])["previous"] == ids[first]
        assert neighbors(connection, ids[order[-1]])["next"] is None


def square(x, y, side=10):
    return ((x, y), (x + side, y), (x + side, y + side), (x, y + side))


def whole(height=14, width=34):
    mask = np.zeros((height, width), bool)
    mask[2:12, 2:32] = True
    return Cut(100, 50, np.ones((height, width), np.float32), mask, whole=False)


def test_a_split_follows_two_masks():
    halves = split_by_masks(whole(), [(square(102, 52),), (square(122, 52),)])
    # Between them, what neither covers is divided in the middle.
    wanted = [(102, 52, 117, 62), (117, 52, 132, 62)]
    assert sorted(halves.boxes) == wanted


def test_a_split_follows_two_parts_of_one_mask():
    halves = split_by_masks(whole(), [(square(102, 52), square(124, 52, 8))])
    assert len(halves.outlines) == 2
    assert sorted(box[0] for box in halves.boxes)[0] == 102


@pytest.mark.parametrize(
    "masks", [[], [()], [(square(102, 52),)], [(square(102, 52),), (square(102, 52),)]]
)
def test_without_two_masks_there_is_no_split(masks):
    with pytest.raises(EditError, match="no masks"):
        split_by_masks(whole(), masks)


def test_a_predicted_mask_is_shown_until_a_person_draws(sqlite_store, results):
    path = results / "cells" / "cell00.json"
    record = json.loads(path.read_text())
    record.update(name="masked", case=None)
    x0, y0, x1, y1 = record["chromosomes"][0]["box"]
    ring = [[x0, y0], [x1, y0], [x1, y1]]
    record["chromosomes"][0]["mask"] = {"polygons": [ring], "reconstructed": 0.0}
    (results / "cells" / "masked.json").write_text(json.dumps(record))
    take_in(sqlite_store, results)

    def shown(cell):
        return {c["id"]: c["mask"] for c in describe(cell)["chromosomes"]}

    cell = sqlite_store.cell(7)
    assert shown(cell)[1] == (tuple(tuple(point) for point in ring),)
    assert not any(mask for number, mask in shown(cell).items() if number != 1)
    assert set(Imaging().strips(cell)) == set(shown(cell))
    event = ev.Reclassify(chromosome=1, to="9")
    cell = sqlite_store.add_cell_event(7, event, base=cell.version, who="ada")
    assert shown(cell)[1]
    event = ev.Recut(chromosome=1, box=(x0, y0, x1 + 5, y1))
    cell = sqlite_store.add_cell_event(7, event, base=cell.version, who="ada")
    assert not shown(cell)[1]
