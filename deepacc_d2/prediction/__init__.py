"""From an image to chromosomes, and files that tell of them."""
