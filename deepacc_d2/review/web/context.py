"""What the routes share: the store, who is asking, and the status of errors."""

from __future__ import annotations

import secrets
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from fastapi import Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse

from deepacc_d2.errors import DataError, UserError
from deepacc_d2.review.cases import Rule
from deepacc_d2.review.imaging import Imaging
from deepacc_d2.review.people import ADMINISTRATOR, AccessError, People, Person
from deepacc_d2.review.state import EditError
from deepacc_d2.review.store.database import StoreError
from deepacc_d2.review.store.store import ConflictError, NotThereError, Store
from deepacc_d2.review.uploads.files import RefusedError, TooLargeError
from deepacc_d2.review.uploads.queue import Uploads
from deepacc_d2.review.web.guard import CHANGING

COOKIE = "review_session"
CSRF_HEADER = "x-review-token"

STATUS: dict[type[UserError], int] = {
    NotThereError: 404,
    EditError: 422,
    StoreError: 503,
    TooLargeError: 413,
    RefusedError: 422,
    DataError: 410,
}
"""HTTP status of each kind of error, the first that fits; 400 of others."""


@dataclass
class Context:
    """What a server serves.

    Attributes:
        store: of the review.
        root: folder of the results.
        people: users and logins.
        imaging: images and strips.
        rule: the laboratory's.
        alone: name of the person who works here without a login; empty: a login is needed.
        secure: whether cookies are for HTTPS only.
        csrf: token of the one who works alone.
        uploads: predicts new images; None: none are taken.
        one_upload: held while an uploaded image gets its name.
    """

    store: Store
    root: Path
    people: People
    imaging: Imaging
    rule: Rule = field(default_factory=Rule)
    alone: str = ""
    secure: bool = False
    csrf: str = field(default_factory=lambda: secrets.token_urlsafe(32))
    uploads: Uploads | None = None
    one_upload: threading.Lock = field(default_factory=threading.Lock)

    def is_alone(self) -> bool:
        """Whether one person works here without a login: as soon as there are users, nobody."""
        return bool(self.alone) and not self.people.any()

    def person(self, request: Request) -> Person:
        """Returns who makes a request.

        Raises:
            AccessError: nobody is logged in, or a changing request lacks the token of its page.
        """
        person: Person | None
        if self.is_alone():
            person = Person(self.alone, ADMINISTRATOR, self.csrf)
        else:
            token = request.cookies.get(COOKIE, "")
            person = self.people.person(token) if token else None
        if person is None:
            raise AccessError("log in first", 401)
        if request.method in CHANGING:
            given = request.headers.get(CSRF_HEADER, "")
            if not secrets.compare_digest(given.encode(), person.csrf.encode()):
                raise AccessError("the page is out of date: reload it")
        return person


def context_of(request: Request) -> Context:
    """Returns the context of the server that a request is made to."""
    context: Context = request.app.state.context
    return context


def person_of(request: Request) -> Person:
    """Returns who makes a request; see :meth:`Context.person`."""
    return context_of(request).person(request)


async def _context_of(request: Request) -> Context:
    # Not to wait for a thread of its own, as what is not async does.
    return context_of(request)


InContext = Annotated[Context, Depends(_context_of)]
By = Annotated[Person, Depends(person_of)]


def add_error_handlers(app: FastAPI) -> None:
    """Turns the project's errors into one-line answers with a fitting status."""

    def answer(status: int, text: str) -> JSONResponse:
        return JSONResponse({"detail": text}, status)

    @app.exception_handler(UserError)
    def user_error(_: Request, error: UserError) -> JSONResponse:
        if isinstance(error, AccessError):
            return answer(error.status, str(error))
        if isinstance(error, ConflictError):
            return JSONResponse({"detail": str(error), "version": error.version}, 409)
        status = next((n for kind, n in STATUS.items() if isinstance(error, kind)), 400)
        return answer(status, str(error))

    @app.exception_handler(RequestValidationError)
    def not_valid(_: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        return answer(422, f"request cannot be used: {where}: {first['msg']}")
