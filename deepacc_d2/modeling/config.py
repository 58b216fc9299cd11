"""The yacs face: DeepACC's keys for users of Detectron2's own trainer and ``DefaultPredictor``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from deepacc_d2.chromosomes import NUM_CLASSES
from deepacc_d2.errors import ConfigError
from deepacc_d2.method import check_setting

if TYPE_CHECKING:
    from detectron2.config import CfgNode

SETTINGS = {
    **{name: name.upper() for name in ("alpha", "beta", "gamma", "m", "s", "delta")},
    **{"center": "CENTER", "center_share": "CENTER_SHARE", "anchor": "GIA_ANCHOR"},
}
"""The keys of ``MODEL.DEEPACC`` that are settings of the method, by their names there."""

MARGIN_BRANCHES = ("angular", "linear", "none")
# Detectron2's heads respect them; these heads would silently train without them.
UNSUPPORTED = (
    "KEYPOINT_ON",
    "ROI_BOX_HEAD.USE_SIGMOID_CE",
    "ROI_BOX_HEAD.USE_FED_LOSS",
    "ROI_BOX_HEAD.TRAIN_ON_PRED_BOXES",
)


def add_deepacc_config(cfg: CfgNode) -> None:
    """Adds ``MODEL.DEEPACC`` to a Detectron2 config, and the defaults that chromosomes need.

    Call it before a YAML file with ``MODEL.ROI_HEADS.NAME: DeepACCROIHeads`` is merged. The
    values are DeepACC's (Luo et al. 2020); ``DELTA`` is not in the paper.

    >>> from detectron2.config import get_cfg
    >>> cfg = get_cfg()
    >>> add_deepacc_config(cfg)
    >>> cfg.MODEL.DEEPACC.ALPHA, cfg.MODEL.ROI_HEADS.NUM_CLASSES
    (0.1, 24)

    Keys of ``MODEL.DEEPACC``:
        MARGIN_BRANCH: ``angular`` (Eq. 1), ``linear`` (row d of Table 1) or ``none``.
        INFERENCE_BRANCH: whether the siamese inference branch is on.
        GIA: whether the group loss is on; GIA_ANCHOR: ``labelled`` or ``predicted``.
        ALPHA, BETA, GAMMA: weights of the margin, inference and group losses.
        M, S: margin in radians and scale; MARGIN_ON_BACKGROUND: whether background keeps it too.
        DELTA: least score of a local center; DETACH_CENTERS: whether they are constants.
        CENTER: ``single`` (Eq. 2) or ``pair``; CENTER_SHARE: weight of the image's own part in a
        center, 1 in the paper. Neither is in the paper.

    Defaults of Detectron2's that change are those in which MMDetection 1.x, which the paper builds
    on, differs: smooth L1, anchors, proposals in training, one image scale, warm-up, clipping.
    Detectron2's own ``Base-RCNN-FPN.yaml`` sets ``MODEL.RPN.POST_NMS_TOPK_TRAIN`` and
    ``INPUT.MIN_SIZE_TRAIN`` anew; a YAML that is based on it has to repeat 2000 and ``(800,)``.
    Backbone, learning rate and schedule are left to the YAML. ``MODEL.MASK_ON`` adds Detectron2's
    own mask head, which needs outlines to train on.
    """
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
            "CENTER": "single",
            "CENTER_SHARE": 1.0,
        }
    )
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = NUM_CLASSES
    cfg.MODEL.ROI_BOX_HEAD.NUM_FC = 2
    cfg.MODEL.ROI_BOX_HEAD.SMOOTH_L1_BETA = 1.0
    cfg.MODEL.RPN.SMOOTH_L1_BETA = 1.0 / 9.0
    cfg.MODEL.RPN.POST_NMS_TOPK_TRAIN = 2000
    # Anchors in the middle of their cells; Detectron2's stand at the upper left corners.
    cfg.MODEL.ANCHOR_GENERATOR.OFFSET = 0.5
    cfg.INPUT.MIN_SIZE_TRAIN, cfg.INPUT.MAX_SIZE_TRAIN = (800,), 1067
    cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST = 800, 1067
    cfg.SOLVER.WARMUP_ITERS, cfg.SOLVER.WARMUP_FACTOR = 500, 1.0 / 3.0
    # Detectron2 clips each parameter's gradient by itself, MMDetection all of them together.
    cfg.SOLVER.CLIP_GRADIENTS.ENABLED = True
    cfg.SOLVER.CLIP_GRADIENTS.CLIP_TYPE = "norm"
    cfg.SOLVER.CLIP_GRADIENTS.CLIP_VALUE = 35.0


def check_deepacc_config(cfg: CfgNode) -> None:
    """Refuses a config that contradicts itself, before the heads are built from it.

    Raises:
        ConfigError: names the yacs key and says how to fix it.
    """
    if "DEEPACC" not in cfg.MODEL:
        raise ConfigError(
            "MODEL.DEEPACC is missing: call deepacc_d2.modeling.add_deepacc_config(cfg) before any "
            "YAML is merged"
        )
    node = cfg.MODEL.DEEPACC
    if node.MARGIN_BRANCH not in MARGIN_BRANCHES:
        raise ConfigError(
            f"MODEL.DEEPACC.MARGIN_BRANCH={node.MARGIN_BRANCH!r}: choose one of "
            f"{', '.join(MARGIN_BRANCHES)}"
        )
    needing = [key for key in ("INFERENCE_BRANCH", "GIA") if node[key]]
    if needing and node.MARGIN_BRANCH == "none":
        raise ConfigError(
            f"{' and '.join(f'MODEL.DEEPACC.{key}' for key in needing)} without "
            "MODEL.DEEPACC.MARGIN_BRANCH: set MARGIN_BRANCH to angular or linear, or "
            f"{' and '.join(f'{key} to False' for key in needing)}"
        )
    for name, key in SETTINGS.items():
        check_setting(name, node[key], key=f"MODEL.DEEPACC.{key}")
    num_classes = cfg.MODEL.ROI_HEADS.NUM_CLASSES
    if node.GIA and num_classes != NUM_CLASSES:
        raise ConfigError(
            f"MODEL.ROI_HEADS.NUM_CLASSES={num_classes} with MODEL.DEEPACC.GIA: the Denver groups "
            f"are of {NUM_CLASSES} classes; set NUM_CLASSES to {NUM_CLASSES}, or GIA to False"
        )
    for key in UNSUPPORTED:
        section, _, name = key.rpartition(".")
        if (cfg.MODEL[section] if section else cfg.MODEL)[name]:
            raise ConfigError(f"MODEL.{key} is not supported by DeepACCROIHeads: set it to False")
