"""The server's application: API under ``/api/v1``, pages beside it."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path

from fastapi import FastAPI
from fastapi.responses import FileResponse
from fastapi.staticfiles import StaticFiles

from deepacc_d2 import __version__
from deepacc_d2.disclaimer import DISCLAIMER
from deepacc_d2.review.web import cases, cells, classes, login
from deepacc_d2.review.web.context import Context, add_error_handlers
from deepacc_d2.review.web.guard import Guard

STATIC = Path(__file__).parent / "static"
API = "/api/v1"
PAGES = {
    "/": "worklist",
    "/cell/{number}": "cell",
    "/case/{number}": "case",
    "/search": "search",
    "/login": "login",
}
LOCAL_HOSTS = ("127.0.0.1", "localhost", "::1")


def create_app(context: Context, hosts: Collection[str] = LOCAL_HOSTS) -> FastAPI:
    """Makes the application.

    Args:
        context: what it serves.
        hosts: names and addresses that it goes by, without a port.
    """
    app = FastAPI(
        title="DeepACC-D2 review",
        version=__version__,
        description=f"Cells, cases, events and results of a review. {DISCLAIMER}",
        openapi_url=f"{API}/openapi.json",
        # Their pages load scripts from elsewhere, which a laboratory's network need not reach.
        docs_url=None,
        redoc_url=None,
    )
    app.state.context = context
    add_error_handlers(app)
    for part in (login, classes, cells, cases):
        app.include_router(part.router, prefix=API)
    app.mount("/static", StaticFiles(directory=STATIC), name="static")

    for path, name in PAGES.items():
        app.add_api_route(path, _page(name), methods=["GET"], include_in_schema=False)
    app.add_middleware(Guard, hosts=hosts)
    return app


def _page(name: str) -> Callable[[], FileResponse]:
    """Returns a route that gives one file, and takes nothing from the request."""

    def give() -> FileResponse:
        return FileResponse(STATIC / f"{name}.html")

    return give
