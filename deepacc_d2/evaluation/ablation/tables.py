"""The ablation as text: Markdown, and a table for the terminal."""

from __future__ import annotations

import math
from collections.abc import Sequence

from tabulate import tabulate

from deepacc_d2.evaluation.ablation.result import AblationResult, row_of
from deepacc_d2.evaluation.bootstrap import METRICS, Estimate
from deepacc_d2.evaluation.tally import ERRORS, GROUPS

METRIC_NAMES: dict[str, str] = dict(
    zip(METRICS, ("mAP", "mAP_max", "AER", "Acc"), strict=True)  # the paper's names
)
ERROR_NAMES: dict[str, str] = {
    "within_group_confusions": "within group",
    "between_group_confusions": "between groups",
    "missed": "missed",
    "spurious": "spurious",
    "errors": "all errors",
}


def format_table1(result: AblationResult) -> str:
    """Returns Table 1 as aligned plain text: the metrics, then the differences."""
    values = tabulate(
        [[*row_of(preset), *cells] for preset, cells in _value_rows(result, "+-")],
        headers=["", "model", *METRIC_NAMES.values(), "seeds"],
        **_STYLE,
    )
    blocks = [f"{result.title}\n{_data_line(result)}; in percent, mean +- sd over seeds", values]
    if result.has_reference:
        differences = tabulate(
            [[*row_of(preset), *cells] for preset, cells in _difference_rows(result)],
            headers=["", "model", *(f"d {name}" for name in METRIC_NAMES.values())],
            **_STYLE,
        )
        blocks += [
            f"difference to {result.reference}, 95 % interval over {result.resamples} resamples "
            f"of the test images\n{differences}"
        ]
    else:
        blocks += [_no_reference(result)]
    return "\n\n".join(blocks)


def table1_markdown(
    result: AblationResult, *, heading: str = "#", figure: str | None = "table1.png"
) -> str:
    """Returns Table 1 as Markdown, with protocol, commands and figure.

    Args:
        result: the ablation.
        heading: the mark before the title, ``##`` for a section of a larger document.
        figure: link to the figure; ``None`` leaves it out.
    """
    settings = ", ".join(f"`{key}` {value}" for key, value in result.settings.items())
    parts = [
        f"{heading} {result.title}",
        f"{_data_line(result)}. Metrics in percent, mean ± standard deviation over seeds (none "
        "for a single seed). AER is better when lower, the others when higher. Evaluated with "
        f"{settings}.",
    ]
    if result.facts:
        parts.append("\n".join(f"- {key}: {value}" for key, value in result.facts.items()))
    if result.commands:
        parts.append("\n".join(["```sh", *result.commands, "```"]))
    parts.append(
        _markdown(
            ["", "Preset", "Model", *METRIC_NAMES.values(), "Seeds"],
            [
                [row_of(preset)[0], f"`{preset}`", row_of(preset)[1], *cells]
                for preset, cells in _value_rows(result, "±")
            ],
        )
    )
    if result.has_reference:
        parts += [
            f"Difference to `{result.reference}`, with its 95 % interval:",
            _markdown(
                ["", "Preset", *(f"Δ {name}" for name in METRIC_NAMES.values())],
                [
                    [row_of(preset)[0], f"`{preset}`", *cells]
                    for preset, cells in _difference_rows(result)
                ],
            ),
            _interval_note(result),
        ]
    else:
        parts.append(_no_reference(result))
    if figure:
        parts.append(f"![Table 1 as a figure]({figure})")
    return "\n\n".join(parts) + "\n"


def confusions_markdown(
    result: AblationResult, *, heading: str = "#", figure: str | None = "confusions.png"
) -> str:
    """Returns the confusions as Markdown: all groups together, then each kind by group."""
    parts = [
        f"{heading} {result.title}: confusions",
        f"{_data_line(result)}. Counts on the test split, mean over seeds. *Within group* and "
        "*between groups*: chromosomes found but named as another class of their own or of "
        "another Denver group; *missed*: not found; *spurious*: detections on no free chromosome. "
        "Groups are those of the true class; of the named class for *spurious*.",
        f"{heading}# All groups",
        _markdown(
            ["", "Preset", *ERROR_NAMES.values()],
            [
                [
                    row_of(preset)[0],
                    f"`{preset}`",
                    *(_count(statistics.errors, (kind, 0), True) for kind in range(len(ERRORS))),
                ]
                for preset, statistics in result.presets.items()
            ],
        ),
    ]
    if result.has_reference:
        parts.append(
            f"In brackets the difference to `{result.reference}`, with its 95 % interval. "
            + _interval_note(result)
        )
    else:
        parts.append(_no_reference(result))
    for kind, name in enumerate(ERROR_NAMES.values()):
        rows = [
            [
                row_of(preset)[0],
                f"`{preset}`",
                *(_count(statistics.errors, (kind, group), False) for group in range(len(GROUPS))),
            ]
            for preset, statistics in result.presets.items()
        ]
        parts += [f"{heading}# {name.capitalize()}", _markdown(["", "Preset", *GROUPS], rows)]
    if figure:
        parts.append(f"![Confusions by preset and Denver group]({figure})")
    return "\n\n".join(parts) + "\n"


_STYLE: dict = {"tablefmt": "simple", "disable_numparse": True}


def _value_rows(result: AblationResult, plus_minus: str) -> list[tuple[str, list[str]]]:
    rows = []
    for preset, statistics in result.presets.items():
        found = statistics.metrics
        cells = [
            "-"
            if math.isnan(mean)
            else f"{mean:.2f}"
            if math.isnan(sd)
            else f"{mean:.2f} {plus_minus} {sd:.2f}"
            for mean, sd in zip(found.mean, found.sd, strict=True)
        ]
        rows.append((preset, [*cells, str(len(found.values))]))
    return rows


def _difference_rows(result: AblationResult) -> list[tuple[str, list[str]]]:
    return [
        (
            preset,
            [_difference(statistics.metrics, (column,), 2) for column in range(len(METRICS))],
        )
        for preset, statistics in result.presets.items()
        if preset != result.reference
    ]


def _difference(found: Estimate, cell: tuple[int, ...], digits: int) -> str:
    """Returns "+1.20 [+0.40, +2.10]", or "-" where undefined."""
    if found.difference is None or found.low is None or found.high is None:
        return "-"
    numbers = [float(part[cell]) for part in (found.difference, found.low, found.high)]
    if any(math.isnan(number) for number in numbers):
        return "-"
    value, low, high = (f"{number:+.{digits}f}" for number in numbers)
    return f"{value} [{low}, {high}]"


def _count(found: Estimate, cell: tuple[int, ...], interval: bool) -> str:
    mean = f"{found.mean[cell]:.1f}"
    if found.difference is None:
        return mean
    if interval:
        return f"{mean} ({_difference(found, cell, 1)})"
    return f"{mean} ({found.difference[cell]:+.1f})"


def _data_line(result: AblationResult) -> str:
    return f"{result.num_images} test images, {result.num_gt} chromosomes"


def _no_reference(result: AblationResult) -> str:
    return f"No run of {result.reference} is among these, so there are no differences to it."


def _interval_note(result: AblationResult) -> str:
    return (
        f"Paired bootstrap, {result.resamples} resamples of the test images (seed {result.seed}), "
        "the same images for every run. The interval says how far a difference depends on which "
        "images were tested, not on the seed of the training: for that see the standard deviation. "
        "Images count as independent; those of one case are not quite, so it is rather too narrow."
    )


def _markdown(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [headers, ["---"] * len(headers), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
