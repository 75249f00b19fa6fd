"""The report's plots, as SVG texts. Every point has its 95 % interval and its value beside it.

Colours are those of Okabe and Ito, which colour-blind readers tell apart; a run keeps its colour and marker in all
plots. Text is drawn as paths, so that a page looks the same everywhere.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

from causaledit.metrics.wording import percent
from causaledit.report.tables import HOP_MEASURES, MEASURES, Measure, chain_lengths, cost_of, seconds_per_edit

if TYPE_CHECKING:
    from collections.abc import Sequence

    from causaledit.report.runs import ReportedRun
    from causaledit.support.statistics import Mean, Rate

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#000000", "#E69F00", "#56B4E9")
MARKERS = ("o", "s", "D", "^", "v", "P", "X")
_INK, _GREY, _GRID = "#1f2328", "#57606a", "#d8dee4"
_STYLE: dict[str, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "svg.fonttype": "path",
    "svg.hashsalt": "causaledit",
    "text.parse_math": False,
    "text.color": _INK,
    "axes.edgecolor": _GREY,
    "axes.labelcolor": _GREY,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.axisbelow": True,
    "xtick.color": _GREY,
    "ytick.color": _INK,
}
WIDTH = 10.0  # inches


def metrics_plot(runs: Sequence[ReportedRun]) -> str | None:
    """The main metrics, one panel each, one row per run; None where there is nothing to draw."""
    shown = [m for m in MEASURES if m.drawn and any(_rate(m.of(run.metrics)) is not None for run in runs)]
    if not shown:
        return None
    columns = min(2, len(shown))
    rows = -(-len(shown) // columns)
    with style():
        figure, axes = panels(rows, columns, height=rows * (0.95 + 0.3 * len(runs)), share_rows=True)
        for axis, measure in zip(axes, shown, strict=False):
            _dots(axis, measure, runs)
        for number, axis in enumerate(axes):
            axis.set_visible(number < len(shown))
        return svg(figure)


def _dots(axis: Any, measure: Measure, runs: Sequence[ReportedRun]) -> None:
    better = "lower is better" if measure.lower_is_better else "higher is better"
    axis.set_title(measure.name)
    axis.text(1, 1.02, better, transform=axis.transAxes, ha="right", va="bottom", fontsize=8, color=_GREY)
    for row, run in enumerate(runs):
        measured = measure.of(run.metrics)
        value = _rate(measured)
        beside = "not known"
        if value is not None:
            _point(axis, 100 * value, row, errors_of(measured), run_number=row, horizontal=True)
            beside = percent(value)
        axis.annotate(
            beside, (1.02, row), xycoords=("axes fraction", "data"), va="center", fontsize=9,
            color=_INK if value is not None else _GREY,
        )  # fmt: skip
    axis.set_yticks(range(len(runs)), [_short(run.label) for run in runs])
    axis.set_ylim(len(runs) - 0.4, -0.6)
    axis.tick_params(axis="y", length=0, pad=9)  # a marker at 0 extends beyond the axis
    axis.spines["left"].set_visible(False)
    percent_axis(axis.xaxis, axis.set_xlim)


def chains_plot(runs: Sequence[ReportedRun]) -> str | None:
    """Accuracies and SRR by length of the chain, one panel each; None without chains of two lengths."""
    lengths = [length for length in chain_lengths(runs) if length]
    wanted = [m for m in HOP_MEASURES if m.name != "M-Acc, any question"]
    values = {
        (m.name, n, length): m.of(run.metrics.by_hops[length])
        for m in wanted
        for n, run in enumerate(runs)
        for length in lengths
        if length in run.metrics.by_hops
    }
    shown = [m for m in wanted if any(_rate(f) is not None for (name, *_), f in values.items() if name == m.name)]
    if len(lengths) < 2 or not shown:
        return None
    with style():
        figure, axes = panels(1, len(shown), height=3.2)
        spread = min(0.16, 0.7 / len(runs))
        for axis, measure in zip(axes, shown, strict=True):
            axis.set_title(measure.name, pad=10)
            better = "lower is better" if measure.lower_is_better else "higher is better"
            axis.set_xlabel(f"hops of the chain ({better})")
            for n in range(len(runs)):
                for place, length in enumerate(lengths):
                    found = values.get((measure.name, n, length))
                    value = _rate(found)
                    if value is not None:
                        x = place + spread * (n - (len(runs) - 1) / 2)
                        _point(axis, x, 100 * value, errors_of(found), run_number=n, horizontal=False)
            axis.set_xticks(range(len(lengths)), [str(length) for length in lengths])
            axis.set_xlim(-0.5, len(lengths) - 0.5)
            axis.tick_params(axis="x", length=0)
            percent_axis(axis.yaxis, axis.set_ylim)
        if len(runs) > 1:
            legend(figure, runs)
        return svg(figure)


def costs_plot(runs: Sequence[ReportedRun]) -> str | None:
    """Seconds per edit and peak memory as bars from zero; None unless two runs can be set side by side."""
    shown = [
        ("Editing: seconds per edit", [seconds_per_edit(run) for run in runs], "{:,.1f} s"),
        ("Peak memory, GB", [_gigabytes(cost_of(run, "peak_rss_mb")) for run in runs], "{:.1f} GB"),
        ("Peak GPU memory, GB", [_gigabytes(cost_of(run, "peak_gpu_mb")) for run in runs], "{:.1f} GB"),
    ]
    shown = [panel for panel in shown if sum(value is not None for value in panel[1]) > 1]
    if not shown:
        return None
    with style():
        figure, axes = panels(1, len(shown), height=0.9 + 0.3 * len(runs), share_rows=True)
        for axis, (title, values, form) in zip(axes, shown, strict=True):
            axis.set_title(title)
            most = max(value for value in values if value is not None) or 1.0
            for row, value in enumerate(values):
                axis.barh(row, value or 0.0, height=0.55, color=COLOURS[row % len(COLOURS)])
                beside = "not known" if value is None else form.format(value)
                axis.annotate(
                    beside, (value or 0.0, row), xytext=(4, 0), textcoords="offset points", va="center",
                    color=_GREY if value is None else _INK,
                )  # fmt: skip
            axis.set_xlim(0, 1.3 * most)
            axis.set_xticks([])
            axis.spines["bottom"].set_visible(False)
            axis.set_yticks(range(len(runs)), [_short(run.label) for run in runs])
            axis.set_ylim(len(runs) - 0.4, -0.6)
            axis.tick_params(axis="y", length=0)
        return svg(figure)


# ---- parts ---------------------------------------------------------------------------------------------------------
def style() -> Any:
    """The page's look, for a block that draws."""
    import matplotlib

    settings: Any = {**matplotlib.rcParamsDefault, "backend": matplotlib.rcParams["backend"], **_STYLE}
    return matplotlib.rc_context(settings)


