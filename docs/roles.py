"""Griffe extension: Sphinx roles (:class:`~a.b.C`) and `>>>` examples become code on the site."""

import re
from typing import Any

from griffe import Extension, Object

_ROLE = re.compile(r":[a-z]+:`(~?)([\w.]+)`")
_EXAMPLE = re.compile(r"^>>> .*(?:\n.*\S.*)*", re.MULTILINE)


def _code(role: re.Match[str]) -> str:
    name = role[2].rsplit(".", 1)[-1] if role[1] else role[2]
    return f"`{name}`"


class Roles(Extension):
    """Rewrites the docstring of every object that is loaded."""

    def on_object(self, *, obj: Object, **_: Any) -> None:
        """Rewrite one docstring."""
        if obj.docstring:
            text = re.sub(r"``([^`]+)``", r"`\1`", obj.docstring.value)
            text = _EXAMPLE.sub(lambda found: f"```pycon\n{found[0]}\n```", text)
            obj.docstring.value = _ROLE.sub(_code, text)
