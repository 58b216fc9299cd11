from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling.anchor_generator import DefaultAnchorGenerator
from detectron2.modeling.box_regression import Box2BoxTransform
from detectron2.modeling.matcher import Matcher
from detectron2.modeling.poolers import ROIPooler
from detectron2.modeling.proposal_generator import RPN, StandardRPNHead
from matplotlib.colors import to_rgba
from torch import nn

from deepacc_d2.cell import LEFT_OUT, UNIDENTIFIED
from deepacc_d2.errors import ConfigError
from deepacc_d2.evaluation.explain.analysis import branch_view, explain, project
from deepacc_d2.evaluation.explain.explanation import BACKGROUND, format_explanation
from deepacc_d2.evaluation.explain.head_outputs import HeadOutput, read_heads
from deepacc_d2.evaluation.explain.panels import OUTCOME_COLORS
from deepacc_d2.evaluation.explain.plot import plot_explanation
from deepacc_d2.evaluation.label_layout import place_labels
from deepacc_d2.modeling import (
    BoxPredictor,
    ChromosomeRCNN,
    ChromosomeROIHeads,
    SeparatedBoxHead,
    build_resnet,
    build_resnet_fpn,
)
from deepacc_d2.modeling.branches import AngularMarginBranch, SiameseInferenceBranch
from deepacc_d2.modeling.deepacc_predictor import DeepACCPredictor
from deepacc_d2.modeling.roi_heads import DeepACCROIHeads

K, D = 24, 24


def make_model(preset: str, *, delta: float = 0.0, **centers: Any) -> ChromosomeRCNN:
    torch.manual_seed(0)
    trunk = build_resnet(
        depth=18,
        in_channels=1,
        stem_channels=8,
        res2_channels=8,
        out_features=("res3",),
        norm="BN",
        freeze_at=0,
    )
    anchors = {"sizes": [[16, 24]], "aspect_ratios": [[1.0]], "strides": [8]}
    deep = preset != "sep"
    options: dict[str, Any] = {
        "box2box_transform": Box2BoxTransform(weights=(10.0, 10.0, 5.0, 5.0)),
        "num_classes": K,
        "test_score_thresh": 0.0,
    }
    if deep:
        # A small scale: an untrained model whose scores still vary.
        options["margin_branch"] = AngularMarginBranch(D, K, m=0.25, s=20.0)
    if preset == "siamese_aam":
        options["inference_branch"] = SiameseInferenceBranch(K, delta=delta, **centers)
    return ChromosomeRCNN(
        backbone=build_resnet_fpn(bottom_up=trunk, out_channels=16, top_block=None),
        proposal_generator=RPN(
            in_features=["p3"],
            head=StandardRPNHead(in_channels=16, num_anchors=2),
            anchor_generator=DefaultAnchorGenerator(**anchors),
            anchor_matcher=Matcher([0.3, 0.7], [0, -1, 1]),
            box2box_transform=Box2BoxTransform(weights=(1.0, 1.0, 1.0, 1.0)),
            batch_size_per_image=16,
            positive_fraction=0.5,
            pre_nms_topk=(60, 60),
            post_nms_topk=(30, 30),
        ),
        roi_heads=(DeepACCROIHeads if deep else ChromosomeROIHeads)(
            num_classes=K,
            batch_size_per_image=16,
            positive_fraction=0.5,
            proposal_matcher=Matcher([0.5], [0, 1]),
            box_in_features=["p3"],
            box_pooler=ROIPooler(5, [1 / 8], 2, "ROIAlignV2"),
            box_head=SeparatedBoxHead(
                ShapeSpec(channels=16, height=5, width=5), conv_dims=[], fc_dims=[D, D]
            ),
            box_predictor=(DeepACCPredictor if deep else BoxPredictor)(
                ShapeSpec(channels=D), **options
            ),
        ),
        pixel_mean=[100.0],
        pixel_std=[50.0],
    ).eval()


