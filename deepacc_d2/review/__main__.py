"""``python -m deepacc_d2.review serve|verify|export|dataset|backup|restore|user``."""

from __future__ import annotations

import argparse
import getpass
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from deepacc_d2.errors import ConfigError, run_cli

if TYPE_CHECKING:
    from deepacc_d2.review.store.store import Store


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m deepacc_d2.review", description="Reviews what make predict wrote."
    )
    commands = parser.add_subparsers(dest="command", required=True)

    def command(name: str, about: str) -> argparse.ArgumentParser:
        made = commands.add_parser(name, help=about, description=about)
        made.add_argument("out", type=Path, metavar="OUT", help="folder that make predict wrote")
        made.add_argument(
            "--store", default="", help="URL of a PostgreSQL database; OUT/review/review.db if not"
        )
        return made

    serve = command("serve", "serve the pages until stopped")
    serve.add_argument("--address", default="127.0.0.1")
    serve.add_argument("--port", type=int, default=8765)
    serve.add_argument("--name", action="append", default=[], help="host name it goes by")
    serve.add_argument("--images", action="append", type=Path, default=[], help="folder to show")
    serve.add_argument("--rule", default="20,5,5", help="cells counted,analyzed,karyotyped")
    serve.add_argument("--user", default="", help="who works alone here; the system's name if not")
    serve.add_argument("--tls-certificate", type=Path)
    serve.add_argument("--tls-key", type=Path)
    serve.add_argument("--behind-proxy", action="store_true")
    serve.add_argument("--checkpoint", default="", help="model for new images, the results' own")
    serve.add_argument("--browse", action="store_true", help="open a browser")
    verify = command("verify", "check that the audit trail is as it was written")
    verify.add_argument("--expect", default="", metavar="HASH", help="an entry that must be there")
    export = command("export", "write what make predict writes, of the cells as they are now")
    export.add_argument("--to", type=Path, required=True, help="new folder")
    export.add_argument("--karyogram", default="png,svg", help="formats, or none")
    export.add_argument("--no-overlay", action="store_true")
    dataset = command("dataset", "write the confirmed cells as a data set for make train")
    dataset.add_argument("--to", type=Path, required=True, help="new folder")
    dataset.add_argument("--ratios", default="3:1:1", help="train:val:test")
    dataset.add_argument("--seed", type=int, default=0)
    backup = command("backup", "write the whole review to one file")
    backup.add_argument("--to", type=Path, required=True, help="new file, such as review.zip")
    restore = command("restore", "make a review of a backup")
    restore.add_argument("--from", type=Path, required=True, dest="source", help="the backup")
    user = command("user", "add or change users, or list them")
    user.add_argument("action", choices=("add", "password", "role", "disable", "enable", "list"))
    user.add_argument("name", nargs="?", default="")
    user.add_argument("--role", default="reader", help="reader, reviewer or administrator")
    user.add_argument("--password-stdin", action="store_true", help="read it from standard input")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Parses the command line and runs a command."""
    words = sys.argv[1:] if argv is None else argv
    # A folder alone is served.
    if words and not words[0].startswith("-") and words[0] not in (*_COMMANDS, "serve"):
        words = ["serve", *words]
    options = _parser().parse_args(words)
    options.out = options.out.expanduser()
    try:
        from deepacc_d2.review import serving
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"{error.name} is not installed: run make setup EXTRAS=review first"
        ) from None
    if options.command == "serve":
        from deepacc_d2.review.cases import Rule

        serving.serve(
            options.out,
            options.store,
            serving.ServeOptions(
                address=options.address,
                port=options.port,
                names=options.name,
                images=options.images,
                rule=Rule.parse(options.rule),
                user=options.user,
                certificate=options.tls_certificate,
                key=options.tls_key,
                behind_proxy=options.behind_proxy,
                browse=options.browse,
                checkpoint=options.checkpoint,
            ),
        )
        return 0
    from deepacc_d2.review.store.store import Store

    place = serving.store_place(options.out, options.store)
    makes = options.command in ("restore", "user")
    if isinstance(place, Path) and not makes and not place.is_file():
        raise ConfigError(f"{options.out} has no review: serve it first")
    store = Store(place)
    try:
        return _COMMANDS[options.command](store, options)
    finally:
        store.close()


def _verify(store: Store, options: argparse.Namespace) -> int:
    from deepacc_d2.review.store.verify import verify

    verdict = verify(store, options.expect)
    for problem in verdict.problems:
        print(problem)
    state = "is NOT as it was written" if verdict.problems else "is as it was written"
    print(f"the trail of {verdict.entries} entries {state}; last hash {verdict.hash}")
    return 1 if verdict.problems else 0


def _export(store: Store, options: argparse.Namespace) -> int:
    from deepacc_d2.review.export import export
    from deepacc_d2.worksheet.laboratory import laboratory_of

    formats = () if options.karyogram == "none" else tuple(options.karyogram.split(","))
    told = export(
        store,
        options.to,
        overlay=not options.no_overlay,
        karyogram=formats,
        laboratory=laboratory_of(options.out),
    )
    for problem in told.problems:
        print(problem)
    print(f"{told.cells} cells, {told.cases} cases in {options.to}; trail {told.hash}")
    return 0


def _dataset(store: Store, options: argparse.Namespace) -> int:
    from deepacc_d2.review.dataset import write_dataset

    told = write_dataset(store, options.to, ratios=options.ratios, seed=options.seed)
    for problem in told.problems:
        print(problem)
    left = ", ".join(f"{n} {reason}" for reason, n in sorted(told.skipped.items()))
    print(f"{told.images} images in {options.to}" + (f"; left out: {left}" if left else ""))
    return 0


def _backup(store: Store, options: argparse.Namespace) -> int:
    from deepacc_d2.review.backup import backup

    print(f"{backup(store, options.to)} entries of the trail in {options.to}")
    return 0


def _restore(store: Store, options: argparse.Namespace) -> int:
    from deepacc_d2.review.backup import restore

    print(f"{restore(store, options.source)} entries of the trail restored and verified")
    return 0


def _user(store: Store, options: argparse.Namespace) -> int:
    from deepacc_d2.review.people import People

    people = People(store)
    by = f"{getpass.getuser()} (command line)"
    if options.action == "list":
        for person in people.everybody():
            print(f"{person['name']}\t{person['role']}\t{'' if person['active'] else 'disabled'}")
        return 0
    if not options.name:
        raise ConfigError(f"user {options.action}: give a name")
    if options.action == "add":
        people.add(options.name, _password(options), options.role, by=by)
    elif options.action == "password":
        people.change(options.name, by=by, password=_password(options))
    elif options.action == "role":
        people.change(options.name, by=by, role=options.role)
    else:
        people.change(options.name, by=by, active=options.action == "enable")
    return 0


def _password(options: argparse.Namespace) -> str:
    if options.password_stdin:
        return sys.stdin.readline().rstrip("\r\n")
    first = getpass.getpass(f"password of {options.name}: ")
    if getpass.getpass("once more: ") != first:
        raise ConfigError("the two passwords differ: try again")
    return first


_COMMANDS = {
    "verify": _verify,
    "export": _export,
    "dataset": _dataset,
    "backup": _backup,
    "restore": _restore,
    "user": _user,
}

if __name__ == "__main__":
    run_cli(main)
