from collections import Counter

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from deepacc_d2.chromosomes import CLASSES
from deepacc_d2.data.synthetic import SyntheticConfig, render_metaphase
from deepacc_d2.data.synthetic.karyotype import parse_karyotype
from deepacc_d2.data.synthetic.preview import draw_truth
from deepacc_d2.data.synthetic.render import case_genome

CONFIG = SyntheticConfig(seed=3, num_batches=8, abnormality_rate=0.5, loss_rate=0.3)


@pytest.fixture(scope="module")
def cells():
    return [render_metaphase(CONFIG, case, cell) for case in range(9) for cell in range(2)]


def test_image_and_record(cells):
    for image, record in cells:
        assert image.dtype == np.uint8
        assert image.shape == (record["height"], record["width"])
        assert np.median(image) > 215, "the slide is bright"
        assert np.percentile(image, 2) < 170, "the chromosomes are dark"
    assert {record["batch_id"] for _, record in cells} == {f"batch{n:03d}" for n in range(8)}
    assert len({record["case_id"] for _, record in cells}) == 9
    assert len({(record["width"], record["height"]) for _, record in cells}) > 15


def test_same_arguments_same_pixels(cells):
    image, record = render_metaphase(CONFIG, 5, 1)
    assert np.array_equal(image, cells[11][0])
    assert record == cells[11][1]
    assert not np.array_equal(image[:300, :300], cells[10][0][:300, :300])


def test_boxes_are_tight_to_the_masks_and_inside(cells):
    for image, record in cells[:8]:
        h, w = image.shape
        for annotation in record["annotations"]:
            mask = coco_mask.decode(annotation["segmentation"])
            assert mask.shape == (h, w)
            rows, columns = np.nonzero(mask)
            box = [columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1]
            assert annotation["bbox"] == [float(side) for side in box]
            assert annotation["area"] == mask.sum()
            assert mask.sum() > 60


def test_chromosomes_are_whole(cells):
    for _, record in cells:
        for annotation in record["annotations"]:
            x, y, w, h = annotation["bbox"]
            assert x >= 1
            assert y >= 1
            assert x + w <= record["width"] - 1
            assert y + h <= record["height"] - 1


def test_masks_are_dark(cells):
    for image, record in cells[:8]:
        background = np.percentile(image, 80)
        for annotation in record["annotations"]:
            mask = coco_mask.decode(annotation["segmentation"]).astype(bool)
            assert image[mask].mean() < 0.86 * background


def test_centromere_axis_and_polarity(cells):
    for _, record in cells[:8]:
        for annotation in record["annotations"]:
            mask = coco_mask.decode(annotation["segmentation"])
            x, y = annotation["centromere"]
            assert mask[round(y), round(x)], "the centromere is in the mask"
            p_tip, q_tip = np.array(annotation["axis"])
            direction = np.array(annotation["polarity"])
            assert np.linalg.norm(direction) == pytest.approx(1, abs=1e-3)
            assert direction @ (p_tip - q_tip) == pytest.approx(
                np.linalg.norm(p_tip - q_tip), rel=1e-3
            )
            assert annotation["p_arm_up"] == (p_tip[1] < q_tip[1])
            # Both tips end the body: each is within 4 px of the mask.
            rows, columns = np.nonzero(mask)
            for tip in (p_tip, q_tip):
                assert np.hypot(columns - tip[0], rows - tip[1]).min() < 4


