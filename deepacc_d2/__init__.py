"""DeepACC-D2: detection and classification of human chromosomes on metaphase images."""

__version__ = "0.1.0"
