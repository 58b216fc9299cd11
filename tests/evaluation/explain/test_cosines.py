from __future__ import annotations

import itertools
from types import SimpleNamespace

import numpy as np
import pytest

from deepacc_d2.chromosomes import CLASSES, GROUP_OF
from deepacc_d2.errors import ConfigError, DataError
from deepacc_d2.evaluation.explain import cosines
from deepacc_d2.evaluation.explain.cosines import (
    Chromosomes,
    center_cosines,
    distance_from_average,
    mean_by_case,
    pair_cosines,
    read_chromosomes,
    staining,
)


def units(rng: np.random.Generator, *shape: int) -> np.ndarray:
    x = rng.normal(size=shape)
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


@pytest.fixture
def made() -> Chromosomes:
    rng = np.random.default_rng(0)
    n = 60
    images = np.sort(rng.integers(6, size=n))
    return Chromosomes(
        classes=rng.choice([0, 1, 2, 5, 6, 22, 23], size=n),
        images=images,
        cases=images // 2,
        boxes=np.zeros((n, 4)),
        features=units(rng, n, 8).astype(np.float32),
        learned=rng.uniform(-1, 1, (n, 24)).astype(np.float32),
        local=rng.uniform(-1, 1, (n, 24)).astype(np.float32),
        margin=rng.integers(24, size=n),
        inference=rng.integers(24, size=n),
        missing=0,
    )


def test_pairs_are_sorted_by_class_and_place(
    made: Chromosomes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cosines, "_ROWS", 7)
    found: dict[tuple[str, str], list[float]] = {}
    for i, j in itertools.combinations(range(len(made.classes)), 2):
        a, b = CLASSES[made.classes[i]], CLASSES[made.classes[j]]
        relation = "same class" if a == b else "other group"
        if a != b and GROUP_OF[a] == GROUP_OF[b]:
            relation = "same group"
        place = "different cases"
        if made.images[i] == made.images[j]:
            place = "one cell"
        elif made.cases[i] == made.cases[j]:
            place = "one case"
        found.setdefault((relation, place), []).append(float(made.features[i] @ made.features[j]))
    table = pair_cosines(made)
    assert len(found) == table.size == 9
    for (relation, place), values in found.items():
        assert table.loc[relation, place] == pytest.approx(np.mean(values), abs=1e-6)


def test_each_chromosome_is_compared_with_its_own_and_the_nearest_other_center(
    made: Chromosomes,
) -> None:
    table = center_cosines(made)
    for row, k in enumerate(made.classes):
        entry = table.loc[row]
        assert (entry["class"], entry["group"]) == (CLASSES[k], GROUP_OF[CLASSES[k]])
        for name, values in (("learned", made.learned[row]), ("local", made.local[row])):
            assert entry[f"own_{name}"] == values[k]
            assert entry[f"other_{name}"] == max(v for j, v in enumerate(values) if j != k)
        assert entry["margin_right"] == (made.margin[row] == k)
        assert entry["inference_right"] == (made.inference[row] == k)


def test_a_chromosome_is_what_the_proposal_that_shows_it_best_says(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Two chromosomes, of which one is shown by two proposals and one by none."""
    rng = np.random.default_rng(1)
    coco = {
        "images": [{"id": 5, "case_id": "a"}, {"id": 3, "case_id": "a"}],
        "annotations": [
            {"id": 1, "image_id": 5, "category_id": 7, "bbox": [0, 0, 10, 10], "area": 100},
            {"id": 2, "image_id": 5, "category_id": 2, "bbox": [50, 50, 10, 10], "area": 100},
        ],
    }
    margin, inference = rng.dirichlet(np.ones(25), size=2), rng.dirichlet(np.ones(25), size=2)
    heads = SimpleNamespace(
        proposal_boxes=np.array([[0.0, 0, 10, 7], [0, 0, 10, 9]]),
        features=units(rng, 2, 4),
        margin=margin,
        inference=inference,
        global_centers=units(rng, 24, 4),
        local_centers=units(rng, 24, 4),
    )
    monkeypatch.setattr(cosines, "read_heads", lambda model, batch: [heads])
    found = read_chromosomes(None, [[{"image_id": 5}]], coco)
    assert (found.classes.tolist(), found.images.tolist(), found.cases.tolist()) == ([6], [1], [0])
    assert found.missing == 1
    np.testing.assert_allclose(found.features[0], heads.features[1], atol=1e-6)
    np.testing.assert_allclose(
        found.learned[0], heads.global_centers @ heads.features[1], atol=1e-6
    )
    np.testing.assert_allclose(found.local[0], heads.local_centers @ heads.features[1], atol=1e-6)
    assert found.margin[0] == margin[1, :24].argmax()
    assert found.inference[0] == inference[1, :24].argmax()

    heads.inference = heads.local_centers = None
    alone = read_chromosomes(None, [[{"image_id": 5}]], coco)
    assert alone.local is None
    assert "own_local" not in center_cosines(alone)
    with pytest.raises(DataError, match="image 9 is not in the ground truth"):
        read_chromosomes(None, [[{"image_id": 9}]], coco)
    with pytest.raises(DataError, match="no proposal shows"):
        read_chromosomes(None, [[{"image_id": 3}]], coco)
    heads.margin = None
    with pytest.raises(ConfigError, match="no margin branch"):
        read_chromosomes(None, [[{"image_id": 5}]], coco)


def test_staining_and_its_distance_from_the_average() -> None:
    gray = np.full((40, 60), 250, dtype=np.uint8)
    gray[5:15, 5:10], gray[5:15, 10:15] = 60, 100  # a box half 60, half 100
    dark, contrast = staining(gray, np.array([[5, 5, 15, 15]]))
    assert (dark, contrast) == (60, 0)
    gray[5:10, 5:10] = 40
    dark, contrast = staining(gray, np.array([[5, 5, 15, 15]]))
    assert (dark, contrast) == (40, 10)
    assert staining(gray, np.array([[-3, -3, 1, 1], [58, 38, 70, 70]]))[0] == 250

    stains = np.array([[1.0, 7], [3, 7], [2, 7]])
    found = distance_from_average(stains)
    expected = [np.sqrt(1.5 / 2), np.sqrt(1.5 / 2), 0]
    np.testing.assert_allclose(found, expected, atol=1e-12)
    np.testing.assert_allclose(
        distance_from_average(np.array([[4.0, 9]]), stains), [np.sqrt((4 / (2 / 3) + 4) / 2)]
    )


def test_a_mean_by_case_draws_all_chromosomes_of_a_case() -> None:
    values = np.array([1.0, 5, 2, 0, 0, 7])
    cases = np.array([4, 4, 9, 2, 9, 2])
    found = mean_by_case(values, cases, resamples=50, seed=3)
    means = []
    for times in np.random.default_rng(3).multinomial(3, np.full(3, 1 / 3), size=50):
        drawn = [
            v
            for case, n in zip((2, 4, 9), times, strict=True)
            for v in [*values[cases == case]] * n
        ]
        means.append(np.mean(drawn))
    np.testing.assert_allclose(found, [2.5, *np.percentile(means, [2.5, 97.5])])
    assert np.isnan(mean_by_case(np.zeros(0), np.zeros(0))).all()
