"""Augmentations: boxes must stay where the pixels they were drawn around went."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from detectron2.data import transforms as T

from deepacc_d2.errors import ConfigError
from deepacc_d2.images.size import MARGIN, SHARE_OF_ALL
from deepacc_d2.images.spread import find_spread, normalize_tone
from deepacc_d2.images.transforms import (
    CV2ResizeTransform,
    LookupTransform,
    LowerResolutionTransform,
    NormalizeTone,
    RandomResolution,
    RandomTone,
    RandomTranspose,
    ResizeShortestEdge,
    ResizeToChromosomes,
    ResizeToFit,
    TransposeTransform,
)

HEIGHT, WIDTH = 40, 60


@pytest.fixture(autouse=True)
def _seed() -> None:
    np.random.seed(0)  # noqa: NPY002 - Detectron2 draws from NumPy's global generator


def _marked(x0: int, y0: int, x1: int, y1: int) -> np.ndarray:
    """Black but for a white rectangle over pixels x0..x1-1, y0..y1-1."""
    image = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
    image[y0:y1, x0:x1] = 255
    return image


def _extent(image: np.ndarray) -> np.ndarray:
    """XYXY of what is brighter than half."""
    rows, columns = np.nonzero(image > 127)
    return np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])


def _symmetries() -> list[T.Augmentation]:
    return [
        T.RandomFlip(horizontal=True, vertical=False),
        T.RandomFlip(horizontal=False, vertical=True),
        RandomTranspose(),
    ]


@pytest.mark.parametrize("box", [(3, 5, 4, 6), (0, 0, 1, 1), (59, 39, 60, 40), (10, 20, 35, 28)])
def test_symmetries_move_a_box_with_its_pixels(box: tuple[int, int, int, int]) -> None:
    for _ in range(20):
        inputs = T.AugInput(_marked(*box), boxes=np.array([box], dtype=np.float32))
        T.AugmentationList(_symmetries())(inputs)
        np.testing.assert_array_equal(inputs.boxes[0], _extent(inputs.image))


def test_all_eight_symmetries_of_the_square_are_drawn_alike_often() -> None:
    corner = np.arange(9, dtype=np.uint8).reshape(3, 3)
    eight = {np.rot90(m, k).tobytes(): 0 for m in (corner, np.fliplr(corner)) for k in range(4)}
    assert len(eight) == 8
    augmentation = T.AugmentationList(_symmetries())
    for _ in range(1600):
        inputs = T.AugInput(corner.copy())
        augmentation(inputs)
        eight[np.ascontiguousarray(inputs.image).tobytes()] += 1
    assert sum(eight.values()) == 1600
    # Each is binomial of mean 200 and standard deviation 13.
    assert min(eight.values()) > 140
    assert max(eight.values()) < 260


@pytest.mark.parametrize("size", [(40, 60), (80, 120), (20, 30), (100, 90), (33, 47)])
def test_resize_scales_a_box_with_its_pixels(size: tuple[int, int]) -> None:
    box = (12, 8, 36, 32)
    transform = CV2ResizeTransform(HEIGHT, WIDTH, *size)
    image = transform.apply_image(_marked(*box))
    assert image.shape == size
    assert image.dtype == np.uint8
    scaled = transform.apply_box(np.array([box], dtype=np.float64))[0]
    np.testing.assert_allclose(scaled, np.array(box) * np.tile(np.array(size[::-1]) / (60, 40), 2))
    np.testing.assert_allclose(scaled, _extent(image), atol=1)  # half a pixel blurs at each edge


def test_shrinking_averages_so_that_thin_bands_survive() -> None:
    stripes = np.tile(np.array([0, 0, 0, 200], dtype=np.uint8), (16, 16))
    shrunk = CV2ResizeTransform(16, 64, 4, 16).apply_image(stripes)
    np.testing.assert_array_equal(shrunk, np.full((4, 16), 50))


def test_resize_there_and_back() -> None:
    transform = CV2ResizeTransform(HEIGHT, WIDTH, 77, 31)
    points = np.array([[0.0, 0.0], [60.0, 40.0], [13.5, 7.25]])
    np.testing.assert_allclose(
        transform.inverse().apply_coords(transform.apply_coords(points)), points
    )
    assert transform.inverse().apply_image(np.zeros((77, 31), dtype=np.uint8)).shape == (40, 60)


def test_resize_to_the_same_size_copies_nothing() -> None:
    image = _marked(1, 2, 3, 4)
    assert CV2ResizeTransform(HEIGHT, WIDTH, HEIGHT, WIDTH).apply_image(image) is image


def test_color_images_resize_and_transpose() -> None:
    image = np.zeros((HEIGHT, WIDTH, 3), dtype=np.uint8)
    image[5, 7] = (1, 2, 3)
    assert CV2ResizeTransform(HEIGHT, WIDTH, 20, 30).apply_image(image).shape == (20, 30, 3)
    turned = TransposeTransform().apply_image(image)
    assert turned.shape == (WIDTH, HEIGHT, 3)
    np.testing.assert_array_equal(turned[7, 5], (1, 2, 3))


def test_transposing_twice_is_no_change() -> None:
    transform = TransposeTransform()
    box = np.array([[3.0, 5.0, 9.0, 30.0]])
    np.testing.assert_array_equal(transform.inverse().apply_box(transform.apply_box(box)), box)


@pytest.mark.parametrize(("height", "width"), [(685, 704), (704, 685), (1024, 300), (96, 96)])
def test_resize_to_fit_without_jitter_fills_the_longest_side(height: int, width: int) -> None:
    transform = ResizeToFit(448).get_transform(np.empty((height, width), dtype=np.uint8))
    new_height, new_width = transform.new_size
    assert max(new_height, new_width) == 448
    assert new_width / new_height == pytest.approx(width / height, rel=0.01)


def test_resize_to_fit_draws_factors_log_uniformly() -> None:
    image = np.empty((500, 1000), dtype=np.uint8)
    augmentation = ResizeToFit(1000, scale=(0.5, 2.0))
    factors = [augmentation.get_transform(image).new_size[1] / 1000 for _ in range(600)]
    assert 0.5 <= min(factors) < 0.52
    assert 1.95 < max(factors) <= 2.0
    below_one = np.mean(np.array(factors) < 1)
    assert below_one == pytest.approx(0.5, abs=0.08)  # a third if the factor were uniform


def test_resize_shortest_edge_is_detectron2s_rule() -> None:
    rng = np.random.default_rng(0)
    augmentation = ResizeShortestEdge(min_size=800, max_size=1067)
    for height, width in rng.integers(200, 1500, (300, 2)):
        ours = augmentation.get_transform(np.empty((height, width), dtype=np.uint8)).new_size
        theirs = T.ResizeShortestEdge.get_output_shape(int(height), int(width), 800, 1067)
        assert np.abs(np.subtract(ours, theirs)).max() <= 1  # only where a side ends in one half
        assert max(ours) <= 1067


def test_resize_never_makes_an_empty_image() -> None:
    thin = np.zeros((2000, 1), dtype=np.uint8)
    for augmentation in (ResizeToFit(64), ResizeShortestEdge(32, 64)):
        assert min(augmentation.get_transform(thin).apply_image(thin).shape) == 1


@pytest.mark.parametrize(
    "make",
    [
        lambda: ResizeToFit(16),
        lambda: ResizeToFit(448, scale=(1.2, 0.8)),
        lambda: ResizeToFit(448, scale=(0.0, 1.0)),
        lambda: ResizeShortestEdge(800, 600),
        lambda: ResizeShortestEdge(8, 600),
    ],
)
def test_impossible_sizes_are_refused(make: object) -> None:
    with pytest.raises(ConfigError, match="resize needs"):
        make()  # type: ignore[operator]


def test_transpose_probability() -> None:
    image = np.zeros((4, 4), dtype=np.uint8)
    never = [RandomTranspose(0.0).get_transform(image) for _ in range(20)]
    always = [RandomTranspose(1.0).get_transform(image) for _ in range(20)]
    assert all(isinstance(t, T.NoOpTransform) for t in never)
    assert all(isinstance(t, TransposeTransform) for t in always)


def test_tone_changes_gray_levels_and_no_geometry() -> None:
    image = np.arange(256, dtype=np.uint8).reshape(16, 16)
    box = np.array([[1.0, 2.0, 7.0, 9.0]], dtype=np.float32)
    inputs = T.AugInput(image, boxes=box.copy())
    transform = RandomTone(brightness=20, contrast=0.2, gamma=1.2)(inputs)
    np.testing.assert_array_equal(inputs.boxes, box)
    assert inputs.image.shape == image.shape
    assert inputs.image.dtype == np.uint8
    assert (inputs.image != image).any()
    assert (np.diff(inputs.image.ravel().astype(int)) >= 0).all()  # darker stays darker
    np.testing.assert_array_equal(transform.inverse().apply_box(box), box)


def test_tone_of_no_strength_is_the_identity() -> None:
    image = np.arange(256, dtype=np.uint8).reshape(16, 16)
    transform = RandomTone(brightness=0, contrast=0, gamma=1).get_transform(image)
    np.testing.assert_array_equal(transform.apply_image(image), image)


def test_tone_by_its_formula(monkeypatch: pytest.MonkeyPatch) -> None:
    draws = iter([0.5, -0.25, 0.75])  # gamma, contrast, brightness
    augmentation = RandomTone(brightness=20, contrast=0.2, gamma=1.2)
    monkeypatch.setattr(augmentation, "_rand_range", lambda *_: next(draws))
    table = augmentation.get_transform(np.zeros((1, 1), dtype=np.uint8)).table
    for level in (0, 17, 128, 200, 255):
        bent = 255 * (level / 255) ** (1.2**0.5)
        value = (bent - 128) * (1 - 0.05) + 128 + 15
        assert table[level] == round(min(max(value, 0), 255))


def test_lookup_takes_any_memory_layout() -> None:
    image = np.arange(24, dtype=np.uint8).reshape(4, 6)
    table = np.arange(256, dtype=np.uint8)[::-1].copy()
    flipped = LookupTransform(table).apply_image(image[:, ::-1])
    np.testing.assert_array_equal(flipped, 255 - image[:, ::-1])


def test_the_same_seed_draws_the_same_augmentations() -> None:
    image = cv2.GaussianBlur(
        np.random.default_rng(0).integers(0, 256, (50, 70)).astype(np.uint8), (0, 0), 2
    )
    augmentation = T.AugmentationList([ResizeToFit(64, (0.8, 1.2)), *_symmetries(), RandomTone()])
    results = []
    for seed in (3, 3, 4):
        np.random.seed(seed)  # noqa: NPY002
        inputs = T.AugInput(image, boxes=np.array([[5, 6, 20, 30]], dtype=np.float32))
        augmentation(inputs)
        results.append((np.ascontiguousarray(inputs.image), inputs.boxes))
    np.testing.assert_array_equal(results[0][0], results[1][0])
    np.testing.assert_array_equal(results[0][1], results[1][1])
    assert results[0][0].shape != results[2][0].shape or (results[0][0] != results[2][0]).any()


def _bars(side: int) -> np.ndarray:
    """A plane of 42 dark bars, each ``side`` pixels long and a third as wide, on white."""
    image = np.full((10 * side, 10 * side), 230, dtype=np.uint8)
    for row in range(6):
        for column in range(7):
            y, x = side + row * side * 4 // 3, side + column * side
            image[y : y + side, x : x + side // 3] = 60
    return image


def test_chromosomes_get_one_size_whatever_the_magnification() -> None:
    sizes = []
    for side in (24, 36, 60, 90):
        image = _bars(side)
        resized = ResizeToChromosomes(30, max_size=2000).get_transform(image).apply_image(image)
        dark = np.argwhere(resized < 145)
        # All the bars together span seven and two thirds of a side from top to bottom.
        sizes.append((dark[:, 0].max() + 1 - dark[:, 0].min()) / (20 / 3 + 1))
    np.testing.assert_allclose(sizes, np.mean(sizes), rtol=0.06)
    # A bar of sides 1 and 1/3 would have a box of this area on average over all angles, if 42 were
    # all chromosomes; annotators leave a margin.
    area, width = 1 / 3 * (42 / 46) ** SHARE_OF_ALL, 1 / 3
    box = area + ((area / width) ** 2 + width**2) / np.pi
    expected = 30 / (MARGIN * np.sqrt(box))
    np.testing.assert_allclose(np.mean(sizes), expected, rtol=0.06)


def test_a_resize_to_chromosomes_draws_factors_and_keeps_to_its_limit() -> None:
    image = _bars(36)
    spread = find_spread(image)
    assert spread is not None
    augmentation = ResizeToChromosomes(20, scale=(0.5, 2.0), max_size=1000)
    widths = [augmentation.get_transform(image).new_size[1] for _ in range(60)]
    factors = np.array(widths) / 360 * spread.chromosome_size / 20
    assert 0.49 < factors.min() < 0.7
    assert 1.5 < factors.max() < 2.02
    limited = ResizeToChromosomes(200, max_size=300).get_transform(image)
    assert limited.new_size == (300, 300)
    empty = np.full((100, 200), 200, dtype=np.uint8)
    assert ResizeToChromosomes(40, max_size=300).get_transform(empty).new_size == (150, 300)
    with pytest.raises(ConfigError, match="resize needs chromosome_size"):
        ResizeToChromosomes(4)
    with pytest.raises(ConfigError, match="resize needs chromosome_size"):
        ResizeToChromosomes(40, scale=(1.2, 0.8))


def test_normal_tone_moves_no_box() -> None:
    image = _bars(30)
    box = np.array([[30.0, 30.0, 40.0, 60.0]], dtype=np.float32)
    inputs = T.AugInput(255 - image, boxes=box.copy())
    NormalizeTone()(inputs)
    np.testing.assert_array_equal(inputs.boxes, box)
    np.testing.assert_array_equal(inputs.image, normalize_tone(255 - image))
    # Light on dark has become dark on light.
    assert inputs.image[35:55, 32:38].mean() < 60
    assert inputs.image[:20].mean() > 225


def test_a_lower_resolution_takes_detail_and_no_size() -> None:
    fine = np.tile(np.array([[0, 200], [200, 0]], dtype=np.uint8), (20, 30))
    coarse = LowerResolutionTransform(0.5).apply_image(fine)
    assert coarse.shape == fine.shape
    assert coarse.dtype == np.uint8
    np.testing.assert_array_equal(coarse, np.full_like(fine, 100))
    flat = np.full((7, 5), 33, dtype=np.uint8)
    np.testing.assert_array_equal(LowerResolutionTransform(0.01).apply_image(flat), flat)


def test_resolutions_are_drawn_for_a_share_of_images() -> None:
    image = np.zeros((8, 8), dtype=np.uint8)
    augmentation = RandomResolution(lowest=0.25, prob=0.5)
    drawn = [augmentation.get_transform(image) for _ in range(400)]
    factors = [t.factor for t in drawn if isinstance(t, LowerResolutionTransform)]
    assert 160 < len(factors) < 240
    assert 0.25 <= min(factors) < 0.3
    assert 0.9 < max(factors) <= 1
    assert np.mean(np.array(factors) < 0.5) == pytest.approx(0.5, abs=0.12)  # log-uniform
    with pytest.raises(ConfigError, match="no share of a resolution"):
        RandomResolution(lowest=0)
