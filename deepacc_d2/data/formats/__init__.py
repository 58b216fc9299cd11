"""One reader per public format; to add one, write ``read_<format>`` and name it here."""

from deepacc_d2.data.formats.coco import read_coco
from deepacc_d2.data.formats.labelme import read_labelme
from deepacc_d2.data.formats.record import (
    Box,
    Defect,
    Effect,
    ImageRecord,
    Issue,
    Reader,
    ReadOptions,
    Source,
)
from deepacc_d2.data.formats.tseng2023 import read_tseng2023
from deepacc_d2.data.formats.voc import read_voc
from deepacc_d2.data.formats.yolo import read_yolo

READERS: dict[str, Reader] = {
    "tseng2023": read_tseng2023,
    "voc": read_voc,
    "coco": read_coco,
    "yolo": read_yolo,
    "labelme": read_labelme,
}

__all__ = [
    "READERS",
    "Box",
    "Defect",
    "Effect",
    "ImageRecord",
    "Issue",
    "ReadOptions",
    "Reader",
    "Source",
]
