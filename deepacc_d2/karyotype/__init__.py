"""From class probabilities of boxes to the karyotype of a cell and of a case."""
