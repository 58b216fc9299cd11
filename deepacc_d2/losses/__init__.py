"""Losses of DeepACC: a pure function each, with a thin module over it."""