@pytest.fixture
def item() -> dict[str, Any]:
    pixels = torch.randint(0, 255, (1, 96, 128), generator=torch.Generator().manual_seed(1))
    # The original is larger, and not by the same factor in both directions.
    return {"image": pixels.byte(), "image_id": 1, "height": 144, "width": 256}


def hand_made(**changes: Any) -> HeadOutput:
    """Four proposals: right by both branches, rescued, lost by inference, and background."""
    boxes = np.array([[0, 0, 20, 40], [40, 0, 60, 40], [80, 0, 100, 40], [120, 0, 140, 40]])
    margin, inference = np.full((4, K + 1), 1e-3), np.full((4, K + 1), 1e-3)
    for row, (before, after) in enumerate([(0, 0), (20, 21), (4, BACKGROUND), (BACKGROUND,) * 2]):
        margin[row, before] = inference[row, after] = 0.9
    inference[1, 21] = 0.7
    source = np.full(K, -1)
    source[[0, 4, 20]] = [0, 2, 1]
    features = np.eye(4, D)
    centers = np.eye(K, D)
    local = np.where((source >= 0)[:, None], features[source], centers)
    content = {
        "proposal_boxes": boxes.astype(float),
        "boxes": np.repeat(boxes[:, None].astype(float), K, axis=1),
        "result": inference,
        "margin": margin,
        "inference": inference,
        "features": features,
        "global_centers": centers,
        "local_centers": local,
        "source": source,
        "delta": 0.5,
    }
    return HeadOutput(**{**content, **changes})


GT_BOXES = np.array([[1, 0, 20, 40], [40, 1, 60, 40], [80, 0, 100, 38], [200, 0, 220, 40]])
GT_CLASSES = np.array([0, 21, 4, 7])
KEPT = np.array([0, 1])


def test_rows_branches_truth_and_centers_of_a_known_image() -> None:
    found = explain(hand_made(), KEPT, GT_BOXES, GT_CLASSES)
    # Detections by score, then what only the margin branch is sure of; background is no row.
    assert found.boxes[:, 0].tolist() == [0, 40, 80]
    assert found.detected.tolist() == [True, True, False]
    assert found.margin.classes.tolist() == [0, 20, 4]
    assert found.inference.classes.tolist() == [0, 21, BACKGROUND]
    assert found.inference.scores.tolist() == [0.9, 0.7, 0.9]
    assert found.true_classes.tolist() == [0, 21, 4]
    assert found.missed.tolist() == [False, False, True, True]
    assert found.differs.tolist() == [False, True, True]
    assert [found.outcome(1), found.outcome(2)] == ["rescued", "broken"]
    centers = found.centers
    assert np.flatnonzero(centers.local).tolist() == [0, 4, 20]
    assert centers.boxes[[0, 4, 20], 0].tolist() == [0, 80, 40]
    assert np.isnan(centers.boxes[1]).all()
    assert centers.scores[[0, 4, 20, 7]].tolist() == [0.9, 0.9, 0.9, 1e-3]
    assert centers.rows[[0, 4, 20]].tolist() == [0, 2, 1]
    # Class 21 (index 20) has a chromosome of class 22 as its center.
    assert centers.true_classes[[0, 4, 20]].tolist() == [0, 4, 21]
    assert np.flatnonzero(centers.wrong).tolist() == [20]


def test_without_truth_nothing_is_called_right_or_wrong() -> None:
    found = explain(hand_made(), KEPT)
    assert found.true_classes is None
    assert found.missed is None
    assert found.outcome(1) == "truth unknown"
    assert not found.centers.wrong.any()


def test_an_overlapped_proposal_is_no_row_but_a_part_of_a_chromosome_is_background() -> None:
    boxes = hand_made().boxes.copy()
    boxes[1] = [0, 0, 20, 38]  # IoU 0.95 with the first
    boxes[2] = [0, 0, 20, 18]  # IoU 0.45
    found = explain(hand_made(boxes=boxes), KEPT[:1], GT_BOXES, GT_CLASSES)
    assert found.boxes.tolist() == [[0, 0, 20, 40], [0, 0, 20, 18]]
    assert found.true_classes.tolist() == [0, BACKGROUND]
    assert found.outcome(1) == "rescued"  # the margin branch would have reported a duplicate


