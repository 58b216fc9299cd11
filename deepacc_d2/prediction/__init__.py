"""From an image to chromosomes, and files with the results."""
