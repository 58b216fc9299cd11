"""Weights & Biases: loggers, offline runs, the dashboard."""
