"""``make compare``: runs side by side, as a table, files for machines and a page with plots."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from deepacc_d2.command.flags import build_parser
from deepacc_d2.errors import DataError, run_cli
from deepacc_d2.evaluation.comparison.figures import build_figures
from deepacc_d2.evaluation.comparison.intervals import with_intervals
from deepacc_d2.evaluation.comparison.page import build_page
from deepacc_d2.evaluation.comparison.result import Comparison, build_comparison, to_dict
from deepacc_d2.evaluation.comparison.runs import find_runs, read_runs
from deepacc_d2.evaluation.comparison.text import format_comparison, table_csv
from deepacc_d2.files import whole_file, write_json, write_text
from deepacc_d2.sole_use import sole_use
from deepacc_lightning.core.run_info import make_run_dir

RESAMPLES = 1000
"""Bootstrap resamples of the test cases, by default."""


def compare(
    runs: Sequence[Path],
    out: Path,
    *,
    title: str = "",
    by: Sequence[str] = (),
    reference: str | None = None,
    resamples: int = RESAMPLES,
) -> list[Path]:
    """Compares runs, prints the table and writes all files of the comparison.

    Args:
        runs: directories of runs, or above runs, or shell patterns of such.
        out: directory of the comparison; files of an earlier one are replaced.
        title: of the page.
        by: keys to group by; by default all that vary but the seed.
        reference: group to compare the others with; by default that of ``sep``, else the first.
        resamples: of the paired bootstrap over test cases; 0 to leave it out.

    Returns:
        The files: ``compare.csv``, ``compare.json``, ``compare.html`` and ``images/*.png``.

    Raises:
        DataError: a path does not exist, no run is there, or none of them can be compared.
        ConfigError: an unknown key or reference, or ``out`` cannot be written to.
    """
    found, left_out = read_runs(find_runs(runs))
    if not found:
        first = left_out[0]
        raise DataError(
            f"none of {len(left_out)} runs can be compared, first {first.path}: {first.state}, "
            f"{first.reason}"
        )
    comparison = build_comparison(found, left_out, title=title, by=by, reference=reference)
    with sole_use(out):
        folder = make_run_dir(out)
        comparison = with_intervals(comparison, resamples)
        print(format_comparison(comparison), flush=True)
        files = write(comparison, folder)
    print("\n" + "\n".join(f"comparison       {path}" for path in files), flush=True)
    return files


def write(comparison: Comparison, folder: Path) -> list[Path]:
    """Writes the files of a comparison, each whole or not at all; numbers come first."""
    table = folder / "compare.csv"
    write_text(table, table_csv(comparison))
    content = folder / "compare.json"
    write_json(content, to_dict(comparison))
    page = folder / "compare.html"
    write_text(page, build_page(comparison))
    return [table, content, page, *draw(comparison, folder / "images")]


def draw(comparison: Comparison, folder: Path) -> list[Path]:
    """Writes the still figures of a comparison; those of an earlier one are removed."""
    make_run_dir(folder)
    drawers = build_figures(comparison)
    for path in folder.glob("*.png"):
        if path.name not in drawers and path.name.startswith(("groups", "curves", "sensitivity_")):
            path.unlink()
    paths = []
    for name, plot in drawers.items():
        with whole_file(folder / name) as temporary:
            plot().savefig(temporary, format="png", dpi=110)
        paths.append(folder / name)
    return paths


def main(argv: list[str] | None = None) -> int:
    """Parses the command line and compares."""
    args = build_parser("compare").parse_args(argv)
    by = [name for name in (args.by or "").replace(",", " ").split() if name]
    compare(
        args.runs,
        args.out,
        title=args.title or "",
        by=by,
        reference=args.ref or None,
        resamples=args.resamples,
    )
    return 0


if __name__ == "__main__":
    run_cli(main)
