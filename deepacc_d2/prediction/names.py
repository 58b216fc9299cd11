"""Names that are unique and safe as file names on every system, whatever the images are called."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Container, Sequence
from pathlib import PurePath

# Room for what is put behind a name; file systems allow 255 bytes.
MAX_CHARACTERS = 100
MAX_BYTES = 180
# What Windows takes for a device, whatever follows a dot.
_RESERVED = re.compile(r"(con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³])(\..*)?", re.IGNORECASE)
_FORBIDDEN = re.compile(r'[<>:"/\\|?*\s]')


def safe_name(text: str) -> str:
    """Returns a text as a file name: the same text gives the same name on every machine.

    White space, separators, marks that a shell or Windows reads, control and formatting characters
    become ``_``; letters of all scripts stay. Never empty, ``.``, ``..``, hidden, an option or a
    device; where over 100 characters or 180 bytes of UTF-8, its end becomes a hash of the whole.

    >>> safe_name("case 7/cell:1"), safe_name("../CON")
    ('case_7_cell_1', '_._CON')
    """
    normal = unicodedata.normalize("NFC", text)
    kept = "".join("_" if unicodedata.category(c) in ("Cc", "Cf", "Cs") else c for c in normal)
    name = _FORBIDDEN.sub("_", kept).rstrip(".")
    if not name or name[0] in ".-~":
        name = "_" + name[1:] if name else "image"
    if _RESERVED.fullmatch(name):
        name = "_" + name
    if len(name) > MAX_CHARACTERS or len(name.encode()) > MAX_BYTES:
        tail = "_" + _digest(text)
        name = name[: MAX_CHARACTERS - len(tail)]
        name = name.encode()[: MAX_BYTES - len(tail)].decode(errors="ignore") + tail
    return name


def unique_names(paths: Sequence[PurePath]) -> list[str]:
    """Returns a safe name for each path, no two alike, not even but for upper and lower case.

    A stem that several files have gets the folder's name in front; where that does not tell them
    apart, the suffix behind; else a hash of the path.
    """
    rules: list[Callable[[PurePath], str]] = [
        lambda path: path.stem,
        lambda path: f"{path.parent.name}_{path.stem}",
        lambda path: f"{path.parent.name}_{path.stem}_{path.suffix[1:]}",
        lambda path: f"{path.stem[:80]}_{_digest(path.as_posix())}",
    ]
    names = [safe_name(rules[0](path)) for path in paths]
    for rule in rules[1:]:
        often = Counter(fold_name(name) for name in names)
        for i, path in enumerate(paths):
            if often[fold_name(names[i])] > 1:
                names[i] = safe_name(rule(path))
    seen: set[str] = set()
    for i, name in enumerate(names):
        number = 1
        while fold_name(names[i]) in seen:  # one path twice
            number += 1
            names[i] = f"{name[:90]}_{number}"
        seen.add(fold_name(names[i]))
    return names


def other_name(name: str, path: PurePath, taken: Container[str]) -> str:
    """Returns a name for a path, another one where that is taken.

    Args:
        name: what it would be called.
        path: of the image.
        taken: names by :func:`fold_name`.
    """
    if fold_name(name) not in taken:
        return name
    name = safe_name(f"{path.parent.name}_{path.stem}")
    return (
        safe_name(f"{path.stem[:80]}_{_digest(path.as_posix())}")
        if fold_name(name) in taken
        else name
    )


def fold_name(name: str) -> str:
    """Returns what names have in common that one file system may take for the same."""
    return unicodedata.normalize("NFC", name.casefold())


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:8]