def test_class_of_a_branch_is_background_only_below_the_threshold() -> None:
    scores = np.full((3, K + 1), 0.0)
    scores[0, [3, -1]] = [0.3, 0.6]
    scores[1, [3, -1]] = [0.45, 0.2]
    scores[2, [3, -1]] = [0.6, 0.4]
    assert branch_view(scores, 0.5).classes.tolist() == [BACKGROUND, 3, 3]
    assert branch_view(scores, 0.5).scores.tolist() == [0.6, 0.45, 0.6]
    assert branch_view(scores, 0.2).classes.tolist() == [3, 3, 3]


def test_projection_is_pca_with_a_sign_that_does_not_depend_on_the_solver() -> None:
    rng = np.random.default_rng(0)
    x, other = rng.normal(size=(40, 6)) * [5, 3, 1, 1, 1, 1], rng.normal(size=(3, 6))
    (points, others), shares = project(x, [x, other])
    values, vectors = np.linalg.eigh(np.cov(x.T))
    for axis, column in enumerate((-1, -2)):
        v = vectors[:, column]
        v = v if v[np.abs(v).argmax()] > 0 else -v
        np.testing.assert_allclose(points[:, axis], (x - x.mean(0)) @ v, atol=1e-9)
        np.testing.assert_allclose(others[:, axis], (other - x.mean(0)) @ v, atol=1e-9)
        assert shares[axis] == pytest.approx(values[column] / values.sum())


@pytest.mark.parametrize("count", [1, 2])
def test_projection_of_too_few_vectors_has_a_flat_axis(count: int) -> None:
    (points,), shares = project(np.eye(2, 5)[:count], [np.eye(2, 5)[:count]])
    assert points.shape == (count, 2)
    assert (points[:, 1] == 0).all() or np.allclose(points[:, 1], 0)
    assert shares.tolist() == pytest.approx([float(count - 1), 0.0])


@pytest.mark.parametrize("preset", ["sep", "aam", "siamese_aam"])
def test_rows_are_the_models_proposals(preset: str, item: dict[str, Any]) -> None:
    model = make_model(preset)
    with torch.no_grad():
        proposals = model([item])[0]["proposals"]
    heads = read_heads(model, [item])[0]
    assert len(heads.result) == len(proposals) > 2
    kept = np.array([2, 0])
    found = explain(heads, kept, score_threshold=1.0)
    np.testing.assert_allclose(found.boxes, proposals.pred_boxes.tensor.numpy()[kept], atol=1e-3)
    probabilities = proposals.probabilities.numpy()[kept, :K]
    np.testing.assert_allclose(found.scores, probabilities.max(axis=1), atol=1e-6)
    assert found.detected.all()
    assert found.classes.tolist() == found.by_box.tolist() == probabilities.argmax(axis=1).tolist()
    stages = {"sep": ["classifier"], "aam": ["margin"], "siamese_aam": ["margin", "inference"]}
    assert list(found.stages) == stages[preset]
    # The last stage says what is told, however unsure it is.
    assert list(found.stages.values())[-1].classes.tolist() == found.classes.tolist()


