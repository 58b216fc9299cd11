"""What a laboratory gave for its worksheets, kept with a job's results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from deepacc_d2.cell import Cell
from deepacc_d2.errors import DataError
from deepacc_d2.files import read_json, write_json
from deepacc_d2.worksheet.places import NAME_PATTERN, Spot, name_pattern, spot_of
from deepacc_d2.worksheet.sheet import Facts
from deepacc_d2.worksheet.tables import read_cells, read_headers

FILE = "laboratory.json"


@dataclass(frozen=True)
class Laboratory:
    """What worksheets are filled with besides the results.

    Attributes:
        headers: by case; see :func:`deepacc_d2.worksheet.tables.read_headers`.
        cells: by an image's stem; see :func:`deepacc_d2.worksheet.tables.read_cells`.
        pattern: of file names that tell slide and coordinates.
    """

    headers: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    cells: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    pattern: str = NAME_PATTERN

    @classmethod
    def read(
        cls,
        headers: str | Path | None = None,
        cells: str | Path | None = None,
        pattern: str | None = None,
    ) -> Laboratory:
        """Reads a laboratory's tables, each of which may be missing.

        Raises:
            UserError: one cannot be read, or is another table; or a pattern is none.
        """
        return cls(
            {} if headers is None else read_headers(headers),
            {} if cells is None else read_cells(cells),
            name_pattern(pattern).pattern,
        )

    def save(self, root: Path) -> None:
        """Writes it into a job's folder."""
        write_json(root / FILE, asdict(self), indent=1)

    def facts(self, case_id: str, cells: Sequence[Cell]) -> Facts:
        """Returns what it tells of a case and its cells."""
        pattern = name_pattern(self.pattern)
        spots = {}
        for cell in cells:
            row = self.cells.get(cell.name) or self.cells.get(Path(cell.path).stem)
            spots[cell.name] = spot_of(cell.path, row, pattern)
        return Facts(self.headers.get(case_id, {}), spots)


def laboratory_of(root: Path) -> Laboratory:
    """Returns what a job's folder has; nothing where it has none.

    Raises:
        DataError: its file is damaged.
    """
    path = root / FILE
    if not path.is_file():
        return Laboratory()
    content = read_json(path)
    try:
        return Laboratory(dict(content["headers"]), dict(content["cells"]), str(content["pattern"]))
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path} is damaged ({error!r}): remove it") from None


def with_people(
    spots: Mapping[str, Spot], people: Mapping[str, tuple[str, str]]
) -> dict[str, Spot]:
    """Returns where cells are, with level and reviewer as a review has them.

    Args:
        spots: by cell.
        people: by cell, the level that a person confirmed it at, and who.
    """
    return {
        name: Spot(spot.slide, spot.coordinates, *people.get(name, ("", "")))
        for name, spot in spots.items()
    }
