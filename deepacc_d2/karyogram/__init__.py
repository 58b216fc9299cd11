"""Pictures of a cell: its karyogram, the image with its boxes, a case on one page."""

from deepacc_d2.karyogram.karyogram import Karyogram, build_karyogram
from deepacc_d2.karyogram.overlay import draw_overlay
from deepacc_d2.karyogram.report import save_case_report

__all__ = ["Karyogram", "build_karyogram", "draw_overlay", "save_case_report"]
