"""Several data sets in the internal format, read as one: own cells together with public ones.

The order in which they are named makes no difference: images follow the sets' fingerprints. Image
and annotation ids are numbered anew, since sets repeat them.
"""

from __future__ import annotations

import hashlib
import itertools
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from deepacc_d2.chromosomes import coco_categories
from deepacc_d2.data.dataset import DatasetInfo, read_info, read_split, to_dicts
from deepacc_d2.data.splits import SPLITS
from deepacc_d2.errors import ConfigError, DataError


@dataclass(frozen=True)
class Member:
    """One of the sets.

    Attributes:
        info: what it says of itself.
        weight: how often each of its training images is seen in an epoch.
        splits: by name, its COCO splits; one that it lacks has no image.
    """

    info: DatasetInfo
    weight: float
    splits: dict[str, dict[str, Any]]


@dataclass(frozen=True)
class DataSets:
    """One or several data sets. One with weight 1 is read as it is.

    Attributes:
        roots: their directories.
        weights: of each, how often its training images are seen in an epoch: 2 is twice, 0.5 a
            half of them, 0 leaves its training images out.
        own_cases: a case of the same name in two sets is another patient.
    """

    roots: tuple[Path, ...]
    weights: tuple[float, ...]
    own_cases: bool = False

    @classmethod
    def of(
        cls,
        root: str | Path | Sequence[str | Path],
        weights: Sequence[float] | None = None,
        cases: str = "shared",
    ) -> DataSets:
        """Checks what a config says.

        Args:
            root: a directory, or several.
            weights: one for each; null for 1.
            cases: ``shared`` or ``own``, see ``own_cases``.

        Raises:
            ConfigError: no directory, one twice, weights that do not fit.
        """
        roots = tuple(map(Path, [root] if isinstance(root, str | Path) else map(str, root)))
        if not roots:
            raise ConfigError("data.root is an empty list: name at least one data set")
        if len({path.resolve() for path in roots}) < len(roots):
            raise ConfigError(
                f"a data set is named twice in {', '.join(map(str, roots))}: to see its images "
                "more often, give it a weight (data.weights)"
            )
        if weights is None:
            weights = [1.0] * len(roots)
        if not isinstance(weights, Sequence) or len(weights) != len(roots):
            raise ConfigError(
                f"data.weights={weights}: {len(roots)} data set(s) need a list of as many weights"
            )
        sound = all(
            isinstance(w, int | float) and math.isfinite(w) and w >= 0 and not isinstance(w, bool)
            for w in weights
        )
        if not sound or not any(weights):
            raise ConfigError(
                f"data.weights={list(weights)}: expected numbers of at least 0, such as [1,0.5], "
                "and one above it"
            )
        if cases not in ("shared", "own"):
            raise ConfigError(f"data.cases={cases}: choose shared or own")
        return cls(roots, tuple(map(float, weights)), cases == "own")

    @property
    def weighted(self) -> bool:
        """Whether an epoch is anything else than each training image once."""
        return any(weight != 1 for weight in self.weights)

    @property
    def several(self) -> bool:
        """Whether there is more than one."""
        return len(self.roots) > 1

    @property
    def images(self) -> Path:
        """The folder that ``file_name`` of :meth:`split` is relative to."""
        if not self.several:
            return self.roots[0] / "images"
        return Path(os.path.commonpath([path.absolute() for path in self.roots]))

    def info(self) -> DatasetInfo:
        """Returns the facts of all sets together.

        Gray levels are those that an epoch sees: each set counts by its training pixels times its
        weight. The fingerprint is of the sets' own and of weights other than 1.

        Raises:
            DataError: one is no data set; they may not be trained on together.
        """
        if not self.several and not self.weighted:
            return read_info(self.roots[0])
        members = self._members
        mean, std = _gray_levels(members)
        prints = [
            member.info.fingerprint + (f" {member.weight!r}" if self.weighted else "")
            for member in members
        ]
        merged = self._merged if self.several else members[0].splits
        return DatasetInfo(
            root=self.images if self.several else self.roots[0],
            name="+".join(self._names()),
            fingerprint=hashlib.sha256("\n".join(prints).encode()).hexdigest(),
            pixel_mean=mean,
            pixel_std=std,
            counts={split: len(merged[split]["images"]) for split in SPLITS},
        )

    def facts(self) -> dict[str, Any]:
        """Returns what a run's record says of its data: name, root (or roots) and fingerprint."""
        info = self.info()
        roots = [str(path) for path in self.roots]
        facts: dict[str, Any] = {"name": info.name, "root": roots if self.several else roots[0]}
        if self.weighted:
            facts["weights"] = list(self.weights)
        return {**facts, "fingerprint": info.fingerprint}

    def split(self, split: str) -> dict[str, Any]:
        """Returns the COCO dict of one split of all sets.

        Raises:
            DataError: none of them has that split; see also :meth:`info`.
        """
        if not self.several:
            return read_split(self.roots[0], split)
        coco = self._merged[split]
        if not coco["images"]:
            raise DataError(f"none of {', '.join(map(str, self.roots))} has a {split} split")
        return coco

    def dicts(self, coco: dict[str, Any]) -> list[dict[str, Any]]:
        """Returns dataset dicts, see :func:`~deepacc_d2.data.dataset.to_dicts`, of a split."""
        return to_dicts(coco, " and ".join(map(str, self.roots)), images=self.images)

    def train_parts(self) -> list[tuple[int, float]]:
        """Returns number of images and weight of each set, in the order of the train split."""
        return [(len(m.splits["train"]["images"]), m.weight) for m in self._members]

    @cached_property
    def _members(self) -> list[Member]:
        members = []
        for root, weight in zip(self.roots, self.weights, strict=True):
            splits = {split: read_split(root, split, may_lack=True) for split in SPLITS}
            if not weight:
                splits["train"] = {**splits["train"], "images": [], "annotations": []}
            members.append(Member(read_info(root), weight, splits))
        members.sort(key=lambda member: member.info.fingerprint)
        for one, next_one in itertools.pairwise(members):
            if one.info.fingerprint == next_one.info.fingerprint:
                raise DataError(
                    f"{one.info.root} and {next_one.info.root} are copies of one data set: leave "
                    "one out; to see its images more often, give it a weight (data.weights)"
                )
        return members

    @cached_property
    def _merged(self) -> dict[str, dict[str, Any]]:
        check_apart(self._members, own_cases=self.own_cases)
        numbers = itertools.count(1)
        return {split: self._merge(split, numbers) for split in SPLITS}

    def _merge(self, split: str, numbers: Iterator[int]) -> dict[str, Any]:
        """Image ids count over all splits, so that they are unique in the whole."""
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        for member in self._members:
            coco, root = member.splits[split], member.info.root
            folder = (root.absolute() / "images").relative_to(self.images)
            try:
                ids = {old: next(numbers) for old in dict.fromkeys(i["id"] for i in coco["images"])}
                images += [
                    {**i, "id": ids[i["id"]], "file_name": str(folder / i["file_name"])}
                    for i in coco["images"]
                ]
                annotations += [
                    {**a, "id": n, "image_id": ids[a["image_id"]]}
                    for n, a in enumerate(coco["annotations"], start=len(annotations) + 1)
                ]
            except (KeyError, TypeError) as error:
                raise DataError(
                    f"an image or annotation of {split} in {root} lacks or garbles {error}: run "
                    "`make data-check` on it"
                ) from error
        return {"images": images, "annotations": annotations, "categories": coco_categories()}

    def _names(self) -> list[str]:
        names = {member.info.root: member.info.name for member in self._members}
        return [names[root] for root in self.roots]


