"""One image: read, its spread found, shown to the network at one size and tone, augmented."""

from __future__ import annotations

import logging

# Pillow says on standard error, without a file's name, what it also raises; who listens hears it.
logging.getLogger("PIL").addHandler(logging.NullHandler())
