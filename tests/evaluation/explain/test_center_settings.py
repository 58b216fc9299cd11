from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from deepacc_d2.errors import ConfigError
from deepacc_d2.evaluation.explain import center_settings
from deepacc_d2.evaluation.explain.center_settings import try_settings
from deepacc_d2.modeling.branches import SiameseInferenceBranch


class Model(nn.Module):
    """Two images of random proposals; the heads are the branch alone."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.counts = [40, 30]
        self.x = 3 * torch.randn(70, 6, generator=generator)
        self.weight = torch.randn(25, 6, generator=generator)
        corner = 200 * torch.rand(70, 2, generator=generator)
        self.boxes = torch.cat([corner, corner + 30], dim=1)
        branch = SiameseInferenceBranch(24, delta=0.3)
        self.roi_heads = nn.Module()
        self.roi_heads.box_predictor = nn.Module()
        self.roi_heads.box_predictor.inference_branch = branch

    def logits(self) -> torch.Tensor:
        branch = self.roi_heads.box_predictor.inference_branch
        margin = 9 * F.linear(F.normalize(self.x), F.normalize(self.weight))
        return branch(self.x, margin, self.weight, self.counts, self.boxes)[0]


def test_each_setting_gives_what_a_detector_with_it_would_say(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = Model()

    def read_heads(found: Model, batch: object) -> list[SimpleNamespace]:
        found.logits()
        boxes = found.boxes.double().split(found.counts)
        return [SimpleNamespace(proposal_boxes=part.numpy()) for part in boxes]

    monkeypatch.setattr(center_settings, "read_heads", read_heads)
    # Chromosomes where every second proposal is, and one where there is none.
    rows = [*range(0, 40, 2), *range(41, 70, 2)]
    learned = F.linear(F.normalize(model.x), F.normalize(model.weight))
    labels = learned[rows, :24].argmax(dim=1).numpy()
    annotations = [
        {
            "id": n,
            "image_id": 1 if row < 40 else 2,
            "category_id": int(label) + 1,
            "bbox": [*(model.boxes[row, :2] + 0.5).tolist(), 30, 30],
            "area": 900,
        }
        for n, (row, label) in enumerate(zip(rows, labels, strict=True))
    ]
    annotations.append({**annotations[0], "id": 99, "bbox": [900, 900, 30, 30]})
    coco = {"images": [{"id": 1}, {"id": 2}], "annotations": annotations}
    settings = [{}, {"center": "pair", "center_share": 0.5}, {"center_share": 0.0}, {"delta": 0.9}]
    batch = [[{"image_id": 1}, {"image_id": 2}]]
    table = try_settings(model, batch, coco, settings, score_threshold=0.6)
    branch = model.roi_heads.box_predictor.inference_branch
    assert (branch.center, branch.center_share, branch.delta) == ("single", 1.0, 0.3)
    assert not branch._forward_pre_hooks
    assert table["chromosomes"].tolist() == [len(rows)] * 4
    assert table["delta"].tolist() == [0.3, 0.3, 0.3, 0.9]
    assert table["right"].nunique() > 1
    for setting, row in zip(settings, table.itertuples(), strict=True):
        other = Model()
        for name, value in setting.items():
            setattr(other.roi_heads.box_predictor.inference_branch, name, value)
        top, named = other.logits().softmax(dim=1)[rows].max(dim=1)
        hits = (named == torch.from_numpy(labels)).numpy()
        assert row.right == pytest.approx(100 * hits.mean())
        assert row.sure == pytest.approx(100 * (hits & (top >= 0.6).numpy()).mean())


def test_what_cannot_be_tried() -> None:
    with pytest.raises(ConfigError, match="no inference branch"):
        try_settings(nn.Linear(2, 2), [], {"images": [], "annotations": []}, [])
    with pytest.raises(ConfigError, match="center_share"):
        try_settings(Model(), [], {"images": [], "annotations": []}, [{"center_share": 2.0}])
