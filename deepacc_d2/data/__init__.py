"""Data sets of metaphases: reading, converting, checking, augmenting, drawing."""
