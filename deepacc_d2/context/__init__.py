"""What cell context is trained on: the boxes that a detector keeps of each cell."""

from deepacc_d2.context.batches import Disturbance, disturbed, pad_cells
from deepacc_d2.context.cells import ContextCell, read_cells

__all__ = ["ContextCell", "Disturbance", "disturbed", "pad_cells", "read_cells"]
