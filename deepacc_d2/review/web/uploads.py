"""Routes of new images: sent, listed until they are predicted."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.concurrency import run_in_threadpool
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import ClientDisconnect

from deepacc_d2.errors import ConfigError
from deepacc_d2.images.read import SUFFIXES
from deepacc_d2.review.store.database import StoreError
from deepacc_d2.review.uploads.files import (
    MOST_BYTES,
    RefusedError,
    TooLargeError,
    begin,
    check_name,
    receive,
)
from deepacc_d2.review.uploads.queue import Uploads
from deepacc_d2.review.web.context import By, Context, InContext

router = APIRouter(tags=["uploads"])


class UploadQuery(BaseModel):
    """The name of an image's file, and the case that it is of."""

    model_config = ConfigDict(extra="forbid")

    file: Annotated[str, Field(min_length=1, max_length=1000)]
    case: Annotated[str, Field(max_length=200, pattern=r"^[^\x00-\x1f\x7f]*$")] = ""


@router.get("/uploads")
def get_uploads(context: InContext, by: By) -> dict[str, Any]:
    """Lists the images that were sent to this server, the latest first."""
    return {
        **_uploads(context).told(),
        "suffixes": SUFFIXES,
        "most_bytes": MOST_BYTES,
    }


@router.post("/uploads")
async def post_upload(
    context: InContext, by: By, wanted: Annotated[UploadQuery, Query()], request: Request
) -> dict[str, Any]:
    """Takes an image, the request's body, and queues it to be predicted."""
    uploads = _uploads(context)
    case = wanted.case.strip() or None
    check_name(wanted.file)
    await run_in_threadpool(uploads.check, case)
    size = int(request.headers.get("content-length", "0"))
    part = await run_in_threadpool(begin, context.root, size)
    await _write(part, request)

    def keep() -> dict[str, Any]:
        with context.one_upload:  # names are given one at a time
            received = receive(part, wanted.file, uploads.names())
            if received.known:
                return {"name": received.name, "known": True}
            item = uploads.add(received, case, by.name)
        return {"id": item.id, "name": item.name, "known": False}

    return await run_in_threadpool(keep)


async def _write(part: Path, request: Request) -> None:
    """Writes a request's body to a file.

    Raises:
        RefusedError: it was cut short.
        StoreError: it cannot be written.
        TooLargeError: it is longer than it said.
    """
    size = 0
    try:
        with part.open("wb") as file:
            async for chunk in request.stream():
                size += len(chunk)
                if size > MOST_BYTES:
                    raise TooLargeError("the file is too large: crop or shrink the image")
                file.write(chunk)
    except ClientDisconnect:
        part.unlink(missing_ok=True)
        raise RefusedError("the connection was lost: send the image again") from None
    except OSError as error:
        part.unlink(missing_ok=True)
        raise StoreError(
            f"{part.parent}: the image cannot be kept ({error.strerror or error}): free some space"
        ) from None
    except TooLargeError:
        part.unlink(missing_ok=True)
        raise


def _uploads(context: Context) -> Uploads:
    """Returns the server's uploads.

    Raises:
        ConfigError: it takes none.
    """
    if context.uploads is None:
        raise ConfigError("this server takes no new images: predict them with make predict")
    return context.uploads
