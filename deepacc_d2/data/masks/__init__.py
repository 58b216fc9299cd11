"""Chromosomes with true masks, to train masks on: cut out, drawn, or outlined by a person."""
