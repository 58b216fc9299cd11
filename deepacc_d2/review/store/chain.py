"""The audit trail's entries: canonical text, and the hash that ties each to the one before."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, insert, select, update

from deepacc_d2.review.store.tables import head, trail

FIRST = "0" * 64
"""What the first entry has for the hash of the one before it."""

HASHED = (
    *("seq", "at", "who", "kind", "case_id", "cell_id", "base"),
    *("event", "before", "after", "model", "model_sha256", "key", "previous"),
)


def canonical(value: Any) -> str:
    """Returns JSON that is the same for the same value: sorted keys, no blanks, no NaN."""
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )


def sha256(text: str) -> str:
    """Returns the SHA-256 of a text's UTF-8, hexadecimal."""
    return hashlib.sha256(text.encode()).hexdigest()


def entry_hash(entry: Mapping[str, Any]) -> str:
    """Returns the hash of an entry, over all of :data:`HASHED`."""
    return sha256(canonical({name: entry[name] for name in HASHED}))


def now() -> str:
    """Returns the time, UTC, ISO 8601 with microseconds."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


def add_entry(
    connection: Connection,
    *,
    who: str,
    kind: str,
    event: Any,
    before: Any = None,
    after: Any = None,
    case_id: int | None = None,
    cell_id: int | None = None,
    base: int = 0,
    model: str = "",
    model_sha256: str = "",
    key: str | None = None,
    at: str | None = None,
) -> dict[str, Any]:
    """Adds an entry at the trail's end, within a transaction of database.writing.

    Args:
        connection: that has the lock of the trail's head.
        who: user name.
        kind: of the event.
        event, before, after: plain values.
        case_id, cell_id: that it is of.
        base: number of the entry that it was made on; 0 for none.
        model, model_sha256: that predicted.
        key: the sender's.
        at: time; now if not given.

    Returns:
        The entry, all columns.
    """
    last = connection.execute(select(head.c.seq, head.c.hash).where(head.c.id == 1)).one()
    entry: dict[str, Any] = {
        "seq": last.seq + 1,
        "at": at or now(),
        "who": who,
        "kind": kind,
        "case_id": case_id,
        "cell_id": cell_id,
        "base": base,
        "event": canonical(event),
        "before": canonical(before),
        "after": canonical(after),
        "model": model,
        "model_sha256": model_sha256,
        "key": key,
        "previous": last.hash,
    }
    entry["hash"] = entry_hash(entry)
    connection.execute(insert(trail), [entry])
    connection.execute(
        update(head).where(head.c.id == 1).values(seq=entry["seq"], hash=entry["hash"])
    )
    return entry