def test_context_and_karyotype_are_stages() -> None:
    context = hand_made().inference.copy()
    context[0, [0, 5]] = 0.2, 0.8
    heads = hand_made(result=context, context=context)
    assigned = np.array([5, UNIDENTIFIED])
    found = explain(
        heads, KEPT, GT_BOXES, GT_CLASSES, assigned=assigned, confidences=np.array([0.7, 0.3])
    )
    assert list(found.stages) == ["margin", "inference", "context", "karyotype"]
    assert found.by_box.tolist() == [5, 21, 4]
    assert found.classes.tolist() == [5, 21, 4]
    assert (found.path(0), found.path(1)) == (["1", "6"], ["21", "22", "?"])
    assert found.changed_by("context").tolist() == [0]
    assert found.changed_by("karyotype").tolist() == [1]
    assert [found.outcome(i) for i in range(3)] == ["broken", "broken", "broken"]
    rows = found.to_dict()["rows"]
    assert [row["class"] for row in rows] == ["6", "?", None]
    assert [row["class_by_box"] for row in rows] == ["6", "22", None]
    assert rows[1]["karyotype_score"] == 0.3
    text = format_explanation(found)
    assert "the cell's context changed 1: 1→6" in text
    assert "the karyotype changed 1: 21→22→?" in text
    left_out = explain(heads, KEPT, assigned=np.array([LEFT_OUT, 21])).to_dict()["rows"]
    assert [row["class"] for row in left_out] == [None, "22", None]


def test_the_average_of_several_looks_is_what_is_kept() -> None:
    probabilities = np.full((2, K + 1), 1e-3)
    probabilities[0, 0], probabilities[1, [20, 21]] = 0.8, (0.6, 0.3)
    boxes = np.array([[2, 0, 22, 40], [41, 0, 61, 40]], dtype=np.float32)
    found = explain(
        hand_made(), KEPT, GT_BOXES, GT_CLASSES, average=(boxes, probabilities), assigned=None
    )
    assert list(found.stages) == ["margin", "inference", "looks"]
    assert found.boxes[:2].tolist() == boxes.tolist()
    assert found.by_box.tolist() == [0, 20, 4]
    assert found.scores[:2].tolist() == [0.8, 0.6]
    # The second was 22 in the first look alone; the third is known from the first look only.
    assert found.inference.classes.tolist() == [0, 21, BACKGROUND]
    assert found.looks.classes.tolist() == [0, 20, BACKGROUND]
    assert found.outcome(1) == "broken"
    assert "the average of all looks changed 1: 21→22→21" in format_explanation(found)


def test_heads_are_read_as_the_predictor_computes_them(item: dict[str, Any]) -> None:
    model = make_model("siamese_aam", delta=0.05)
    model.train()
    heads = read_heads(model, [item, item])[1]
    assert model.training
    assert not model.roi_heads.box_predictor._forward_pre_hooks
    weight = nn.functional.normalize(model.roi_heads.box_predictor.margin_branch.weight.double())
    cosines = heads.features @ weight.detach().numpy().T
    expected = torch.from_numpy(20.0 * cosines).softmax(dim=1).numpy()
    np.testing.assert_allclose(heads.margin, expected, atol=1e-4)
    for k in range(K):
        best = int(heads.margin[:, k].argmax())
        local = heads.margin[best, k] > 0.05
        assert heads.source[k] == (best if local else -1)
        center = heads.features[best] if local else heads.global_centers[k]
        np.testing.assert_allclose(heads.local_centers[k], center, atol=1e-6)
    # Boxes are in pixels of the 256 x 144 original.
    assert heads.proposal_boxes[:, 2].max() > 128
    assert (heads.boxes.reshape(-1, 4) <= [256, 144, 256, 144]).all()


def test_partners_are_read_as_the_predictor_chose_them(item: dict[str, Any]) -> None:
    model = make_model("siamese_aam", delta=0.05, center="pair", center_share=0.5)
    heads = read_heads(model, [item])[0]
    paired = 0
    for k in range(K):
        first = heads.source[k]
        second = -1
        for i in range(len(heads.margin)):
            a, b = heads.proposal_boxes[i], heads.proposal_boxes[max(first, 0)]
            sides = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
            shared = np.prod(np.maximum(sides, 0))
            areas = np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2])
            better = second < 0 or heads.margin[i, k] > heads.margin[second, k]
            if first >= 0 and shared / (areas - shared) < 0.5 and heads.margin[i, k] > 0.1:
                second = i if better else second
        assert heads.partner[k] == second
        paired += second >= 0
        if first >= 0:
            local = heads.features[first] + (heads.features[second] if second >= 0 else 0)
            mixed = local / np.linalg.norm(local) + heads.global_centers[k]
            center = mixed / np.linalg.norm(mixed)
            np.testing.assert_allclose(heads.local_centers[k], center, atol=1e-5)
    assert paired
    assert read_heads(make_model("siamese_aam"), [item])[0].partner is None


