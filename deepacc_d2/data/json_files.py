"""JSON files read and written, with errors that say which file is broken."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from deepacc_d2.errors import DataError


def write_json(path: Path, value: Any, *, indent: int | None = None) -> None:
    """Writes JSON as UTF-8, creating the folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # what is no character, as of a file name that is no UTF-8, stays an escape
    path.write_text(
        json.dumps(value, ensure_ascii=False, indent=indent),
        encoding="utf-8",
        errors="backslashreplace",
    )


def read_json(path: Path, *, unique_keys: bool = False) -> Any:
    """Reads JSON, in UTF-8, UTF-16 or UTF-32.

    Args:
        path: the file.
        unique_keys: refuse an object that has a key twice, of which the last would count.

    Raises:
        DataError: the file is unreadable, cut short or no JSON.
    """
    try:
        return json.loads(path.read_bytes(), object_pairs_hook=_unique if unique_keys else None)
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror})") from None
    except UnicodeDecodeError as error:
        if "unexpected end" in error.reason:
            raise DataError(f"{path} ends amid a character: was it cut short?") from None
        raise DataError(f"{path} is not in UTF-8: save it as UTF-8") from None
    except _RepeatedKeyError as error:
        raise DataError(
            f"{path} has the key {error} twice: were two files pasted together?"
        ) from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is no complete JSON ({error}): was it cut short?") from None


class _RepeatedKeyError(Exception):
    """A key that an object has twice."""


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise _RepeatedKeyError(next(repr(key) for key in keys if keys.count(key) > 1))
    return found
