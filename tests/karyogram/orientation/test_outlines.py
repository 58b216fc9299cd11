from __future__ import annotations

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from deepacc_d2.data.synthetic.config import SyntheticConfig
from deepacc_d2.data.synthetic.render import render_metaphase
from deepacc_d2.errors import ConfigError
from deepacc_d2.images.rings import fill
from deepacc_d2.karyogram.orientation.outlines import outlines_by


def test_outlines_are_those_of_the_chromosomes_in_the_boxes() -> None:
    image, record = render_metaphase(SyntheticConfig(seed=3, box_margin=4), 0, 0)
    annotations = record["annotations"][:12]
    boxes = [(x, y, x + w, y + h) for x, y, w, h in (a["bbox"] for a in annotations)]
    outlines = outlines_by(None)(image, boxes)
    overlaps = []
    for number, annotation in enumerate(annotations):
        true = coco_mask.decode(annotation["segmentation"]).astype(bool)
        found = fill(outlines[number], image.shape)
        overlaps.append((found & true).sum() / (found | true).sum())
    assert np.median(overlaps) > 0.85
    assert outlines_by(None)(image, []) == {}


def test_a_detector_without_masks_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "deepacc_d2.karyogram.orientation.outlines.load_detector",
        lambda ckpt: type("Bare", (), {"instance_masks": None})(),
    )
    with pytest.raises(ConfigError, match="has no masks"):
        outlines_by(None)
