"""Detectors on Detectron2: importing this package registers them."""

from deepacc_d2.modeling.backbone import build_resnet, build_resnet_fpn, pyramid_shapes
from deepacc_d2.modeling.box_head import SeparatedBoxHead
from deepacc_d2.modeling.branches import AngularMarginBranch, LinearBranch, SiameseInferenceBranch
from deepacc_d2.modeling.cell_context import CellContext
from deepacc_d2.modeling.config import add_deepacc_config
from deepacc_d2.modeling.deepacc_predictor import DeepACCOutput, DeepACCPredictor
from deepacc_d2.modeling.instance_masks import InstanceMasks
from deepacc_d2.modeling.local_centers import LocalCenters, local_centers
from deepacc_d2.modeling.meta_arch import ChromosomeRCNN, ChromosomeRetinaNet
from deepacc_d2.modeling.predictor import BoxPredictor
from deepacc_d2.modeling.roi_align import FastROIPooler
from deepacc_d2.modeling.roi_heads import ChromosomeROIHeads, DeepACCROIHeads
from deepacc_d2.modeling.rpn import ChromosomeRPN
from deepacc_d2.modeling.sampling import image_seeds

__all__ = [
    "AngularMarginBranch",
    "BoxPredictor",
    "CellContext",
    "ChromosomeRCNN",
    "ChromosomeROIHeads",
    "ChromosomeRPN",
    "ChromosomeRetinaNet",
    "DeepACCOutput",
    "DeepACCPredictor",
    "DeepACCROIHeads",
    "FastROIPooler",
    "InstanceMasks",
    "LinearBranch",
    "LocalCenters",
    "SeparatedBoxHead",
    "SiameseInferenceBranch",
    "add_deepacc_config",
    "build_resnet",
    "build_resnet_fpn",
    "image_seeds",
    "local_centers",
    "pyramid_shapes",
]
