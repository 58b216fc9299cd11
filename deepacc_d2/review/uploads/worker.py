"""The process that predicts new images, apart from the server: JSON lines in, JSON lines out.

``python -m deepacc_d2.review.uploads.worker OUT [CHECKPOINT]``. Each line in names an image:
``{"id": 1, "path": ..., "name": ..., "case": ...}``. Lines out: ``{"ready": true}`` once, then
``{"id": 1}`` for a finished cell or ``{"id": 1, "error": ...}``; or ``{"fatal": ...}`` and the end.
The server stays free of torch, and a crash here costs one image.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deepacc_d2.errors import ConfigError, UserError
from deepacc_d2.images.read import read_image
from deepacc_d2.prediction.folder import OutputFolder
from deepacc_d2.prediction.outputs import check_suffixes, write_cell
from deepacc_d2.review.store.intake import read_job

if TYPE_CHECKING:
    from deepacc_d2.prediction.predictor import Predictor


def load(job: dict[str, Any], checkpoint: str) -> Predictor:
    """Loads the model of a job with the job's settings.

    Args:
        job: content of ``job.json``.
        checkpoint: path; empty for the included detector.

    Raises:
        ConfigError: it is another model, or it would not give what the job's other cells got.
        UserError: the checkpoint cannot be used.
    """
    from deepacc_d2.detection.detector import DEFAULT_CHECKPOINT, model_hash
    from deepacc_d2.prediction.predictor import load_predictor

    path = Path(checkpoint or DEFAULT_CHECKPOINT)
    model = job.get("model") or {}
    if not path.is_file():
        raise ConfigError(f"checkpoint {path} is not there: name it with --checkpoint")
    if model_hash(path) != model.get("sha256"):
        raise ConfigError(
            f"the results are of model {model.get('name')}, and {path} is another one: start the "
            "server with --checkpoint"
        )
    settings = job.get("settings") or {}
    predictor = load_predictor(
        path,
        precision=str(job.get("precision", "32-true")),
        normalize=bool((settings.get("view") or {}).get("normalize", True)),
        min_foreground=(settings.get("selection") or {}).get("min_foreground"),
        tta=(settings.get("selection") or {}).get("tta"),
        prior_strength=(settings.get("karyotype") or {}).get("prior_strength"),
    )
    if json.loads(json.dumps(predictor.settings(), default=str)) != settings:
        raise ConfigError(
            "the results were predicted with other settings or by another version: predict new "
            "images with make predict"
        )
    return predictor


def work(
    lines: Iterable[str],
    tell: Callable[[dict[str, Any]], None],
    folder: OutputFolder,
    job: dict[str, Any],
    predictor: Predictor,
) -> None:
    """Predicts and writes what each line names until there are no more."""
    drawings = job.get("drawings") or {}
    suffixes = check_suffixes(drawings.get("karyogram") or ())
    overlay = bool(drawings.get("overlay", False))
    for line in lines:
        item = json.loads(line)
        try:
            gray = read_image(item["path"]).gray
            cell = predictor.cell(gray, name=item["name"], path=item["path"], case_id=item["case"])
            write_cell(folder, gray, cell, overlay=overlay, karyogram=suffixes)
        except UserError as error:
            tell({"id": item["id"], "error": str(error)})
        except OSError as error:
            text = f"its results cannot be written ({error.strerror or error}): free some space"
            tell({"id": item["id"], "error": text})
        except MemoryError:
            tell({"id": item["id"], "error": "it needs more memory than there is"})
        except Exception as error:  # one picture must not stop the others
            text = f"it cannot be predicted ({type(error).__name__}: {error}): please report this"
            tell({"id": item["id"], "error": text})
        else:
            tell({"id": item["id"]})


def main(arguments: list[str]) -> int:
    """Runs the process; see the module's head."""

    def tell(message: dict[str, Any]) -> None:
        print(json.dumps(message), file=answers, flush=True)

    # What libraries print must not be taken for an answer.
    answers, sys.stdout = sys.stdout, sys.stderr
    root = Path(arguments[0])
    try:
        job = read_job(root)
        predictor = load(job, arguments[1] if len(arguments) > 1 else "")
    except UserError as error:
        tell({"fatal": str(error)})
        return 2
    tell({"ready": True})
    work(sys.stdin, tell, OutputFolder(root), job, predictor)
    return 0


if __name__ == "__main__":
    if hasattr(os, "nice"):
        os.nice(5)  # pages come first
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
