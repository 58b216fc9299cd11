"""Fixtures of these tests, and which of them can run: make setup EXTRAS="review browser"."""

from __future__ import annotations

import importlib.util

collect_ignore_glob: list[str] = []
if any(importlib.util.find_spec(n) is None for n in ("fastapi", "sqlalchemy", "alembic", "argon2")):
    collect_ignore_glob = ["test_*.py"]
else:
    from .fixtures import (  # noqa: F401
        cell,
        drawn_results,
        ids_of,
        results,
        rules,
        sqlite_store,
        store,
        taken_in,
        url,
    )

    if importlib.util.find_spec("playwright") is not None:
        from .driving import browser, shared, site  # noqa: F401
    else:
        collect_ignore_glob = ["test_pages.py", "test_keys.py", "test_upload_page.py"]
    if importlib.util.find_spec("httpx2") is None:
        collect_ignore_glob += ["test_api.py", "test_uploads.py"]
