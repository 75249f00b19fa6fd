"""What the page shows of sequences of edits: the retention and locality curves, and a heat map of step × checkpoint."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from causaledit.metrics.wording import Worded, worded_rate
from causaledit.report.plots import COLOURS, MARKERS, WIDTH, errors_of, legend, panels, percent_axis, style, svg

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from causaledit.metrics.retention import Checkpoint, Retention
    from causaledit.report.runs import ReportedRun
    from causaledit.support.statistics import Rate

CURVES: tuple[tuple[str, Callable[[Checkpoint], Rate]], ...] = (
    ("Earlier edits still held", lambda found: found.earlier),
    ("Edits of the current step held", lambda found: found.current),
    ("Locality: answer unchanged", lambda found: found.unchanged),
)
_MOST_NUMBERS = 25  # of steps or checkpoints, up to which a cell of the heat map has its number in it


@dataclass(frozen=True)
class SequenceRow:
    """One checkpoint of one run."""

    run: str
    edits: int
    current: Worded
    earlier: Worded
    unchanged: Worded
    still_right: Worded
    failed: int


def sequence_rows(runs: Sequence[ReportedRun]) -> list[SequenceRow]:
    """The table's rows; none where no run is a sequence."""
    return [
        SequenceRow(
            run.label,
            found.edits,
            worded_rate(found.current),
            worded_rate(found.earlier),
            worded_rate(found.unchanged),
            worded_rate(found.still_right),
            found.failed,
        )
        for run in runs
        for found in (run.metrics.retention.checkpoints if run.metrics.retention else ())
    ]


def curves_plot(runs: Sequence[ReportedRun]) -> str | None:
    """The curves against the number of edits, one panel each; None where no run is a sequence."""
    if not any(run.metrics.retention for run in runs):
        return None
    with style():
        figure, axes = panels(1, len(CURVES), height=3.0)
        for axis, (title, rate_of) in zip(axes, CURVES, strict=True):
            axis.set_title(title)
            axis.set_xlabel("edits made")
            percent_axis(axis.yaxis, axis.set_ylim)
            for number, run in enumerate(runs):
                if run.metrics.retention:
                    _curve(axis, number, run.metrics.retention, rate_of)
        legend(figure, runs)
        return svg(figure)


def _curve(axis: Any, number: int, retention: Retention, rate_of: Callable[[Checkpoint], Rate]) -> None:
    found = [(c.edits, rate_of(c)) for c in retention.checkpoints]
    known = [(edits, rate, errors_of(rate)) for edits, rate in found if rate.rate is not None]
    if not known:
        return
    axis.errorbar(
        [edits for edits, _, _ in known],
        [100 * (rate.rate or 0.0) for _, rate, _ in known],
        yerr=[[(errors or (0, 0))[side] for _, _, errors in known] for side in (0, 1)],
        fmt=f"{MARKERS[number % len(MARKERS)]}-", color=COLOURS[number % len(COLOURS)], markersize=5, linewidth=1.2,
        elinewidth=1.0, capsize=2, clip_on=False, zorder=3,
    )  # fmt: skip


def heat_map(run: ReportedRun) -> str | None:
    """Share of each step's edits held at each checkpoint; None where the run is no sequence."""
    retention = run.metrics.retention
    if retention is None or not retention.by_step:
        return None
    steps = sorted({step for step, _ in retention.by_step})
    checkpoints = [found.edits for found in retention.checkpoints]
    shares = [
        [rate.rate if (rate := retention.by_step.get((s, c))) and rate.rate is not None else float("nan")
         for c in checkpoints]
        for s in steps
    ]  # fmt: skip
    with style():
        figure, [axis] = panels(1, 1, height=min(8.0, 1.4 + 0.26 * len(steps)))
        figure.set_figwidth(min(WIDTH, 3.0 + 0.7 * len(checkpoints)))
        image = axis.imshow(shares, vmin=0, vmax=1, cmap="cividis", aspect="auto", interpolation="nearest")
        axis.set_xlabel("edits made")
        axis.set_ylabel("edits of step")
        axis.set_xticks(range(len(checkpoints)), [str(c) for c in checkpoints])
        if len(steps) <= _MOST_NUMBERS:
            axis.set_yticks(range(len(steps)), [str(s) for s in steps])
        if max(len(steps), len(checkpoints)) <= _MOST_NUMBERS:
            for row, own in enumerate(shares):
                for column, share in enumerate(own):
                    if share == share:
                        colour = "white" if share < 0.5 else "black"
                        axis.text(column, row, f"{100 * share:.0f}", ha="center", va="center", color=colour)
        figure.colorbar(image, ax=axis, label="share held")
        return svg(figure)
