"""Results of a job on drawn metaphases: true boxes and classes in place of a detector's."""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import sqlalchemy

from deepacc_d2.cell import Cell, Chromosome
from deepacc_d2.data.synthetic import SyntheticConfig, render_metaphase
from deepacc_d2.karyotype.interpret import interpret
from deepacc_d2.karyotype.settings import KaryotypeSettings
from deepacc_d2.prediction.folder import OutputFolder, open_folder
from deepacc_d2.prediction.outputs import write_cell
from deepacc_d2.review.recount import Rules
from deepacc_d2.review.store.intake import take_in
from deepacc_d2.review.store.store import Store

JOB = {
    "kind": "deepacc_d2 prediction",
    "model": {"name": "drawn", "sha256": "ab" * 32},
    "settings": {
        "view": {"chromosome_size": 40.0, "normalize": True},
        "selection": {},
        "karyotype": KaryotypeSettings().to_dict(),
    },
}
CONFIG = SyntheticConfig(
    seed=4, size=(384, 384), cells_per_case=3, loss_rate=0.0, overlap_rate=0.1, box_margin=2
)


def probabilities_of(index: int, sure: float = 0.97, other: int | None = None) -> np.ndarray:
    """(25,) mostly of one class; the rest on another one, or on all."""
    p = np.full(25, (1 - sure) / 24)
    if other is not None:
        p[:] = 0.0
        p[other] = 1 - sure
    p[index] = sure
    return p / p.sum()


def cell_of(boxes: Any, probabilities: Any, **about: Any) -> Cell:
    """A cell as a predictor makes it of what a detector found."""
    found = interpret(boxes, probabilities, KaryotypeSettings())
    chromosomes = [
        Chromosome(
            tuple(float(v) for v in box),
            found.probabilities[n],
            int(found.labels[n]),
            int(found.assigned[n]),
            float(found.confidences[n]),
            tuple(found.flags[n]),
        )
        for n, box in enumerate(boxes)
    ]
    chromosomes.sort(key=lambda c: (not c.placed, c.assigned, c.box[0]))
    unfit = bool(found.reasons)
    return Cell(
        chromosomes=chromosomes,
        karyotype="" if unfit else found.karyotype,
        karyotype_by_box="" if unfit else found.karyotype_by_box,
        confidence=found.confidence,
        flags=found.cell_flags,
        status="unfit" if unfit else "fit",
        reasons=found.reasons,
        draft=found.karyotype if unfit else "",
        **about,
    )


def drawn_cell(case: int, number: int, folder: Path) -> tuple[np.ndarray, Cell]:
    """An image in a folder, and its cell with the true boxes and classes."""
    gray, record = render_metaphase(CONFIG, case, number)
    path = folder / f"cell{case}{number}.png"
    cv2.imwrite(str(path), gray)
    boxes, classes = [], []
    for annotation in record["annotations"]:
        x, y, w, h = annotation["bbox"]
        boxes.append((x, y, x + w, y + h))
        classes.append(annotation["category_id"] - 1)
    cell = cell_of(
        boxes,
        [probabilities_of(k) for k in classes],
        name=path.stem,
        path=str(path),
        width=gray.shape[1],
        height=gray.shape[0],
        case_id=f"case {case}",
        view={"zoom": 1.0, "normalized": True, "note": "drawn"},
    )
    return gray, cell


def write_results(root: Path, cases: int = 2, cells: int = 3) -> OutputFolder:
    """A folder as a job leaves it, the images in ``root.parent / slides``."""
    slides = root.parent / "slides"
    slides.mkdir(parents=True, exist_ok=True)
    folder = open_folder(root, JOB)
    for case in range(cases):
        for number in range(cells):
            gray, cell = drawn_cell(case, number, slides)
            write_cell(folder, gray, cell, overlay=False, karyogram=())
    return folder


@pytest.fixture(scope="session")
def drawn_results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results of two cases of three cells; do not write there."""
    root = tmp_path_factory.mktemp("drawn") / "results"
    write_results(root)
    return root


@pytest.fixture
def results(drawn_results: Path, tmp_path: Path) -> Path:
    """A copy of :func:`drawn_results` that a test may write to; the images stay where they are."""
    return Path(shutil.copytree(drawn_results, tmp_path / "results"))


@pytest.fixture
def cell(drawn_results: Path) -> Cell:
    """A drawn cell of a normal complement."""
    return OutputFolder(drawn_results).read("cell00")


@pytest.fixture
def rules() -> Rules:
    """Those of the job."""
    return Rules.of_job(json.loads(json.dumps(JOB)))


@pytest.fixture
def ids_of() -> Callable[..., list[int]]:
    """Returns the ids of the chromosomes of a class in a state."""

    def find(state: Any, name: str) -> list[int]:
        return [c.id for c in state.chromosomes if c.name == name]

    return find


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path | str]:
    """An empty database: a file, and a schema of its own on DEEPACC_TEST_POSTGRESQL."""
    if request.param == "sqlite":
        yield tmp_path / "review.db"
        return
    server = os.environ.get("DEEPACC_TEST_POSTGRESQL")
    if not server:
        pytest.skip("DEEPACC_TEST_POSTGRESQL names no server")
    engine = sqlalchemy.create_engine(server)
    schema = f"t{uuid.uuid4().hex}"
    with engine.begin() as connection:
        connection.exec_driver_sql(f"CREATE SCHEMA {schema}")
    yield f"{server}?options=-csearch_path%3D{schema}"
    with engine.begin() as connection:
        connection.exec_driver_sql(f"DROP SCHEMA {schema} CASCADE")
    engine.dispose()


@pytest.fixture(scope="session")
def taken_in(drawn_results: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite store that has taken the results in, to copy."""
    path = tmp_path_factory.mktemp("store") / "review.db"
    made = Store(path)
    take_in(made, drawn_results)
    made.close()
    return path


@pytest.fixture
def store(url: Path | str, results: Path, taken_in: Path) -> Iterator[Store]:
    """A store that has taken the results in, on each kind of database."""
    if isinstance(url, Path):
        shutil.copy(taken_in, url)
    made = Store(url)
    if not isinstance(url, Path):
        take_in(made, results)
    yield made
    made.close()


@pytest.fixture
def sqlite_store(tmp_path: Path, results: Path, taken_in: Path) -> Iterator[Store]:
    """The same on SQLite alone."""
    made = Store(Path(shutil.copy(taken_in, tmp_path / "own.db")))
    yield made
    made.close()
