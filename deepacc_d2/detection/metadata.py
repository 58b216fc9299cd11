"""What an exported file says of itself, so that a runner needs nothing else."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, TypedDict, cast

from deepacc_d2.chromosomes import CLASSES
from deepacc_d2.errors import ConfigError, DataError

KEY = "deepacc_d2"
"""The name of the metadata in a file."""
VERSION = 1
PRECISIONS = ("fp32", "bf16", "int8")
MOST_DIVISIBLE = 1024
"""Pixels that a network's input may have to be a multiple of: images are padded to it."""
FROM_CHECKPOINT = ("selection", "karyotype", "card")
"""Parts of a checkpoint that are passed on as they are, None where it has none."""


class ExportMetadata(TypedDict):
    """What is known of an exported detector.

    Attributes:
        version: of this description.
        precision: ``fp32``, ``bf16`` or ``int8``: what it is run in.
        preset: name of the experiment, such as ``siamese_gia``.
        fingerprint: SHA-256 of the checkpoint file, hexadecimal.
        size_divisibility: what height and width of its input must be multiples of, in pixels.
        classes: names of the classes by index.
        test_augmentations: nodes with ``_target_``: how images were shown to it in tests.
        selection: which proposals are kept, settings of the checkpoint; None without.
        karyotype: the same of the karyotype logic.
        card: the checkpoint's model card.
    """

    version: int
    precision: str
    preset: str
    fingerprint: str
    size_divisibility: int
    classes: list[str]
    test_augmentations: list[dict[str, Any]]
    selection: dict[str, Any] | None
    karyotype: dict[str, Any] | None
    card: dict[str, Any] | None


def describe(
    content: dict[str, Any], path: str | Path, *, size_divisibility: int, precision: str
) -> ExportMetadata:
    """Describes the export of a checkpoint.

    Args:
        content: of :func:`~deepacc_d2.checkpoint.read_checkpoint`.
        path: of the checkpoint, for its fingerprint.
        size_divisibility: of its detector.
        precision: see :class:`ExportMetadata`.

    Raises:
        ConfigError: an unknown precision.
        DataError: the checkpoint does not say how it was shown images.
    """
    if precision not in PRECISIONS:
        raise ConfigError(f"precision {precision!r} is unknown: choose {', '.join(PRECISIONS)}")
    config = content["deepacc_config"]
    try:
        augmentations = list(config["scale"]["test_augmentations"])
    except (KeyError, TypeError) as error:
        raise DataError(f"checkpoint {path} has no scale.test_augmentations") from error
    passed_on = {name: content.get(name) for name in FROM_CHECKPOINT}
    return cast(
        ExportMetadata,
        {
            "version": VERSION,
            "precision": precision,
            "preset": str(config.get("preset", "")),
            "fingerprint": hashlib.sha256(Path(path).read_bytes()).hexdigest(),
            "size_divisibility": size_divisibility,
            "classes": list(CLASSES),
            "test_augmentations": augmentations,
            **passed_on,
        },
    )


def dump(metadata: ExportMetadata) -> str:
    """Returns the description as one line of JSON.

    Raises:
        DataError: the checkpoint's settings hold what JSON cannot.
    """
    try:
        return json.dumps(metadata, sort_keys=True)
    except (TypeError, ValueError) as error:
        raise DataError(f"the checkpoint's settings cannot be exported: {error}") from error


def parse(text: str | None, path: str | Path) -> ExportMetadata:
    """Reads a description.

    Args:
        text: of :func:`dump`; None if a file has none.
        path: of the file, for messages.

    Raises:
        DataError: the file is not of this project, or of a version or classes unknown here.
    """
    if text is None:
        raise DataError(f"model {path} was not written by `make export`")
    again = "export it again with this version"
    try:
        found = json.loads(text)
        version = found["version"]
    except (ValueError, TypeError, KeyError) as error:
        raise DataError(f"model {path} has a damaged description: {again}") from error
    if version != VERSION:
        raise DataError(
            f"model {path} has a description of version {version}, known is {VERSION}: {again}"
        )
    missing = ExportMetadata.__required_keys__ - found.keys()
    if missing:
        raise DataError(f"model {path} has a description without {min(missing)}: {again}")
    if found["classes"] != list(CLASSES):
        raise DataError(f"model {path} is of other classes than 1..22, X, Y")
    size = found["size_divisibility"]
    if found["precision"] not in PRECISIONS or size not in range(1, MOST_DIVISIBLE + 1):
        raise DataError(
            f"model {path} has a damaged description (precision {found['precision']!r}, size "
            f"divisibility {size!r}): {again}"
        )
    return cast(ExportMetadata, found)
