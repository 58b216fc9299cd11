import numpy as np
import pytest

from deepacc_d2.data.synthetic.layout import place


def rods(count=46, length=80):
    rng = np.random.default_rng(0)
    line = np.arange(length) - (length - 1) / 2
    return [line * np.exp(2j * np.pi * rng.random()) for _ in range(count)]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("size", [(704, 685), (900, 400)])
def test_everything_lies_inside_and_reaches_the_margins(seed, size):
    axes = rods()
    centers = place(
        np.random.default_rng(seed),
        axes,
        [7.0] * len(axes),
        size=size,
        margins=(20, 25, 30, 15),
        overlap_rate=0.1,
    )
    points = np.concatenate([axis + center for axis, center in zip(axes, centers, strict=True)])
    assert points.real.min() >= 7
    assert points.real.max() <= size[0] - 7
    assert points.imag.min() >= 7
    assert points.imag.max() <= size[1] - 7
    # The spread fills its crop, as in real images cut around a spread.
    assert np.ptp(points.real) > 0.75 * size[0]
    assert np.ptp(points.imag) > 0.75 * size[1]


def test_overlap_rate_lays_chromosomes_across_each_other():
    def covered_twice(rate):
        total = 0.0
        for seed in range(8):
            axes = rods(40, 70)
            centers = place(
                np.random.default_rng(seed),
                axes,
                [6.0] * len(axes),
                size=(900, 900),
                margins=(10, 10, 10, 10),
                overlap_rate=rate,
            )
            where = [axis + center for axis, center in zip(axes, centers, strict=True)]
            for i, one in enumerate(where):
                for other in where[i + 1 :]:
                    total += np.abs(one[::3, None] - other[None, ::3]).min() < 6
        return total

    assert covered_twice(1.0) > 1.3 * covered_twice(0.0)


def test_a_crowded_image_still_places_all():
    axes = rods(46, 120)
    centers = place(
        np.random.default_rng(0),
        axes,
        [9.0] * 46,
        size=(250, 220),
        margins=(5, 5, 5, 5),
        overlap_rate=0.3,
    )
    assert len(centers) == 46
    assert np.isfinite(centers).all()
