"""Metrics of chromosome detection, their Detectron2 evaluator, and the report on disk."""
