"""Command line: ``python -m deepacc_d2.data.synthetic --out DIR``."""

from __future__ import annotations

import argparse
import dataclasses

from deepacc_d2.data.synthetic.config import SyntheticConfig
from deepacc_d2.data.synthetic.dataset import DEFAULT_SPLITS, write_dataset
from deepacc_d2.data.synthetic.preview import write_preview
from deepacc_d2.errors import run_cli


def _parser() -> argparse.ArgumentParser:
    """Options: the splits' sizes and every field of SyntheticConfig."""
    parser = argparse.ArgumentParser(
        prog="python -m deepacc_d2.data.synthetic",
        description="Draw a data set of synthetic G-banded metaphases.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    target = parser.add_mutually_exclusive_group(required=True)
    target.add_argument("--out", help="folder to make")
    target.add_argument("--preview", metavar="PNG", help="only draw six spreads into one picture")
    parser.add_argument("--truth", action="store_true", help="preview: draw the ground truth too")
    for split, count in DEFAULT_SPLITS.items():
        parser.add_argument(f"--{split}", type=int, default=count, help=f"{split} images")
    for field in dataclasses.fields(SyntheticConfig):
        flag = "--" + field.name.replace("_", "-")
        if field.name == "size":
            parser.add_argument(
                flag, type=int, nargs=2, default=field.default, metavar=("W", "H"), help="pixels"
            )
        else:
            parser.add_argument(
                flag, type=type(field.default), default=field.default, help="see SyntheticConfig"
            )
    parser.add_argument("--workers", type=int, default=None, help="processes; default: all cores")
    return parser


def main() -> int:
    """Writes the data set or the preview and prints where it is."""
    options = vars(_parser().parse_args())
    out, workers = options.pop("out"), options.pop("workers")
    preview, truth = options.pop("preview"), options.pop("truth")
    splits = {split: options.pop(split) for split in DEFAULT_SPLITS}
    options["size"] = tuple(options["size"])
    config = SyntheticConfig(**options)
    if preview is not None:
        write_preview(preview, config, truth=truth)
        print(preview)
        return 0
    info = write_dataset(out, config, splits, num_workers=workers)
    counts = ", ".join(f"{count} {split}" for split, count in info["counts"].items())
    print(f"{out}: {counts} images, fingerprint {info['fingerprint'][:12]}")
    return 0


if __name__ == "__main__":
    run_cli(main)
