"""What the page shows of training: losses of the stages and rewards, step by step, over all edits of a run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from causaledit.metrics.wording import Worded, counted
from causaledit.report.plots import COLOURS, panels, style, svg
from causaledit.support.curves import (
    FLAT_GROUPS,
    aligned,
    curve_label,
    first_and_last,
    is_reward,
    missing_gradient,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from causaledit.report.runs import ReportedRun

_COLUMNS = 3


@dataclass(frozen=True)
class RunCurve:
    """One curve of a run, over all its edits.

    Attributes:
        name: As in the run's files.
        edits: How many edits have it.
        values: Per step one value for each group of edits that was trained together.
    """

    name: str
    edits: int
    values: list[tuple[float, ...]]

    @property
    def means(self) -> list[float]:
        """The mean over the groups, per step."""
        return [sum(step) / len(step) for step in self.values]


def curves_of(run: ReportedRun) -> list[RunCurve]:
    """The curves of a run, in the order of its stages."""
    names = dict.fromkeys(name for group in run.source.losses for name in group.curves)
    found = []
    for name in names:
        groups = [group for group in run.source.losses if name in group.curves]
        edits = sum(group.edits for group in groups)
        found.append(RunCurve(name, edits, aligned([group.curves[name] for group in groups])))
    return found


def training_rows(runs: Sequence[ReportedRun]) -> list[tuple[str, list[Worded]]]:
    """One row per curve that some run has."""
    columns = [{curve.name: curve for curve in curves_of(run)} for run in runs]
    names = dict.fromkeys(name for column in columns for name in column)
    return [(curve_label(name), [_cell(column.get(name)) for column in columns]) for name in names]


def _cell(curve: RunCurve | None) -> Worded:
    if curve is None:
        return Worded()
    count = f"{counted(curve.edits, 'edit')}, {counted(len(curve.values), 'step')}"
    return Worded(first_and_last(curve.means[0], curve.means[-1]), count)


def training_notes(runs: Sequence[ReportedRun]) -> list[str]:
    """Where rewards gave no gradient, or hardly any."""
    notes = []
    for run in runs:
        rewarded = [group for group in run.source.losses if FLAT_GROUPS in group.curves]
        flat = [value for group in rewarded for value in group.curves[FLAT_GROUPS]]
        note = missing_gradient({FLAT_GROUPS: flat})
        without = sum(group.edits for group in rewarded if min(group.curves[FLAT_GROUPS]) >= 1)
        edits = sum(group.edits for group in rewarded)
        if without and without < edits:
            alone = f"{without} of {counted(edits, 'edit')} got no gradient from the rewards at all"
            note = f"{note}; {alone}" if note else alone
        if note:
            notes.append(f"{run.label}: {note}.")
    return notes


def training_plot(run: ReportedRun, number: int) -> str | None:
    """A run's curves: a panel for the reward with its parts, and one for each other curve; None without any.

    Args:
        number: The run's place on the page, which its colour goes by.
    """
    curves = curves_of(run)
    rewards = [curve for curve in curves if is_reward(curve.name)]
    groups = [[curve] for curve in curves if not is_reward(curve.name)] + ([rewards] if rewards else [])
    if not groups:
        return None
    columns = min(_COLUMNS, len(groups))
    rows = -(-len(groups) // columns)
    with style():
        figure, axes = panels(rows, columns, height=2.4 * rows)
        for axis, group in zip(axes, groups, strict=False):
            several = len(group) > 1
            axis.set_title("rewards" if several else curve_label(group[0].name), fontsize=9)
            for place, curve in enumerate(group):
                _draw(axis, curve, COLOURS[(place if several else number) % len(COLOURS)])
            axis.set_xlabel("step")
            axis.xaxis.get_major_locator().set_params(integer=True)
            if several:
                axis.set_ylim(-0.03, 1.03)
                axis.legend(frameon=False, fontsize=7)
        for unused in axes[len(groups) :]:
            unused.set_visible(False)
        return svg(figure)


def _part(name: str) -> str:
    return curve_label(name).removeprefix("reward: ").removeprefix("reward, ")


def _draw(axis: Any, curve: RunCurve, colour: str) -> None:
    import numpy as np

    steps = range(1, len(curve.values) + 1)
    axis.plot(steps, curve.means, color=colour, linewidth=1.6, marker="o", markersize=2.5, label=_part(curve.name))
    if len(curve.values[0]) > 1:
        low, high = np.percentile(np.asarray(curve.values), [25, 75], axis=1)
        axis.fill_between(steps, low, high, color=colour, alpha=0.15, linewidth=0)