def panels(rows: int, columns: int, *, height: float, share_rows: bool = False) -> tuple[Any, list[Any]]:
    """A figure without pyplot, which would keep it in memory and need a display."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, height))
    figure.set_layout_engine("constrained", h_pad=0.06, w_pad=0.06, hspace=0.1, wspace=0.04)
    axes = figure.subplots(rows, columns, squeeze=False, sharey="row" if share_rows else False)
    return figure, list(axes.flat)


def _point(
    axis: Any, x: float, y: float, errors: tuple[float, float] | None, *, run_number: int, horizontal: bool
) -> None:
    bars = {} if errors is None else {"xerr" if horizontal else "yerr": [[errors[0]], [errors[1]]]}
    axis.errorbar(
        x, y, **bars, fmt=MARKERS[run_number % len(MARKERS)], color=COLOURS[run_number % len(COLOURS)], markersize=6,
        elinewidth=1.6, capsize=3, clip_on=False, zorder=3,
    )  # fmt: skip


def percent_axis(axis: Any, limit: Any) -> None:
    """An axis of shares, from 0 to 100 %."""
    limit(0, 100)
    axis.set_ticks([0, 25, 50, 75, 100], ["0", "25", "50", "75", "100 %"])
    axis.grid(color=_GRID, linewidth=0.8)
    axis.set_tick_params(length=0)


def legend(figure: Any, runs: Sequence[ReportedRun]) -> None:
    """A legend of the runs, above the panels."""
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], linestyle="", marker=MARKERS[n % len(MARKERS)], color=COLOURS[n % len(COLOURS)])
        for n in range(len(runs))
    ]
    labels = [_short(run.label) for run in runs]
    figure.legend(handles, labels, loc="outside upper left", ncols=4, frameon=False, handletextpad=0.2)


def _rate(measured: Rate | Mean | None) -> float | None:
    return None if measured is None else measured.rate


def errors_of(measured: Rate | Mean | None) -> tuple[float, float] | None:
    """Distances to the ends of the interval, in percentage points."""
    if measured is None or measured.rate is None or measured.interval is None:
        return None
    low, high = measured.interval
    return (max(0.0, 100 * (measured.rate - low)), max(0.0, 100 * (high - measured.rate)))


def _gigabytes(megabytes: float | None) -> float | None:
    return None if megabytes is None else megabytes / 1024


def _short(label: str, longest: int = 26) -> str:
    return label if len(label) <= longest else f"{label[: longest - 1]}…"


def svg(figure: Any) -> str:
    """A figure as an SVG text."""
    stream = io.StringIO()
    figure.savefig(stream, format="svg", metadata={"Date": None})
    return stream.getvalue()
