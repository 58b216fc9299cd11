"""A share of a job's images, for one task of many on a cluster."""

from __future__ import annotations

import heapq
import re
from collections import defaultdict
from collections.abc import Sequence

from deepacc_d2.errors import ConfigError
from deepacc_d2.prediction.inputs import Input


def part_of(inputs: Sequence[Input], part: str | None) -> list[Input]:
    """Returns the images of one part of a job, in their order.

    Each image is in exactly one part, and all images of a case are in the same one, as the
    karyotype of a case comes from all of its cells. Large cases are dealt out first, each to the
    part that has the fewest images, so that parts are about as large as each other.

    Args:
        inputs: all images of the job, the same for each part.
        part: ``3/100`` is the third of a hundred; None is all.

    Raises:
        ConfigError: it is no such text, or the part has no image.
    """
    if part is None:
        return list(inputs)
    match = re.fullmatch(r"([0-9]+)/([0-9]+)", str(part).strip())
    number, count = map(int, match.groups()) if match else (0, 0)
    if not 1 <= number <= count:
        raise ConfigError(f"part={part}: expected such as 3/100, the third of a hundred parts")
    cases: dict[tuple[str, str], list[int]] = defaultdict(list)
    for index, item in enumerate(inputs):
        key = ("image", item.name) if item.case_id is None else ("case", item.case_id)
        cases[key].append(index)
    if count > len(cases):
        kind = "cases" if any(kind == "case" for kind, _ in cases) else "images"
        raise ConfigError(f"part={part}: there are only {len(cases)} {kind}, take fewer parts")
    loads = [(0, each) for each in range(1, count + 1)]
    mine: list[int] = []
    for indices in sorted(cases.values(), key=lambda found: (-len(found), found[0])):
        load, each = heapq.heappop(loads)
        heapq.heappush(loads, (load + len(indices), each))
        if each == number:
            mine += indices
    return [inputs[index] for index in sorted(mine)]