def test_a_model_without_roi_heads_is_refused(item: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"a Linear has no ROI heads.*than retinanet"):
        read_heads(nn.Linear(2, 2), [item])


@pytest.mark.parametrize("truth", [True, False])
def test_json_says_all_and_survives_a_round_trip(truth: bool) -> None:
    found = explain(hand_made(), KEPT, *((GT_BOXES, GT_CLASSES) if truth else ()))
    content = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    row = content["rows"][1]
    assert (row["margin_class"], row["inference_class"]) == ("21", "22")
    assert row["outcome"] == ("rescued" if truth else "truth unknown")
    assert row.get("true_class") == ("22" if truth else None)
    assert content["rows"][2]["inference_class"] == "none"
    assert content["local_centers"]["21"]["source"] == "local"
    assert content["local_centers"]["21"]["box"] == [40, 0, 60, 40]
    assert content["local_centers"]["X"] == {
        **{"group": "C", "source": "global", "score": 0.001, "box": None, "row": None},
        **{"point": content["global_centers"]["X"]["point"], "partner": None},
        **({"true_class": None} if truth else {}),
    }
    assert (content["missed"] is None) != truth
    text = format_explanation(found)
    assert "margin, inference differ on 2" in text
    assert "3 of 24 classes have a local center (score > 0.5)" in text
    assert ("wrong local centers: 21 on 22" in text) == truth


def with_partners() -> HeadOutput:
    """Classes 1 and 5 of pairs, the partner of 1 on a 22, that of 5 on nothing."""
    partner = np.full(K, -1)
    partner[[0, 4]] = [1, 3]
    return hand_made(partner=partner)


def test_partners_of_a_known_image() -> None:
    centers = explain(with_partners(), KEPT, GT_BOXES, GT_CLASSES).centers
    assert np.flatnonzero(centers.paired).tolist() == [0, 4]
    assert centers.partner_boxes[[0, 4], 0].tolist() == [40, 120]
    assert np.isnan(centers.partner_boxes[20]).all()
    assert centers.partner_rows[[0, 4, 20]].tolist() == [1, -1, -1]
    assert centers.partner_classes[[0, 4]].tolist() == [21, BACKGROUND]
    assert np.flatnonzero(centers.wrong_partner).tolist() == [0, 4]
    # On a chromosome of the class it is not wrong; without truth nothing is.
    right = explain(with_partners(), KEPT, GT_BOXES, np.array([0, 0, 4, 7])).centers
    assert np.flatnonzero(right.wrong_partner).tolist() == [4]
    assert not explain(with_partners(), KEPT).centers.wrong_partner.any()
    alone = explain(hand_made(), KEPT, GT_BOXES, GT_CLASSES).centers
    assert not alone.paired.any()
    assert not alone.wrong_partner.any()


def test_partners_are_written_and_said() -> None:
    found = explain(with_partners(), KEPT, GT_BOXES, GT_CLASSES)
    content = json.loads(json.dumps(found.to_dict(), allow_nan=False))["local_centers"]
    assert content["1"]["partner"] == {"box": [40, 0, 60, 40], "row": 1, "true_class": "22"}
    assert content["5"]["partner"] == {"box": [120, 0, 140, 40], "row": None, "true_class": "none"}
    assert content["21"]["partner"] is None
    unknown = explain(with_partners(), KEPT).to_dict()["local_centers"]["1"]["partner"]
    assert unknown == {"box": [40, 0, 60, 40], "row": 1}
    text = format_explanation(found)
    assert "3 of 24 classes have a local center (score > 0.5), 2 of a pair" in text
    assert "wrong partners: 1 on 22, 5 on none" in text
    assert "partner" not in format_explanation(explain(hand_made(), KEPT, GT_BOXES, GT_CLASSES))


