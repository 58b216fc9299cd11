"""Routes of logins: who is here, in, out."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from deepacc_d2.disclaimer import DISCLAIMER
from deepacc_d2.review.people import LONGEST_SECONDS
from deepacc_d2.review.web.context import COOKIE, By, InContext

router = APIRouter(tags=["login"])


class LoginPost(BaseModel):
    """User name and password."""

    model_config = ConfigDict(extra="forbid")

    user: Annotated[str, Field(min_length=1, max_length=64)]
    password: Annotated[str, Field(min_length=1, max_length=1000)]


@router.get("/me")
def get_me(context: InContext, by: By) -> dict[str, Any]:
    """Returns who is logged in, and the token that changing requests carry."""
    rule = context.rule
    return {
        "user": by.name,
        "role": by.role,
        "token": by.csrf,
        "login": not context.is_alone(),
        "rule": [rule.counted, rule.analyzed, rule.karyotyped],
        "disclaimer": DISCLAIMER,
    }


@router.post("/login")
def post_login(
    context: InContext, post: LoginPost, request: Request, response: Response
) -> dict[str, Any]:
    """Logs in; the session is a cookie that scripts cannot read and other sites do not send."""
    address = request.client.host if request.client else ""
    token, person = context.people.login(post.user, post.password, address)
    response.set_cookie(
        COOKIE,
        token,
        max_age=int(LONGEST_SECONDS),
        httponly=True,
        secure=context.secure,
        samesite="strict",
        path="/",
    )
    return {"user": person.name, "role": person.role}


@router.post("/logout")
def post_logout(context: InContext, by: By, request: Request, response: Response) -> dict[str, Any]:
    """Logs out."""
    context.people.logout(request.cookies.get(COOKIE, ""))
    response.delete_cookie(COOKIE, path="/")
    return {}
