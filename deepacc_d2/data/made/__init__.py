"""Cells put together from real chromosomes, so that their copy numbers are known."""
