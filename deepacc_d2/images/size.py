"""How large the chromosomes of a spread are, from the foreground alone.

A chromosome of length L and width W that lies at an angle a has a box of area
(L cos a + W sin a)(L sin a + W cos a) = L W + (L^2 + W^2) sin a cos a, on average over all angles
L W + (L^2 + W^2) / pi. Area alone does not tell it: of two chromosomes of one area, the long and
thin one has the larger box. So the size is taken from area and width, which fix the length.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

CHROMOSOMES = 46
# Of a chromosome's area, the rest that of the median part. Touching chromosomes make the median
# part too large; missing or foreign ones make a 46th of all wrong. The share has the least spread
# of errors on training images of Tseng et al. 2023 and drawn metaphases, and little depends on it.
SHARE_OF_ALL = 0.7
# No chromosome of median size is this many times as large as a 46th of a whole cell's area; what
# is, touches others.
MAX_MEDIAN = 1.6
# A cell whose chromosomes are longer than this many widths on average has foreign matter in it.
MAX_SLENDERNESS = 7.5
# Annotators' boxes leave a margin, and a threshold cuts the rim off: median of the training images
# of Tseng et al. 2023. Drawn metaphases whose chromosomes are half as long and a third thicker
# differ from it by less than two percent.
MARGIN = 1.07


def chromosome_size(areas: NDArray[np.float64], width: float) -> float:
    """Returns the median square root of a chromosome's box area, in pixels.

    >>> round(chromosome_size(np.full(46, 600.0), width=12.0), 1)
    40.6

    Args:
        areas: (P,) of a spread's parts, single and touching chromosomes, P >= 1.
        width: of most of them.
    """
    of_all = float(areas.sum()) / CHROMOSOMES
    of_median = min(float(np.median(areas)), MAX_MEDIAN * of_all)
    area = of_all**SHARE_OF_ALL * of_median ** (1 - SHARE_OF_ALL)
    slenderness = float(np.clip(area / width**2, 1.0, MAX_SLENDERNESS))
    return MARGIN * width * float(np.sqrt(slenderness + (slenderness**2 + 1) / np.pi))
