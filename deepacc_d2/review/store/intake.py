"""Imports the cells of a folder that ``make predict`` wrote into the store."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, insert, select, update

from deepacc_d2.errors import ConfigError, DataError
from deepacc_d2.files import read_json
from deepacc_d2.prediction.folder import JOB, OutputFolder
from deepacc_d2.prediction.record import from_record
from deepacc_d2.review.recount import Rules, recount
from deepacc_d2.review.replay import replay
from deepacc_d2.review.store.chain import add_entry, canonical, sha256
from deepacc_d2.review.store.database import writing
from deepacc_d2.review.store.store import ReviewedCell, Store, model_of, write_computed
from deepacc_d2.review.store.tables import cases, cells, predictions, trail

KIND = "deepacc_d2 prediction"
PROGRAM = "deepacc_d2"
"""Who takes cells in, in the trail."""
_AT_ONCE = 100


@dataclass
class Intake:
    """What happened to the cells of a folder.

    Attributes:
        added: names of new ones.
        renewed: predicted again, before anybody had worked on them.
        kept: predicted again after somebody had worked on them: their review keeps the old
            prediction.
        bad: message of each record that cannot be used.
    """

    added: list[str] = field(default_factory=list)
    renewed: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    bad: list[str] = field(default_factory=list)

    def lines(self) -> list[str]:
        """Returns what a person should know about it."""
        told = []
        if self.added or self.renewed:
            told.append(f"{len(self.added)} new cells, {len(self.renewed)} predicted again")
        if self.kept:
            told.append(
                f"{len(self.kept)} cells were predicted again after somebody worked on them, such "
                f"as {self.kept[0]}: their review keeps the old prediction"
            )
        return told + self.bad


def read_job(root: Path) -> dict[str, Any]:
    """Reads the ``job.json`` of a folder of results.

    Raises:
        ConfigError: the folder is none.
        DataError: the file is damaged or of another version.
    """
    if not root.is_dir():
        raise ConfigError(f"OUT {root} is not a folder: give the one that make predict wrote")
    if not (root / JOB).is_file():
        raise ConfigError(f"OUT {root} has no predictions: run make predict OUT={root} first")
    job = read_json(root / JOB)
    if not isinstance(job, dict) or job.get("kind") != KIND:
        raise ConfigError(f"OUT {root} has a job.json of something else: choose another OUT")
    Rules.of_job(job)
    return job


def take_in(store: Store, root: Path, *, names: Sequence[str] | None = None) -> Intake:
    """Takes in what is new in a folder; cells that are known stay as they are.

    A record that a running job has not finished is not there yet: each appears whole.

    Args:
        store: to add to.
        root: folder of the results.
        names: of cells; all if not given.

    Raises:
        UserError: the folder holds no predictions, or the store cannot be written.
    """
    job = read_job(root)
    folder = OutputFolder(root)
    told = Intake()
    names = folder.names() if names is None else names
    for start in range(0, len(names), _AT_ONCE):
        with writing(store.engine) as connection:
            for name in names[start : start + _AT_ONCE]:
                _take(connection, folder, name, job, told)
    return told


def _take(
    connection: Connection, folder: OutputFolder, name: str, job: Mapping[str, Any], told: Intake
) -> None:
    try:
        text = folder.record(name).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        told.bad.append(f"{folder.record(name)} cannot be read ({error})")
        return
    digest = sha256(text)
    known = connection.execute(
        select(cells.c.id, cells.c.prediction_sha256, cells.c.version).where(cells.c.name == name)
    ).one_or_none()
    if known is not None and known.prediction_sha256 == digest:
        return
    try:
        cell = from_record(json.loads(text), str(folder.record(name)))
        if cell.name != name:
            raise DataError(f"{folder.record(name)} is of cell {cell.name}: predict it again")
        state = replay(cell, [])
        found = recount(state, Rules.of_job(job))
    except (DataError, ValueError, AttributeError) as error:
        reason = str(error) if isinstance(error, DataError) else f"is no complete JSON ({error})"
        prefix = "" if isinstance(error, DataError) else f"{folder.record(name)} "
        told.bad.append(prefix + reason)
        return
    if known is not None and _worked_at(connection, known.id):
        told.kept.append(name)
        return
    case_id = _case_id(connection, cell.case_id)
    content = {"prediction": text, "job": canonical(job)}
    own = {"case_id": case_id, "prediction_sha256": digest}
    if known is None:
        placeholder = {"version": 0, "state": "new", "confidence": 0.0, "summary": "{}"}
        cell_id = connection.execute(
            insert(cells).values(name=name, **own, **placeholder).returning(cells.c.id)
        ).scalar_one()
        connection.execute(insert(predictions).values(cell_id=cell_id, **content))
        told.added.append(name)
    else:
        cell_id = known.id
        connection.execute(update(cells).where(cells.c.id == cell_id).values(**own))
        connection.execute(
            update(predictions).where(predictions.c.cell_id == cell_id).values(**content)
        )
        told.renewed.append(name)
    entry = add_entry(
        connection,
        who=PROGRAM,
        kind="import",
        event={
            "name": name,
            "case": cell.case_id,
            "prediction_sha256": digest,
            "job_sha256": sha256(content["job"]),
        },
        after={"karyotype": found.cell.karyotype or found.cell.draft, "status": cell.status},
        case_id=case_id,
        cell_id=cell_id,
        model=model_of(job)["model"],
        model_sha256=model_of(job)["model_sha256"],
    )
    write_computed(connection, ReviewedCell(cell_id, case_id, entry["seq"], job, state, found, ()))


def _worked_at(connection: Connection, cell_id: int) -> bool:
    query = select(trail.c.seq).where(trail.c.cell_id == cell_id, trail.c.kind != "import").limit(1)
    return connection.execute(query).first() is not None


def _case_id(connection: Connection, name: str | None) -> int | None:
    if name is None:
        return None
    found = connection.execute(select(cases.c.id).where(cases.c.name == name)).scalar_one_or_none()
    if found is not None:
        return int(found)
    made = insert(cases).values(name=name, version=0).returning(cases.c.id)
    return int(connection.execute(made).scalar_one())
