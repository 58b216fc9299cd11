"""Why the chromosomes of an image got their classes."""
