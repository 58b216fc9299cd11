"""Checks of every request (host, origin, size) and headers of every answer."""

from __future__ import annotations

from collections.abc import Collection
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

CHANGING = ("POST", "PUT", "PATCH", "DELETE")
MOST_BYTES = 1_000_000
"""Largest body of a request; an event has a few hundred bytes."""
UPLOADS, UPLOAD_BYTES = "/api/v1/uploads", 201_000_000
"""Where images are sent to, and the largest body there; the route has its own limit."""

SECURITY_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
        "connect-src 'self'; font-src 'self'; form-action 'self'; frame-ancestors 'none'; "
        "base-uri 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class Guard:
    """ASGI middleware; refuses what does not come from a page of this server.

    A page elsewhere that a person has open may send requests here with this person's rights, and a
    name that points here (DNS rebinding) would make it the same origin: both are refused.
    """

    def __init__(self, app: ASGIApp, hosts: Collection[str]) -> None:
        """Makes it.

        Args:
            app: what it protects.
            hosts: names and addresses of the server, without a port.
        """
        self.app = app
        self.hosts = {host.lower() for host in hosts}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles a request."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        upload = scope["method"] == "POST" and scope["path"] == UPLOADS
        most = UPLOAD_BYTES if upload else MOST_BYTES
        problem = self._problem(scope["method"], headers, most)

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                own = MutableHeaders(scope=message)
                for name, value in SECURITY_HEADERS.items():
                    own[name] = value
                if "cache-control" not in own:
                    own["Cache-Control"] = "no-store"
            await send(message)

        if problem:
            status, text = problem
            await JSONResponse({"detail": text}, status)(scope, receive, with_headers)
            return
        await self.app(scope, _limited(receive, most), with_headers)

    def _problem(self, method: str, headers: Headers, most: int) -> tuple[int, str] | None:
        host = headers.get("host", "")
        if _name(f"//{host}") not in self.hosts:
            return 400, "this server is not known by that name: start it with --name"
        if method in CHANGING:
            origin = headers.get("origin")
            if origin is not None and urlsplit(origin).netloc.lower() != host.lower():
                return 403, "the request comes from another site"
            if headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
                return 403, "the request comes from another site"
        length = headers.get("content-length", "0")
        if not length.isdecimal() or int(length) > most:
            return 413, "the request is too large"
        return None


def _name(url: str) -> str:
    try:
        return (urlsplit(url).hostname or "").lower()
    except ValueError:
        return ""


def _limited(receive: Receive, most: int) -> Receive:
    """Cuts off a body that is longer than it said."""
    seen = 0

    async def limited() -> Message:
        nonlocal seen
        message = await receive()
        seen += len(message.get("body", b""))
        if seen > most:
            return {"type": "http.disconnect"}
        return message

    return limited
