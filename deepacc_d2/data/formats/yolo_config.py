"""``data.yaml`` of a YOLO data set: names are text, and no key counts twice."""

from __future__ import annotations

import os
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from deepacc_d2.errors import DataError
from deepacc_d2.text import read_text


class _TextLoader(yaml.SafeLoader):
    """Reads every plain word but null as the text it is: to YAML, 010 is the number 8."""

    yaml_implicit_resolvers = {  # noqa: RUF012 - as PyYAML has it
        first: [(tag, pattern) for tag, pattern in resolvers if tag.endswith((":null", ":merge"))]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """Refuses a key that is there twice, of which the last would count."""
        seen: set[Hashable] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, Hashable) and key in seen and key_node.tag != _MERGE:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} is there twice", key_node.start_mark
                )
            seen.add(key if isinstance(key, Hashable) else None)
        return super().construct_mapping(node, deep)


_MERGE = "tag:yaml.org,2002:merge"


def read_config(src: Path) -> tuple[Path, dict[str, Any]]:
    """Returns path and content of ``data.yaml``, all of whose scalars are text or None.

    Where there is none, ``classes.txt``, as Label Studio and LabelImg write it, gives the names.

    Raises:
        DataError: there is neither, or it is no mapping.
    """
    paths = [src / name for name in ("data.yaml", "data.yml", "dataset.yaml")]
    path = next((path for path in paths if path.is_file()), None)
    if path is None:
        return _read_classes(src)
    try:
        config = yaml.load(read_text(path), Loader=_TextLoader)
    except (yaml.YAMLError, RecursionError) as error:
        raise DataError(f"{path} is no valid YAML ({' '.join(str(error).split())})") from None
    if not isinstance(config, dict):
        raise DataError(f"{path} must map names, train, val and test")
    return path, config


def _read_classes(src: Path) -> tuple[Path, dict[str, Any]]:
    paths = [src / "classes.txt", src / "labels" / "classes.txt", src / "obj.names"]
    path = next((path for path in paths if path.is_file()), None)
    if path is None:
        raise DataError(
            f"{src / 'data.yaml'} is missing: FORMAT=yolo needs it, or classes.txt, for the names "
            "of the classes"
        )
    return path, {"names": [line.strip() for line in read_text(path).rstrip().splitlines()]}


def class_names(config: dict[str, Any], path: Path) -> dict[int, str]:
    """Returns the name of each class index, as it is written.

    Raises:
        DataError: there are no names, or an index has two.
    """
    names = config.get("names")
    if isinstance(names, list):
        return {index: str(name) for index, name in enumerate(names)}
    found: dict[int, str] = {}
    try:
        for key, name in (names if isinstance(names, dict) else {}).items():
            if found.setdefault(int(key), str(name)) != str(name):
                raise DataError(f"{path}: index {int(key)} has two names: keep one")
    except (TypeError, ValueError):
        found = {}
    if not found:
        raise DataError(f"{path} has no list 'names': FORMAT=yolo needs the names of the classes")
    return found


def keypoint_values(config: dict[str, Any], path: Path) -> int:
    """Returns how many numbers of keypoints follow each box, 0 for none.

    Raises:
        DataError: ``kpt_shape`` is not two numbers.
    """
    shape = config.get("kpt_shape")
    if shape is None:
        return 0
    try:
        count, dimensions = (int(value) for value in shape)
    except (TypeError, ValueError):
        raise DataError(f"{path}: kpt_shape {shape} must be two numbers, such as [17, 3]") from None
    return count * dimensions


def resolve(text: str, config: dict[str, Any], config_path: Path) -> Path | None:
    """Finds a path of data.yaml, which tools write relative to ``path`` or to the YAML file."""
    here = config_path.parent
    text = text.replace("\\", "/")
    # Roboflow writes ../train/images though the folder is next to the YAML file
    bases = [here / str(config.get("path") or ""), here]
    tries = [base / text for base in bases] + [here / text.removeprefix("../")]
    return next((path for path in tries if os.path.exists(path)), None)  # noqa: PTH110
