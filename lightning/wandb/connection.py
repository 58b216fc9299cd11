"""Whether W&B can be logged to online, found out before a training depends on it."""

from __future__ import annotations

import socket
import threading
import urllib.error
import urllib.request


def is_logged_in() -> bool:
    """Says whether an API key is known (environment, settings or ``.netrc``); asks for none."""
    import wandb

    try:
        return wandb.login(prompt=False, verify=False)
    except wandb.errors.Error:  # a key of a wrong form
        return False


def online_problem(timeout: float) -> str | None:
    """Says what keeps W&B from logging online, or returns null where nothing is known to.

    ``wandb.init`` alone would ask for a key on a terminal, and wait a minute and a half for a
    server that is not there.

    Args:
        timeout: seconds that the server has to answer.
    """
    import wandb

    if not is_logged_in():
        return "there is no W&B login (run `wandb login`)"
    url = wandb.setup().settings.base_url
    reason = unreachable(url, timeout)
    return f"the W&B server {url} cannot be reached ({reason})" if reason else None


def unreachable(url: str, timeout: float) -> str | None:
    """Returns why a server does not answer; null where it does, be it with an error.

    Args:
        url: of the server.
        timeout: seconds for all: name, connection and answer.
    """
    found: list[str | None] = []

    def ask() -> None:
        try:
            with urllib.request.urlopen(f"{url.rstrip('/')}/healthz", timeout=timeout):
                found.append(None)
        except urllib.error.HTTPError:
            found.append(None)
        except urllib.error.URLError as error:
            found.append(str(getattr(error.reason, "strerror", None) or error.reason))
        except (OSError, ValueError) as error:
            found.append("no answer" if isinstance(error, socket.timeout) else str(error))

    # Looking a name up heeds no timeout, and a server can send its answer byte by byte.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(timeout)
    return found[0] if found else f"no answer within {timeout:g} seconds"
