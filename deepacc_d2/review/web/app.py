"""The server's application: API under ``/api/v1``, and the pages."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection
from functools import cache
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import HTMLResponse
from fastapi.staticfiles import StaticFiles

from deepacc_d2 import __version__
from deepacc_d2.disclaimer import DISCLAIMER
from deepacc_d2.errors import UserError
from deepacc_d2.pages import render
from deepacc_d2.review.web import cases, cells, classes, login, uploads
from deepacc_d2.review.web.context import Context, add_error_handlers, context_of
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
MODULES = {
    "cell": ("common", "detail", "karyogram", "spread"),
    "worklist": ("common", "uploads"),
}
"""What a page's script imports, so that a browser asks for all of it at once."""
LOCAL_HOSTS = ("127.0.0.1", "localhost", "::1")


def create_app(context: Context, hosts: Collection[str] = LOCAL_HOSTS) -> FastAPI:
    """Makes the application.

    Args:
        context: what it serves.
        hosts: its names and addresses, without a port.
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
    for part in (login, classes, cells, cases, uploads):
        app.include_router(part.router, prefix=API)
    app.mount(static_url(), _Kept(directory=STATIC), name="static")

    for path, (name, title) in PAGES.items():
        app.add_api_route(path, _page(name, title), methods=["GET"], include_in_schema=False)
    app.add_middleware(Guard, hosts=hosts)
    return app


class _Kept(StaticFiles):
    """Files whose address changes with their content, so that a browser may keep them."""

    def file_response(self, *args: Any, **kwargs: Any) -> Response:
        """Gives a file."""
        response = super().file_response(*args, **kwargs)
        response.headers["Cache-Control"] = "public, max-age=31536000, immutable"
        return response


@cache
def static_url() -> str:
    """Returns the path of scripts and styles, another one for any other content of them."""
    files = sorted(path for path in STATIC.iterdir() if path.is_file())
    content = hashlib.sha256(b"".join(path.read_bytes() for path in files))
    return f"/static/{content.hexdigest()[:16]}"


def _page(name: str, title: str) -> Callable[..., HTMLResponse]:
    """Returns a route that gives the page of one script, and takes nothing from the request."""
    modules = MODULES.get(name, ("common",))
    content = render(
        __package__, "page.html.j2", name=name, title=title, static=static_url(), modules=modules
    )

    def give() -> HTMLResponse:
        return HTMLResponse(content)

    def give_cell(request: Request, number: int) -> HTMLResponse:
        _prepare(context_of(request), request, number)
        return HTMLResponse(content)

    return give_cell if name == "cell" else give


def _prepare(context: Context, request: Request, number: int) -> None:
    """Starts on the pictures of a cell's page while the page loads."""
    try:
        context.person(request)
        context.imaging.prepare(context.store.cell(number))
    except UserError:
        pass  # the page shows why
