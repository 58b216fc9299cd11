"""Which images are copies of one: tools that augment or upload put a mark into the file name."""

from __future__ import annotations

import re

_UUID = r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
# Digits and letters: a date is no hash.
_MIXED = r"(?=[0-9]*[a-f])(?=[a-f]*[0-9])"
# What is taken away, in turn, as long as something remains.
_MARKS = [
    # Roboflow: cell_jpg.rf.0123456789abcdef0123456789abcdef
    re.compile(r"\.rf\.[0-9a-z]{8,}$", re.IGNORECASE),
    # Augmentor: folder_original_cell.png_<uuid>
    re.compile(rf"^.*?_original_(?=.)|(\.[a-z]{{3,4}})?[-_.]{_UUID}$", re.IGNORECASE),
    # a hash or UUID in front: uploads to Label Studio
    re.compile(rf"^({_UUID}[-_]|[0-9a-f]{{32}}[-_]|{_MIXED}[0-9a-f]{{8}}-)(?=.)"),
    # a hash behind
    re.compile(rf"[-_.]{_MIXED}([0-9a-f]{{32}}|[0-9a-f]{{40}}|[0-9a-f]{{64}})$"),
    # said in words
    re.compile(r"[-_. ]+aug(mented)?[-_]?\d*$", re.IGNORECASE),
    # copies of the file manager; "cell (2)" alone is how Windows numbers what it renames
    re.compile(r"( -)? copy( ?\(?\d+\)?)?$", re.IGNORECASE),
]


def original_of(stem: str) -> str:
    """Returns the stem of the image that a file is a copy of, the stem itself if it is none.

    Recognized are marks of tools, not what an image shows: Roboflow's ``cell_jpg.rf.<hash>``,
    Augmentor's ``_original_cell.png_<uuid>``, Label Studio's ``<hash>-cell``, a hash or UUID at
    the end, ``cell_aug3``, and a file manager's ``cell - Copy (2)``.
    """
    while True:
        before = stem
        for mark in _MARKS:
            shorter = mark.sub("", stem)
            stem = shorter if shorter.strip("-_. ") else stem
        if stem == before:
            return _without_inner_suffix(stem)


def _without_inner_suffix(stem: str) -> str:
    """Takes away the ``_jpg`` into which Roboflow turns the suffix of the image."""
    shorter = re.sub(r"_(jpe?g|png|tiff?|bmp)$", "", stem, flags=re.IGNORECASE)
    return shorter or stem
