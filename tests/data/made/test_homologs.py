from __future__ import annotations

import numpy as np
import pytest

from deepacc_d2.data.made.homologs import Changed, Piece, Scene, cut_out, insert, look_at, remove
from deepacc_d2.data.synthetic import SyntheticConfig
from deepacc_d2.data.synthetic.render import render_metaphase

CONFIG = SyntheticConfig(
    **{"overlap_rate": 0.0, "nucleus_rate": 0.0, "debris_rate": 0.2, "abnormality_rate": 0.0},
    **{"loss_rate": 0.0, "size_variation": 0.0, "box_margin": 4.0, "seed": 11},
)


def drawn(cell: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    image, record = render_metaphase(CONFIG, 0, cell)
    boxes = np.array([a["bbox"] for a in record["annotations"]])
    boxes[:, 2:] += boxes[:, :2]
    classes = np.array([a["category_id"] - 1 for a in record["annotations"]])
    return image, boxes, classes


@pytest.fixture(scope="module")
def cell() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return drawn(0)


@pytest.fixture(scope="module")
def scene(cell: tuple[np.ndarray, np.ndarray, np.ndarray]) -> Scene:
    found = look_at(*cell)
    assert found is not None
    return found


@pytest.fixture(scope="module")
def piece() -> Piece:
    donor = look_at(*drawn(1))
    assert donor is not None
    found = cut_out(donor, next(iter(donor.isolated)))
    assert found is not None
    return found


def inserted(scene: Scene, piece: Piece, seed: int = 0, *, touching: bool = False) -> Changed:
    changed = insert(scene, piece, np.random.default_rng(seed), touching=touching)
    assert changed is not None
    return changed


def test_only_separate_chromosomes_are_isolated(scene: Scene) -> None:
    assert 5 < len(scene.isolated) < len(scene.boxes)
    dark = scene.positive < np.median(scene.positive) - 40
    for row, own in scene.isolated.items():
        rest = dark[own.place] & (own.alpha > 0.9) & ~own.solid
        # What is dark on the mask is the chromosome itself, but for its pale edge.
        assert rest.sum() < 0.1 * own.solid.sum()
        top, left = own.place[0].start, own.place[1].start
        rows, columns = np.nonzero(own.solid)
        x0, y0, x1, y1 = scene.boxes[row]
        assert x0 - 1 <= left + columns.min()
        assert left + columns.max() + 1 <= x1 + 1
        assert y0 - 1 <= top + rows.min()
        assert top + rows.max() + 1 <= y1 + 1


def test_a_homolog_is_added_and_nothing_else_changes(
    cell: tuple[np.ndarray, np.ndarray, np.ndarray], scene: Scene, piece: Piece
) -> None:
    image, boxes, classes = cell
    changed = inserted(scene, piece)
    assert np.array_equal(changed.boxes[:-1], boxes)
    assert changed.classes.tolist() == [*classes.tolist(), piece.class_index]
    x0, y0, x1, y1 = changed.boxes[-1]
    difference = image.astype(float) - changed.image
    rim = 12
    outside = np.ones(image.shape, dtype=bool)
    outside[int(y0) - rim : int(y1) + rim, int(x0) - rim : int(x1) + rim] = False
    assert (difference[outside] == 0).all()
    # As much ink as the other cell's chromosome has, at this cell's scale and contrast.
    scale, contrast = scene.size / piece.size, scene.depth / piece.depth
    expected = float((piece.dark * piece.alpha).sum()) * scale**2 * contrast
    assert difference.sum() == pytest.approx(expected, rel=0.05)
    # It is where nothing was, and its box is around what is dark.
    where = difference > 0.25 * scene.depth
    assert not (where & scene.busy).any()
    rows, columns = np.nonzero(where)
    assert x0 <= columns.min()
    assert columns.max() + 1 <= x1
    assert y0 <= rows.min()
    assert rows.max() + 1 <= y1
    tight = (columns.max() - columns.min()) * (rows.max() - rows.min())
    assert tight > 0.5 * (x1 - x0) * (y1 - y0)


def test_no_seam_is_left(
    cell: tuple[np.ndarray, np.ndarray, np.ndarray], scene: Scene, piece: Piece
) -> None:
    difference = np.abs(cell[0].astype(float) - inserted(scene, piece).image)
    rows, columns = np.nonzero(difference)
    area = difference[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    border = np.concatenate([area[0], area[-1], area[:, 0], area[:, -1]])
    assert border.max() <= 4
    assert difference.max() > 60


def test_the_seed_decides(scene: Scene, piece: Piece) -> None:
    first, again, other = (inserted(scene, piece, seed) for seed in (1, 1, 2))
    assert np.array_equal(first.image, again.image)
    assert np.array_equal(first.boxes, again.boxes)
    assert not np.array_equal(first.boxes[-1], other.boxes[-1])


def test_one_that_touches_covers_a_little_of_a_chromosome(
    cell: tuple[np.ndarray, np.ndarray, np.ndarray], scene: Scene, piece: Piece
) -> None:
    changed = inserted(scene, piece, touching=True)
    where = cell[0].astype(float) - changed.image > 0.1 * scene.depth
    assert 0 < (where & scene.busy).sum() < 0.3 * where.sum()


def test_a_removed_chromosome_leaves_background(
    cell: tuple[np.ndarray, np.ndarray, np.ndarray], scene: Scene
) -> None:
    image, boxes, classes = cell
    row = max(scene.isolated, key=lambda n: int(scene.isolated[n].solid.sum()))
    changed = remove(scene, row, np.random.default_rng(0))
    assert changed is not None
    assert np.array_equal(changed.boxes, np.delete(boxes, row, axis=0))
    assert changed.classes.tolist() == np.delete(classes, row).tolist()
    own = scene.isolated[row]
    on_it = changed.image[own.place][own.solid].astype(float)
    background = np.median(image)
    assert np.abs(on_it - background).max() < 0.15 * scene.depth
    assert image[own.place][own.solid].mean() < background - 0.3 * scene.depth
    untouched = np.ones(image.shape, dtype=bool)
    untouched[own.place] = own.alpha == 0
    assert np.array_equal(changed.image[untouched], image[untouched])


def test_a_light_on_dark_cell_becomes_the_negative(
    cell: tuple[np.ndarray, np.ndarray, np.ndarray], scene: Scene, piece: Piece
) -> None:
    image, boxes, classes = cell
    negative = look_at(255 - image, boxes, classes)
    assert negative is not None
    assert negative.inverted
    assert np.array_equal(255 - inserted(negative, piece).image, inserted(scene, piece).image)


def test_what_cannot_be_made_is_none(
    cell: tuple[np.ndarray, np.ndarray, np.ndarray], scene: Scene, piece: Piece
) -> None:
    image, boxes, _classes = cell
    rng = np.random.default_rng(0)
    assert look_at(np.full((80, 90), 240, np.uint8), [[1, 1, 20, 20]], [0]) is None
    assert look_at(image, np.zeros((0, 4)), []) is None
    crowded = next(row for row in range(len(boxes)) if row not in scene.isolated)
    assert cut_out(scene, crowded) is None
    assert remove(scene, crowded, rng) is None
    full = Scene(**{**vars(scene), "busy": np.ones_like(scene.busy)})
    assert insert(full, piece, rng) is None
    assert remove(full, next(iter(scene.isolated)), rng) is None
    for field, factor in (("size", 2.0), ("size", 0.5), ("depth", 3.0)):
        other = Piece(**{**vars(piece), field: factor * getattr(piece, field)})
        assert insert(scene, other, rng) is None
