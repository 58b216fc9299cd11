"""JSON files read and written, with errors that say which file is broken."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from deepacc_d2.errors import DataError


def write_json(path: Path, value: Any, *, indent: int | None = None) -> None:
    """Writes JSON as UTF-8, creating the folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, ensure_ascii=False, indent=indent), encoding="utf-8")


def read_json(path: Path) -> Any:
    """Reads JSON.

    Raises:
        DataError: the file is unreadable, cut short or no JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is no complete JSON ({error}): was it cut short?") from None
