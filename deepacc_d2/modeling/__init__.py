"""Detectors on Detectron2: importing this package registers them."""

from deepacc_d2.modeling.backbone import build_resnet, build_resnet_fpn, pyramid_shapes
from deepacc_d2.modeling.box_head import SeparatedBoxHead
from deepacc_d2.modeling.meta_arch import ChromosomeRCNN, ChromosomeRetinaNet
from deepacc_d2.modeling.predictor import BoxPredictor
from deepacc_d2.modeling.roi_align import FastROIPooler
from deepacc_d2.modeling.roi_heads import ChromosomeROIHeads

__all__ = [
    "BoxPredictor",
    "ChromosomeRCNN",
    "ChromosomeROIHeads",
    "ChromosomeRetinaNet",
    "FastROIPooler",
    "SeparatedBoxHead",
    "build_resnet",
    "build_resnet_fpn",
    "pyramid_shapes",
]
