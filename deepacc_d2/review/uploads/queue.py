"""The uploaded images of a server: which wait, which is predicted, what became of them."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import select

from deepacc_d2.errors import DataError, UserError
from deepacc_d2.prediction.folder import OutputFolder
from deepacc_d2.review.store.chain import add_entry
from deepacc_d2.review.store.database import StoreError, reading, writing
from deepacc_d2.review.store.intake import take_in
from deepacc_d2.review.store.store import Store, case_state
from deepacc_d2.review.store.tables import cases, cells, trail
from deepacc_d2.review.uploads.files import Received, RefusedError, folder_of

WAITING, PREDICTING, DONE, FAILED = "waiting", "predicting", "done", "failed"
MOST_WAITING = 1000
_MOST_TOLD = 200
_IDLE_SECONDS = 300.0
KIND = "upload"
"""Of the trail's entries of uploads."""


class FatalError(DataError):
    """No image can be predicted here."""


@dataclass
class Item:
    """An uploaded image.

    Attributes:
        id: in this server.
        name: of its cell.
        path: of the image.
        case: name, None without one.
        who: brought it.
        state: :data:`WAITING`, :data:`PREDICTING`, :data:`DONE` or :data:`FAILED`.
        message: why it failed.
        cell_id: of its cell once it is done.
    """

    id: int
    name: str
    path: Path
    case: str | None
    who: str
    state: str = WAITING
    message: str = ""
    cell_id: int | None = None