def check_apart(members: Sequence[Member], *, own_cases: bool = False) -> None:
    """Checks that no set trains on what another one validates or tests on.

    What a set does within itself is its own: official lists may share cases.

    Args:
        members: the sets.
        own_cases: do not compare cases, only images.

    Raises:
        DataError: names the first case, or byte-identical image, that is in other splits of
            another set.
    """
    if not own_cases:
        found = list(_parted(members, "case_id"))
        if found:
            (case, one, other), rest = found[0], len(found) - 1
            raise DataError(
                f"case {case} is in {_where(one)} and in {_where(other)}"
                f"{f' ({rest} more cases alike)' if rest else ''}: convert the sets together, so "
                "that each case has one split, or pass data.cases=own if these are different "
                "patients of the same name"
            )
    found = list(_parted(members, "sha256"))
    if found:
        (_, one, other), rest = found[0], len(found) - 1
        raise DataError(
            f"image {one[2]} in {_where(one)} is byte for byte {other[2]} in {_where(other)}"
            f"{f' ({rest} more alike)' if rest else ''}: take it out of one of them and convert "
            "that anew"
        )


Place = tuple[Member, str, str]
"""A set, a split, and the file name of an image there."""


def _where(place: Place) -> str:
    return f"{place[1]} of {place[0].info.root}"


def _parted(members: Sequence[Member], key: str) -> Iterator[tuple[str, Place, Place]]:
    """Gives what is in different splits of different sets, each with two such places."""
    places: dict[str, dict[tuple[int, str], Place]] = {}
    for split in SPLITS:
        for number, member in enumerate(members):
            for image in member.splits[split]["images"]:
                if image.get(key):
                    own = places.setdefault(str(image[key]), {})
                    own.setdefault((number, split), (member, split, str(image.get("file_name"))))
    for value, own in sorted(places.items()):
        for (a, b), (c, d) in itertools.combinations(own, 2):
            if a != c and b != d:
                yield value, own[a, b], own[c, d]
                break


def _gray_levels(members: Sequence[Member]) -> tuple[float, float]:
    """Returns mean and standard deviation over the training pixels, each as often as it is seen.

    Raises:
        DataError: there is no training image.
    """
    total = mean = square = 0.0
    for member in members:
        pixels = sum(i["width"] * i["height"] for i in member.splits["train"]["images"])
        if pixels and member.weight:
            seen = member.weight * pixels
            total += seen
            mean += seen * member.info.pixel_mean
            square += seen * (member.info.pixel_std**2 + member.info.pixel_mean**2)
    if not total:
        roots = ", ".join(str(member.info.root) for member in members)
        raise DataError(f"none of {roots} has a train split")
    mean /= total
    return mean, math.sqrt(max(square / total - mean**2, 0.0))