def test_counts_agree_with_the_karyotype(cells):
    lost_any = False
    for number, (_, record) in enumerate(cells):
        karyotype = case_genome(CONFIG, number // 2)[0]
        assert record["karyotype"] == karyotype.iscn
        assert record["sex"] == karyotype.sex
        expected = Counter(parse_karyotype(record["karyotype"]).chromosomes)
        expected.subtract(record["lost"])
        found = Counter(CLASSES[a["category_id"] - 1] for a in record["annotations"])
        assert found == +expected
        lost_any |= bool(record["lost"])
    assert lost_any
    assert {record["karyotype"] for _, record in cells} - {"46,XX", "46,XY"}


def test_sizes_match_real_spreads():
    # 1, 50 and 99 percentiles of sqrt(box area), aspect and relative size over the real
    # spreads of Tseng et al. 2023, whose annotators left about 6 px around each chromosome.
    config = SyntheticConfig(seed=1, num_batches=24, box_margin=6)
    sides, relative, counts, widths = [], [], [], []
    for case in range(24):
        _, record = render_metaphase(config, case, 0)
        boxes = np.array([a["bbox"] for a in record["annotations"]])
        sides.append(boxes[:, 2:])
        longest = max(record["width"], record["height"])
        relative.append(np.sqrt(boxes[:, 2] * boxes[:, 3]) / longest)
        counts.append(len(boxes))
        widths.append(record["width"])
    w, h = np.concatenate(sides).T
    low, median, high = np.percentile(np.sqrt(w * h), [1, 50, 99])
    assert low == pytest.approx(35, rel=0.15)
    assert median == pytest.approx(66, rel=0.1)
    assert high == pytest.approx(134, rel=0.15)
    assert np.median(np.concatenate(relative)) == pytest.approx(0.085, rel=0.15)
    narrow, wide = np.percentile(w / h, [1, 99])
    assert narrow == pytest.approx(0.31, rel=0.2)
    assert wide == pytest.approx(3.3, rel=0.2)
    assert 45 <= min(counts) <= max(counts) <= 47
    assert 360 <= min(widths) <= max(widths) <= 1360
    assert np.median(widths) == pytest.approx(702, rel=0.15)


def test_larger_classes_have_larger_masks(cells):
    areas = {name: [] for name in CLASSES}
    for _, record in cells:
        for annotation in record["annotations"]:
            areas[CLASSES[annotation["category_id"] - 1]].append(annotation["area"])
    mean = {name: np.mean(values) for name, values in areas.items() if values}
    assert mean["1"] > mean["3"] > mean["5"] > mean["8"] > mean["13"] > mean["16"] > mean["22"]


def test_batches_look_different():
    config = SyntheticConfig(num_batches=8, size=(320, 310), size_variation=0, nucleus_rate=0)
    looks = np.array(
        [
            [
                np.percentile(render_metaphase(config, batch + 8 * case, 0)[0], [4, 70])
                for case in range(3)
            ]
            for batch in range(8)
        ]
    )
    between = looks.mean(1).std(0)
    within = looks.std(1).mean(0)
    assert np.all(between > 1.5 * within)


def test_fixed_size_box_margin_and_scale():
    config = SyntheticConfig(size=(352, 342), size_variation=0, seed=2)
    image, record = render_metaphase(config, 0, 0)
    assert image.shape == (342, 352)
    wide = render_metaphase(SyntheticConfig(**{**vars(config), "box_margin": 4.0}), 0, 0)[1]
    for tight, loose in zip(record["annotations"], wide["annotations"], strict=True):
        x, y, w, h = tight["bbox"]
        x0, y0, x1, y1 = max(x - 4, 0), max(y - 4, 0), min(x + w + 4, 352), min(y + h + 4, 342)
        assert loose["bbox"] == [x0, y0, x1 - x0, y1 - y0]
        assert loose["segmentation"] == tight["segmentation"]
    full = render_metaphase(SyntheticConfig(size_variation=0, seed=2), 0, 0)[1]
    small_area = np.mean([a["area"] for a in record["annotations"]])
    full_area = np.mean([a["area"] for a in full["annotations"]])
    assert small_area / full_area == pytest.approx(0.25, rel=0.12)


def test_clean_slide_shows_chromosomes_only():
    config = SyntheticConfig(nucleus_rate=0, debris_rate=0, seed=6)
    image, record = render_metaphase(config, 0, 0)
    masks = [coco_mask.decode(a["segmentation"]) for a in record["annotations"]]
    around = np.any(masks, axis=0)
    for _ in range(4):  # blur spreads a few pixels
        around[1:] |= around[:-1].copy()
        around[:-1] |= around[1:].copy()
        around[:, 1:] |= around[:, :-1].copy()
        around[:, :-1] |= around[:, 1:].copy()
    background = np.median(image)
    assert (image[~around] < 0.8 * background).mean() < 1e-3


def test_truth_is_drawn(cells):
    image, record = cells[0]
    canvas = draw_truth(image, record["annotations"])
    assert canvas.shape == (*image.shape, 3)
    assert (np.ptp(canvas.astype(int), axis=2) > 40).mean() > 0.01, "in color"
