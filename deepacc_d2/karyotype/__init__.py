"""From the class probabilities of a cell's boxes to counts, a karyotype and what to look at.

Imported by name from its modules; only what every report says is here, so that it costs nothing.
"""

from deepacc_d2.disclaimer import DISCLAIMER

__all__ = ["DISCLAIMER"]
