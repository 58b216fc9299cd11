"""Starts a server on a folder of results, and checks who may reach it."""

from __future__ import annotations

import getpass
import ipaddress
import threading
import webbrowser
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import uvicorn
from filelock import FileLock, Timeout

from deepacc_d2.disclaimer import DISCLAIMER
from deepacc_d2.errors import ConfigError
from deepacc_d2.review.cases import Rule
from deepacc_d2.review.imaging import Imaging
from deepacc_d2.review.people import People
from deepacc_d2.review.store.intake import read_job, take_in
from deepacc_d2.review.store.store import Store
from deepacc_d2.review.uploads.files import folder_of
from deepacc_d2.review.uploads.queue import Uploads
from deepacc_d2.review.web.app import LOCAL_HOSTS, create_app
from deepacc_d2.review.web.context import Context


@dataclass(frozen=True)
class ServeOptions:
    """How a server is reached.

    Attributes:
        address, port: that it listens on.
        names: that it goes by, besides its address.
        images: folders that images may be in.
        rule: the laboratory's.
        user: who works alone.
        certificate, key: files of TLS.
        behind_proxy: a proxy on this machine does the TLS.
        browse: open a browser.
        checkpoint: of the model for new images; empty for the included detector.
    """

    address: str = "127.0.0.1"
    port: int = 8765
    names: Sequence[str] = ()
    images: Sequence[Path] = ()
    rule: Rule = field(default_factory=Rule)
    user: str = ""
    certificate: Path | None = None
    key: Path | None = None
    behind_proxy: bool = False
    browse: bool = False
    checkpoint: str = ""

    @property
    def local(self) -> bool:
        """Whether only this machine reaches it, and no proxy hands on what comes from others."""
        try:
            loopback = ipaddress.ip_address(self.address).is_loopback
        except ValueError:
            loopback = self.address == "localhost"
        return loopback and not self.behind_proxy and not self.names


def store_place(root: Path, url: str = "") -> str | Path:
    """Returns where the review of a folder is kept: by URL, else in the folder itself."""
    return url or root / "review" / "review.db"


@contextmanager
def only_server(root: Path) -> Iterator[None]:
    """Keeps a second server away from a folder.

    Raises:
        ConfigError: there is one already, or the folder cannot be written.
    """
    place = root / "review" / "server.lock"
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(place)
        lock.acquire(timeout=0)
    except Timeout:
        raise ConfigError(
            f"another server has {root} open: use that one, or stop it first"
        ) from None
    except OSError as error:
        raise ConfigError(f"{place} cannot be written ({error.strerror}): permit it") from None
    try:
        yield
    finally:
        lock.release()


def check_access(options: ServeOptions, people: People) -> None:
    """Checks that a server that others can reach is protected.

    Raises:
        ConfigError: it has no users, no TLS, no folder of images, or no name; or there is no such
            port.
    """
    if not 0 <= options.port <= 65535:
        raise ConfigError(f"port {options.port} must be between 1 and 65535, or 0 for a free one")
    if (options.certificate is None) != (options.key is None):
        raise ConfigError("TLS needs both --tls-certificate and --tls-key")
    if options.local:
        return
    where = f"address {options.address}"
    if not people.any():
        raise ConfigError(
            f"{where} can be reached by others: add users first, such as "
            "`python -m deepacc_d2.review user OUT add NAME --role administrator`"
        )
    if options.certificate is None and not options.behind_proxy:
        raise ConfigError(
            f"{where} can be reached by others: give --tls-certificate and --tls-key, or "
            "--behind-proxy if a proxy in front does TLS"
        )
    if not options.images:
        raise ConfigError(
            f"{where} can be reached by others: say with --images which folder is shown"
        )
    if options.address in ("0.0.0.0", "::") and not options.names:
        raise ConfigError(f"{where}: give the name that browsers use with --name")


def serve(root: Path, url: str, options: ServeOptions) -> None:
    """Serves a folder until it is stopped.

    Raises:
        UserError: the folder, the store, the options or the port cannot be used.
    """
    read_job(root)
    # What was uploaded here may be shown, whatever folder other images are in.
    imaging = Imaging([*options.images, folder_of(root)] if options.images else [])
    with only_server(root):
        store = Store(store_place(root, url))
        try:
            people = People(store)
            check_access(options, people)
            for line in take_in(store, root).lines():
                print(line, flush=True)
            uploads = Uploads(store, root, checkpoint=options.checkpoint)
            waiting = uploads.resume()
            if waiting:
                print(f"{waiting} uploaded images are predicted now", flush=True)
            context = Context(
                store=store,
                root=root,
                people=people,
                imaging=imaging,
                rule=options.rule,
                alone=(options.user or _own_name()) if options.local else "",
                secure=options.certificate is not None or options.behind_proxy,
                uploads=uploads,
            )
            imaging.warm_up()
            try:
                _run(context, options)
            finally:
                uploads.close()
        finally:
            imaging.close()
            store.close()


def _own_name() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return "local"


def _page(options: ServeOptions, port: int) -> str:
    """Returns the address of the first page."""
    scheme = "https" if options.certificate else "http"
    name = next(iter(options.names), options.address)
    return f"{scheme}://{f'[{name}]' if ':' in name else name}:{port}/"


def _run(context: Context, options: ServeOptions) -> None:
    hosts = {*LOCAL_HOSTS, *options.names} if options.local else {*options.names}
    if options.address not in ("0.0.0.0", "::"):
        hosts.add(options.address)
    config = uvicorn.Config(
        create_app(context, hosts),
        host=options.address,
        port=options.port,
        log_level="warning",
        server_header=False,
        proxy_headers=options.behind_proxy,
        forwarded_allow_ips="127.0.0.1",
        ssl_certfile=str(options.certificate) if options.certificate else None,
        ssl_keyfile=str(options.key) if options.key else None,
        timeout_graceful_shutdown=5,
    )
    server = uvicorn.Server(config)
    try:
        sock = config.bind_socket()
    except SystemExit:
        raise ConfigError(
            f"port {options.port} of {options.address} cannot be used: choose another with --port"
        ) from None
    page = _page(options, sock.getsockname()[1])
    print(f"review at {page}  (Ctrl-C stops it)\n{DISCLAIMER}", flush=True)
    if options.browse:
        threading.Timer(1.0, webbrowser.open, (page,)).start()
    server.run(sockets=[sock])
