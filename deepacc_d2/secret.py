"""Secrets are not written down: what looks like one is replaced in all that a run records.

A token can come into a command line, a config, a URL or the environment. Records, reports and logs
are passed on, so each of them goes through :func:`redacted`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from typing import Any

HIDDEN = "***"
"""What stands in the place of a secret."""

_NAME = re.compile(
    r"((api|access|private|account|signing|secret)_?key|token|secret|passw(or)?d|passwd|pwd"
    r"|passphrase|credential|authorization|cookie|connection_?string)(s|_|[0-9]|$)"
    r"|^sig(nature)?$",
    re.IGNORECASE,
)
# As in "https://user:password@host": either part may be the secret.
_LOGIN = re.compile(r"(?<=://)[^\s/?#@'\"]+(?=@)")
# key=value, key: value and --key value, within any text.
_PAIR = re.compile(
    r"""(?P<name>[A-Za-z_][\w.-]*)(?P<quote>["']?)(?P<sign>\s*[=:]\s*|\s+(?=[^\s-]))"""
    r"""(?P<value>(?:bearer |basic )?(?:"[^"]*"|'[^']*'|[^\s,;&}\])"']+))""",
    re.IGNORECASE,
)
_SHORTEST = 8


def is_secret_name(name: object) -> bool:
    """Whether a key, an option or a variable of this name holds a secret.

    >>> is_secret_name("WANDB_API_KEY"), is_secret_name("logger.wandb.api-key")
    (True, True)
    >>> is_secret_name("monkey"), is_secret_name("seed")
    (False, False)
    """
    return _NAME.search(str(name).replace("-", "_").rpartition(".")[2]) is not None


def redacted(value: Any) -> Any:
    """Returns a plain value without secrets: texts, and what lists and mappings hold.

    Hidden are values of keys that :func:`is_secret_name` knows, logins in URLs, and what the
    environment's variables of such names hold, wherever it stands.

    >>> redacted({"api_key": "abc", "url": "https://me:pw@host/x", "seed": 1})
    {'api_key': '***', 'url': 'https://***@host/x', 'seed': 1}
    >>> redacted(["train", "--token", "abc", "+logger.wandb.api_key=abc"])
    ['train', '--token', '***', '+logger.wandb.api_key=***']
    """
    return _redact(value, tuple(secrets_of_environment()))


def secrets_of_environment() -> Iterator[str]:
    """Yields the secrets among the environment's variables, but such as any text could hold."""
    for name, value in os.environ.items():
        if is_secret_name(name) and len(value) >= _SHORTEST and not value.startswith("/"):
            yield value


def _redact(value: Any, known: tuple[str, ...]) -> Any:
    if isinstance(value, str):
        return _text(value, known)
    if isinstance(value, Mapping):
        return {
            key: HIDDEN if _is_hidden(key, own) else _redact(own, known)
            for key, own in value.items()
        }
    if isinstance(value, list | tuple):
        # A flag's value is the word after it.
        words = [None, *value][: len(value)]
        kept = [
            HIDDEN if _is_flag(before) and isinstance(own, str) else _redact(own, known)
            for before, own in zip(words, value, strict=True)
        ]
        return kept if isinstance(value, list) else tuple(kept)
    return value


def _is_hidden(key: object, value: Any) -> bool:
    plain = isinstance(value, str | int | float) and not isinstance(value, bool)
    return plain and value != "" and is_secret_name(key)


def _is_flag(word: Any) -> bool:
    return (
        isinstance(word, str)
        and re.fullmatch(r"--?[\w.-]+", word) is not None
        and is_secret_name(word.lstrip("-"))
    )


def _text(text: str, known: tuple[str, ...]) -> str:
    for secret in known:
        text = text.replace(secret, HIDDEN)
    return _PAIR.sub(_hide, _LOGIN.sub(HIDDEN, text))


def _hide(match: re.Match[str]) -> str:
    name, sign, value = match["name"], match["sign"], match["value"]
    # A blank alone makes a pair of an option on a command line, not of two words of a sentence.
    pair = sign.strip() or match.string[: match.start()].endswith("-")
    if not is_secret_name(name):
        value = _PAIR.sub(_hide, value)  # ARGS="api_key=..."
    elif pair and value not in ("null", "None"):
        value = HIDDEN
    return f"{name}{match['quote']}{sign}{value}"
