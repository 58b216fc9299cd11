"""The printed table of the metrics."""

from __future__ import annotations

import math

from tabulate import tabulate

from deepacc_d2.chromosomes import CLASSES, GROUP_OF, denver_order
from deepacc_d2.evaluation.types import Metrics

CLASS_COLUMNS: tuple[str, ...] = (
    *("ap50", "ap50_max", "coco_ap", "precision", "recall", "f1"),
    *("gt", "tp", "fp", "fn"),
)
_GROUP_COLUMNS = {
    "map50": "map50",
    "map50_max": "map50_max",
    "coco_ap": "coco_ap",
    "acc": "acc",
    "aer": "aer",
    "gt": "gt",
    "within_group_confusions": "within",
    "between_group_confusions": "between",
    "missed": "missed",
    "spurious": "spurious",
}


def format_table(metrics: Metrics) -> str:
    """Returns text tables: the nine scalars, the Denver groups, the classes.

    Where it is known what ``make predict`` keeps, a table of the rates of both rules comes second.
    Rates are in percent, ``-`` where undefined. ``within`` and ``between`` count chromosomes of a
    group that were found but named as another class of the same or of another group.
    """
    summary = metrics.summary()
    classes = [CLASSES[k] for k in denver_order()]
    rules = []
    if metrics.predict is not None:
        chosen = metrics.settings
        paper = f"the paper's (score {chosen['score_threshold']}, NMS {chosen['agnostic_nms']})"
        rows = {paper: summary, "make predict's (each box by itself)": metrics.predict}
        cells = [[name, *(_cell(row[k]) for k in metrics.predict)] for name, row in rows.items()]
        rules.append(tabulate(cells, headers=["rule", *metrics.predict], **_STYLE))
    tables = [
        tabulate([[_cell(v) for v in summary.values()]], headers=list(summary), **_STYLE),
        *rules,
        tabulate(
            [
                [group, *(_cell(row[key]) for key in _GROUP_COLUMNS)]
                for group, row in metrics.per_group.items()
            ],
            headers=["group", *_GROUP_COLUMNS.values()],
            **_STYLE,
        ),
        tabulate(
            [
                [
                    GROUP_OF[name],
                    name,
                    *(_cell(metrics.per_class[name][key]) for key in CLASS_COLUMNS),
                ]
                for name in classes
            ],
            headers=["group", "class", *CLASS_COLUMNS],
            **_STYLE,
        ),
    ]
    settings = ", ".join(f"{key} {value}" for key, value in metrics.settings.items())
    head = f"{metrics.num_images} images, {metrics.num_gt} chromosomes; in percent; {settings}"
    return "\n\n".join([head, *tables])


_STYLE: dict = {"tablefmt": "simple", "disable_numparse": True, "stralign": "right"}


def _cell(value: float | int) -> str:
    if isinstance(value, int):
        return str(value)
    return "-" if math.isnan(value) else f"{value:.1f}"
