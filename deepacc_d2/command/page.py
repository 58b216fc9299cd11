"""Writes the table into docs/COMMAND.md: ``python -m deepacc_d2.command.page``."""

from __future__ import annotations

from pathlib import Path

from deepacc_d2.command.text import markdown

START = "<!-- made by `python -m deepacc_d2.command.page` -->\n"
END = "<!-- end -->\n"


def with_table(page: str) -> str:
    """Returns the page with the table of today between its two marks."""
    before, _, rest = page.partition(START)
    after = rest.partition(END)[2]
    return f"{before}{START}\n{markdown()}\n{END}{after}"


if __name__ == "__main__":
    path = Path(__file__).resolve().parents[2] / "docs" / "COMMAND.md"
    path.write_text(with_table(path.read_text(encoding="utf-8")), encoding="utf-8")
