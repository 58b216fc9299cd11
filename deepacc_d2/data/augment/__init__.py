"""Augmentations that make one laboratory's images look like another's, or more crowded."""
