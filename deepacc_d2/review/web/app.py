"""The server's application: API under ``/api/v1``, pages beside it."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path

from fastapi import FastAPI
from fastapi.responses import HTMLResponse
from fastapi.staticfiles import StaticFiles

from deepacc_d2 import __version__
from deepacc_d2.disclaimer import DISCLAIMER
from deepacc_d2.pages import render
from deepacc_d2.review.web import cases, cells, classes, login
from deepacc_d2.review.web.context import Context, add_error_handlers
from deepacc_d2.review.web.guard import Guard

STATIC = Path(__file__).parent / "static"
API = "/api/v1"
PAGES = {
    "/": ("worklist", "Worklist"),
    "/cell/{number}": ("cell", "Cell"),
    "/case/{number}": ("case", "Case"),
    "/search": ("search", "Search"),
    "/login": ("login", "Log in"),
}
"""Path of each page, its script and its title."""
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

    for path, (name, title) in PAGES.items():
        app.add_api_route(path, _page(name, title), methods=["GET"], include_in_schema=False)
    app.add_middleware(Guard, hosts=hosts)
    return app


def _page(name: str, title: str) -> Callable[[], HTMLResponse]:
    """Returns a route that gives the page of one script, and takes nothing from the request."""
    content = render(__package__, "page.html.j2", name=name, title=title)

    def give() -> HTMLResponse:
        return HTMLResponse(content)

    return give
