"""The panels of the W&B dashboard, by section; what they read is what training logs."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

from deepacc_d2.chromosomes import DENVER_GROUPS
from deepacc_lightning.wandb.loggers import STEP

GPU_KEYS = ("gpu/peak_allocated_gib", "gpu/peak_reserved_gib")
"""Logged only where there is a GPU."""
EVALUATIONS = ("test", "evaluate")
"""Prefixes of what the test at the end of a training and ``make evaluate`` log."""
SHOWN_IMAGES = ("best_1", "best_2", "between_1", "worst_2", "worst_1")
COLUMNS = (
    *("config:preset.value", "config:seed.value"),
    *("summary:best/val_map50", "summary:test/map50", "summary:test/map50_max"),
    *("summary:test/aer", "summary:test/acc", "config:git_revision.value"),
)
"""Columns of the list of runs, as W&B names them."""


def build_sections(parameters: Sequence[str], metric: str) -> list[Any]:
    """Builds the dashboard's sections.

    Args:
        parameters: config keys whose effect is to be seen, such as ``alpha``.
        metric: what they are judged by, a key of a run's summary such as ``best/val_map50``.

    Returns:
        Sections of ``wandb_workspaces``, with ids that are the same every time.
    """
    import wandb_workspaces.workspaces as ws

    contents = {
        "Presets": preset_panels(),
        "Learning curves": curve_panels(),
        "Sweep": sweep_panels(parameters, metric),
        "Test images and tables": evaluation_panels(),
        "Speed and memory": cost_panels(),
        "Differences between runs": difference_panels(),
    }
    sections = []
    for name, panels in contents.items():
        section = ws.Section(name=name, panels=panels, is_open=name != "Differences between runs")
        section._id = stable_id(name)
        for number, panel in enumerate(panels):
            panel._id = stable_id(f"{name}/{number}")
        sections.append(section)
    return sections


def stable_id(text: str, length: int = 11) -> str:
    """Returns an id as W&B makes them, letters and digits, that depends on the text alone."""
    number = int.from_bytes(hashlib.sha256(text.encode()).digest(), "big")
    digits = "0123456789abcdefghijklmnopqrstuvwxyz"
    return "".join(digits[number // 36**k % 36] for k in range(length))


def preset_panels() -> list[Any]:
    """Results on the test split: bars of the mean over runs of a preset, with their range."""
    import wandb_workspaces.reports.v2 as wr

    def bars(title: str, keys: list[str]) -> Any:
        return wr.BarPlot(
            title=title,
            metrics=list(keys),
            groupby=wr.Config("preset"),
            groupby_aggfunc="mean",
            groupby_rangefunc="minmax",
            orientation="h",
            title_x="%",
        )

    return [
        bars("AER by preset", ["test/aer"]),
        bars("mAP at IoU 0.5 by preset", ["test/map50"]),
        bars("mAP_max by preset", ["test/map50_max"]),
        bars("Acc by preset", ["test/acc"]),
        bars("Whole images right, by preset", ["test/wcr"]),
        bars("AER by Denver group", [f"test/group/{group}/aer" for group in DENVER_GROUPS]),
    ]


def curve_panels() -> list[Any]:
    """Curves over optimizer steps, a line a run."""
    import wandb_workspaces.reports.v2 as wr

    def curve(title: str, key: str, x: str = STEP, **options: Any) -> Any:
        return wr.LinePlot(title=title, x=x, y=[key], **options)

    smooth: dict[str, Any] = {
        "smoothing_type": "exponentialTimeWeighted",
        "smoothing_factor": 0.8,
        "smoothing_show_original": True,
    }
    return [
        curve("Validation mAP", "val/map50"),
        curve("Validation mAP by epoch", "val/map50", x="epoch"),
        curve("Validation AER", "val/aer"),
        curve("Loss", "train/loss", **smooth),
        wr.LinePlot(
            title="Each loss", x=STEP, metric_regex=LOSSES, max_runs_to_show=5, log_y=True, **smooth
        ),
        curve("Accuracy on sampled chromosomes", "train/fg_accuracy", **smooth),
        curve("Learning rate", "train/lr"),
        curve("Gradient norm before clipping", "train/grad_norm", log_y=True),
    ]


LOSSES = "train/loss_.*"
"""Pattern of the single losses; which there are depends on the preset."""


def sweep_panels(parameters: Sequence[str], metric: str) -> list[Any]:
    """How parameters and the result hang together, over all runs."""
    import wandb_workspaces.reports.v2 as wr

    columns = [wr.ParallelCoordinatesPlotColumn(metric=wr.Config(name)) for name in parameters]
    columns.append(wr.ParallelCoordinatesPlotColumn(metric=wr.SummaryMetric(metric)))
    return [
        wr.ParallelCoordinatesPlot(title=f"Parameters and {metric}", columns=columns),
        wr.ParameterImportancePlot(with_respect_to=metric),
        *(
            wr.ScatterPlot(
                title=f"{metric} by {name}",
                x=wr.Config(name),
                y=wr.SummaryMetric(metric),
                regression=True,
            )
            for name in parameters
        ),
    ]


def evaluation_panels() -> list[Any]:
    """Images with boxes, confusion matrices, classes and groups, of the runs that are shown."""
    import wandb_workspaces.reports.v2 as wr

    examples = [f"{e}/examples/{image}" for e in EVALUATIONS for image in SHOWN_IMAGES]
    return [
        wr.MediaBrowser(title="Test images", media_keys=examples, num_columns=len(SHOWN_IMAGES)),
        wr.CustomChart(
            query={"summaryTable": {"tableKey": "Custom Chart Tables/test/confusion_matrix_table"}},
            chart_name="wandb/confusion_matrix/v1",
            chart_fields={name: name for name in ("Actual", "Predicted", "nPredictions")},
            chart_strings={"title": "Confusion matrix of the test split"},
        ),
        *(
            wr.WeavePanelSummaryTable(table_name=f"test/{name}")
            for name in ("images", "per_class", "per_group")
        ),
    ]


def cost_panels() -> list[Any]:
    """What a step costs."""
    import wandb_workspaces.reports.v2 as wr

    keys = {
        "Images a second": "time/images_per_second",
        "Seconds a step": "time/step_seconds",
        "Share of a step spent waiting for data": "time/data_wait_fraction",
        "GPU memory: most allocated, GiB": GPU_KEYS[0],
        "GPU memory: most reserved, GiB": GPU_KEYS[1],
    }
    return [wr.LinePlot(title=title, x=STEP, y=[key]) for title, key in keys.items()]


def difference_panels() -> list[Any]:
    """What differs between the configs of the runs that are shown."""
    import wandb_workspaces.reports.v2 as wr

    return [wr.RunComparer(diff_only="split")]
