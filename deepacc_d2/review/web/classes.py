"""The route of what never changes: classes, their groups, colors, rows and ideograms."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Response

from deepacc_d2.chromosomes import CLASSES, GROUP_OF
from deepacc_d2.ideogram import load_ideograms
from deepacc_d2.karyogram.layout import ROWS
from deepacc_d2.palette import GROUP_COLORS
from deepacc_d2.review.web.context import By

router = APIRouter(tags=["classes"])


@router.get("/classes")
def get_classes(by: By, response: Response) -> dict[str, Any]:
    """Returns the 24 classes as pages draw them."""
    response.headers["Cache-Control"] = "private, max-age=3600"
    return {
        "classes": CLASSES,
        "groups": GROUP_OF,
        "colors": GROUP_COLORS,
        "rows": ROWS,
        "ideograms": {
            name: {
                "length": round(ideogram.length, 4),
                "centromere": round(ideogram.centromere, 4),
                "edges": [round(float(edge), 4) for edge in ideogram.edges],
                "stains": [band.stain for band in ideogram.bands],
                "names": [f"{name}{band.arm}{band.name}" for band in ideogram.bands],
            }
            for name, ideogram in load_ideograms().items()
        },
    }