def test_partners_are_drawn_and_wrong_ones_marked() -> None:
    image = np.full((60, 240), 200, dtype=np.uint8)
    red = to_rgba(OUTCOME_COLORS["broken"])

    def diamonds(heads: HeadOutput) -> tuple[list[list[float]], list[bool], list[str]]:
        figure = plot_explanation(explain(heads, KEPT, GT_BOXES, np.array([0, 0, 4, 7])), image)
        labels = [text.get_text() for text in figure.legends[0].get_texts()]
        for collection in figure.axes[0].collections:
            offsets = np.asarray(collection.get_offsets())
            if collection.get_zorder() == 5 and (collection.get_sizes() == 30).any():
                edges = [tuple(edge) == red for edge in collection.get_edgecolors()]
                return offsets.tolist(), edges, labels
        return [], [], labels

    places, wrong, labels = diamonds(with_partners())
    assert places == [[50, 20], [130, 20]]
    assert wrong == [False, True]
    assert "its partner" in labels
    places, _, labels = diamonds(hand_made())
    assert places == []
    assert "its partner" not in labels


def texts_of(figure: Any) -> set[str]:
    return {text.get_text() for axes in figure.axes for text in axes.texts}


OFF: dict[str, Any] = {"inference": None, "local_centers": None, "source": None, "delta": None}


def test_picture_names_every_row_and_the_parts_that_are_off() -> None:
    image = np.full((60, 240), 200, dtype=np.uint8)
    whole = texts_of(plot_explanation(explain(hand_made(), KEPT, GT_BOXES, GT_CLASSES), image))
    # Named once, changed, lost, missed; the center of 21 lies on a chromosome named otherwise.
    assert {"1", "(1) 21→22", "(2) 5→none", "8", "21★"} <= whole
    no_inference = hand_made(**OFF, result=hand_made().margin)
    figure = plot_explanation(explain(no_inference, np.arange(3)), image)
    assert {"1", "21", "5"} <= texts_of(figure)
    assert "no inference branch" in figure.texts[1].get_text()
    plain = hand_made(**OFF, margin=None)
    figure = plot_explanation(explain(plain, KEPT), image)
    assert "no margin branch" in figure.texts[1].get_text()


def test_picture_of_an_image_without_any_proposal() -> None:
    empty = {n: getattr(hand_made(), n)[:0] for n in ("proposal_boxes", "boxes", "features")}
    empty |= {n: np.zeros((0, K + 1)) for n in ("result", "margin", "inference")}
    empty |= {"source": np.full(K, -1), "local_centers": np.eye(K, D)}
    found = explain(hand_made(**empty), KEPT[:0], GT_BOXES, GT_CLASSES)
    assert len(found) == 0
    assert found.missed.all()
    figure = plot_explanation(found, np.full((60, 240), 200, dtype=np.uint8))
    assert {"1", "22", "5", "8"} <= texts_of(figure)
    assert np.isfinite(found.global_points).all()


def test_labels_avoid_each_other_and_stay_inside() -> None:
    anchors = np.tile([50.0, 50.0, 52.0, 52.0], (8, 1))
    sizes = np.tile([12.0, 8.0], (8, 1))
    bounds = np.array([0.0, 0.0, 100.0, 100.0])
    corners = place_labels(sizes, anchors, anchors[:1], bounds, distances=(1.0, 12.0, 24.0))
    boxes = np.concatenate([corners, corners + sizes], axis=1)
    assert (boxes >= 0).all()
    assert (boxes <= 100).all()
    for i in range(8):
        for j in [*range(i), -1]:
            a, b = boxes[i], boxes[j] if j >= 0 else anchors[0]
            apart = (a[:2] >= b[2:] - 1e-9) | (b[:2] >= a[2:] - 1e-9)
            assert apart.any(), (i, j)