class Uploads:
    """Predicts uploaded images one after the other, in a process that ends when it is idle.

    Args:
        store: that takes their cells in.
        root: folder of the results.
        command: of the process, without the folder; see
            :mod:`deepacc_d2.review.uploads.worker`.
        checkpoint: of the model; empty for the included detector.
    """

    def __init__(
        self, store: Store, root: Path, *, checkpoint: str = "", command: Sequence[str] = ()
    ) -> None:
        self.root = root
        self._store = store
        own = (sys.executable, "-m", "deepacc_d2.review.uploads.worker")
        self._command = [*(command or own), str(root), *([checkpoint] if checkpoint else [])]
        self._items: OrderedDict[int, Item] = OrderedDict()
        self._waiting: deque[Item] = deque()
        self._changed = threading.Condition()
        self._process: subprocess.Popen[str] | None = None
        self._thread: threading.Thread | None = None
        self._ready = False
        self._ended = False
        self._last = 0

    def names(self) -> set[str]:
        """Returns the lower-case names of all cells and of images that are to become some."""
        with reading(self._store.engine) as connection:
            found = set(connection.execute(select(cells.c.name)).scalars())
        # Those of a job that is running are not taken in yet.
        found |= set(OutputFolder(self.root).names())
        with self._changed:
            found |= {item.name for item in self._items.values() if item.state != FAILED}
        return {name.casefold() for name in found}

    def check(self, case: str | None) -> None:
        """Checks that there is room for an image, before it is sent.

        Raises:
            RefusedError: its case is signed.
            StoreError: too many wait.
        """
        with self._changed:
            if len(self._waiting) >= MOST_WAITING:
                raise StoreError(f"{MOST_WAITING} images wait already: try again later")
        if case is None:
            return
        with reading(self._store.engine) as connection:
            number = connection.execute(select(cases.c.id).where(cases.c.name == case)).scalar()
            if number is not None and case_state(connection, number).locked:
                raise RefusedError(f"case {case[:80]} is signed: reopen it before adding images")

    def add(self, received: Received, case: str | None, who: str) -> Item:
        """Queues an image, and writes to the trail who brought it."""
        with writing(self._store.engine) as connection:
            add_entry(
                connection,
                who=who,
                kind=KIND,
                event={
                    "name": received.name,
                    "file": received.path.name,
                    "case": case,
                    "sha256": received.sha256,
                    "bytes": received.size,
                },
            )
        return self._queue(received.name, received.path, case, who)

    def resume(self) -> int:
        """Queues what an earlier server was given and did not finish; returns how many."""
        with reading(self._store.engine) as connection:
            known = set(connection.execute(select(cells.c.name)).scalars())
            rows = connection.execute(
                select(trail.c.who, trail.c.event).where(trail.c.kind == KIND)
            ).all()
        number = 0
        for row in rows:
            event = json.loads(row.event)
            path = folder_of(self.root) / Path(event["file"]).name
            if event["name"] not in known and path.is_file():
                self._queue(event["name"], path, event["case"], row.who)
                number += 1
        for part in folder_of(self.root).glob(".*.part"):
            part.unlink(missing_ok=True)
        return number

    def _queue(self, name: str, path: Path, case: str | None, who: str) -> Item:
        with self._changed:
            self._last += 1
            item = Item(self._last, name, path.absolute(), case, who)
            self._items[item.id] = item
            self._waiting.append(item)
            finished = [i for i, each in self._items.items() if each.state in (DONE, FAILED)]
            for old in finished[: max(0, len(self._items) - _MOST_TOLD)]:
                del self._items[old]
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="uploads", daemon=True)
                self._thread.start()
            self._changed.notify_all()
        return item

    def told(self) -> dict[str, Any]:
        """Returns what pages show: the images, latest first, and how many wait."""
        with self._changed:
            items = [
                {
                    "id": item.id,
                    "name": item.name,
                    "case": item.case,
                    "who": item.who,
                    "state": item.state,
                    "message": item.message,
                    "cell": item.cell_id,
                }
                for item in reversed(self._items.values())
            ]
            loading = not self._ready
        active = sum(item["state"] in (WAITING, PREDICTING) for item in items)
        return {"items": items, "active": active, "loading": bool(active) and loading}

    def close(self) -> None:
        """Ends the process; what waits is queued again by the next server."""
        with self._changed:
            self._ended = True
            self._waiting.clear()
            self._changed.notify_all()
            process = self._process
        if process is not None:
            process.terminate()
        if self._thread is not None:
            self._thread.join(10)

    def _run(self) -> None:
        while True:
            with self._changed:
                idle = time.monotonic() + _IDLE_SECONDS
                while not self._waiting and not self._ended:
                    left = idle - time.monotonic()
                    if left <= 0 or not self._changed.wait(left):
                        break
                if self._ended or not self._waiting:
                    self._thread = None if not self._ended else self._thread
                    process, self._process, self._ready = self._process, None, False
                    break
                item = self._waiting.popleft()
                item.state = PREDICTING
            problem = self._predict(item)
            self._finish(item, problem)
        _end(process)

    def _predict(self, item: Item) -> str:
        """Returns why an image was not predicted, empty if it was."""
        try:
            process = self._process or self._start()
            line = {"id": item.id, "path": str(item.path), "name": item.name, "case": item.case}
            assert process.stdin is not None
            process.stdin.write(json.dumps(line) + "\n")
            process.stdin.flush()
            answer = _answer(process)
            return str(answer.get("error", ""))
        except (DataError, OSError, ValueError) as error:
            with self._changed:
                ended, self._process, self._ready = self._process, None, False
            _end(ended)
            if isinstance(error, FatalError):
                self._fail_all(str(error))
            return str(error)

    def _fail_all(self, problem: str) -> None:
        """Gives up all that waits: each would take the time of loading a model to fail alike."""
        with self._changed:
            waiting = list(self._waiting)
            self._waiting.clear()
        for item in waiting:
            self._finish(item, problem)

    def _start(self) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            encoding="utf-8",
        )
        with self._changed:
            self._process = process
            if self._ended:
                process.terminate()
        answer = _answer(process)
        if "fatal" in answer:
            raise FatalError(str(answer["fatal"]))
        with self._changed:
            self._ready = True
        return process

    def _finish(self, item: Item, problem: str) -> None:
        if not problem:
            try:
                told = take_in(self._store, self.root, names=[item.name])
                problem = next(iter(told.bad), "")
                with reading(self._store.engine) as connection:
                    item.cell_id = connection.execute(
                        select(cells.c.id).where(cells.c.name == item.name)
                    ).scalar()
            except UserError as error:
                problem = str(error)
        with self._changed:
            if self._ended and problem:
                return  # the next server tries again
            item.message = problem.replace(f"image {item.path}", item.path.name)
            item.state = FAILED if problem else DONE
        if problem:
            item.path.unlink(missing_ok=True)


def _answer(process: subprocess.Popen[str]) -> dict[str, Any]:
    """Returns the process's next answer.

    Raises:
        DataError: it ended.
    """
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        status = process.wait()
        raise DataError(
            f"the predicting process ended (exit {status}): there may be too little memory; send "
            "the image again"
        )
    answer: dict[str, Any] = json.loads(line)
    return answer


def _end(process: subprocess.Popen[str] | None) -> None:
    if process is None:
        return
    if process.stdin is not None:
        process.stdin.close()
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdout is not None:
        process.stdout.close()
