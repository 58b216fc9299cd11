"""The yacs face: DeepACC's keys for users of Detectron2's own trainer and ``DefaultPredictor``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from deepacc_d2.chromosomes import NUM_CLASSES

if TYPE_CHECKING:
    from detectron2.config import CfgNode


def add_deepacc_config(cfg: CfgNode) -> None:
    """Adds ``MODEL.DEEPACC`` to a Detectron2 config, and the defaults that chromosomes need.

    Call it before a YAML file with ``MODEL.ROI_HEADS.NAME: DeepACCROIHeads`` is merged. The
    values are DeepACC's (Luo et al. 2020); ``DELTA`` is not in the paper. The smooth-L1 settings are
    MMDetection 1.x's, which the paper builds on.

    Keys of ``MODEL.DEEPACC``:
        MARGIN_BRANCH: ``angular`` (Eq. 1), ``linear`` (row d of Table 1) or ``none``.
        INFERENCE_BRANCH: whether the siamese inference branch is on.
        GIA: whether the group loss is on; GIA_ANCHOR: ``labelled`` or ``predicted``.
        ALPHA, BETA, GAMMA: weights of the margin, inference and group losses.
        M, S: margin in radians and scale; MARGIN_ON_BACKGROUND: whether background keeps it too.
        DELTA: least score of a local center; DETACH_CENTERS: whether they are constants.
    """
    import deepacc_d2.modeling  # noqa: F401  (registers the heads that a YAML names)
    from detectron2.config import CfgNode

    cfg.MODEL.DEEPACC = CfgNode(
        {
            "MARGIN_BRANCH": "angular",
            "INFERENCE_BRANCH": True,
            "GIA": True,
            "GIA_ANCHOR": "labelled",
            "ALPHA": 0.1,
            "BETA": 1.0,
            "GAMMA": 0.1,
            "M": 0.25,
            "S": 64.0,
            "MARGIN_ON_BACKGROUND": True,
            "DELTA": 0.5,
            "DETACH_CENTERS": True,
        }
    )
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = NUM_CLASSES
    cfg.MODEL.ROI_BOX_HEAD.NUM_FC = 2
    cfg.MODEL.RPN.SMOOTH_L1_BETA = 1.0 / 9.0
    cfg.MODEL.ROI_BOX_HEAD.SMOOTH_L1_BETA = 1.0
