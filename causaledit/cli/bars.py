"""Progress of runs and comparisons, drawn with rich."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.console import Console

    from causaledit.comparison.execution import MethodRow
    from causaledit.comparison.plan import ComparePlan
    from causaledit.support.progress import ProgressSink


class RunBars:
    """A bar over the cases with the averages so far, and under it what the method is doing."""

    def __init__(self, console: Console) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self._progress = Progress(
            TextColumn("{task.description:<22}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,  # a log file gets a line per case instead
        )
        self._cases: Any = None
        self._stage: Any = None
        self._workers = ""
        self._rate = CaseRate()
        self.stages: ProgressSink = self

    def __enter__(self) -> RunBars:
        self._progress.start()
        self._cases = self._progress.add_task("loading the model", total=None, note="")
        return self

    def __exit__(self, *exc: object) -> None:
        self.finish()
        self._progress.stop()

    # ---- the run ---------------------------------------------------------------------------------
    def begin(self, plan: Any, done: int) -> None:
        """See `RunSink.begin`."""
        self._rate = CaseRate()
        self._progress.reset(self._cases, description="cases", total=len(plan.cases), completed=done, note="")

    def workers(self, ready: int, wanted: int) -> None:
        """See `RunSink.workers`."""
        self._workers = f"{ready} of {wanted} workers" if ready < wanted else f"{ready} workers"

    def case_done(self, case_id: int | str, running: Mapping[str, Any]) -> None:
        """See `RunSink.case_done`."""
        self._rate.done += 1
        far = averages_text(running)
        if self._workers:
            far = ", ".join(part for part in (self._workers, self._rate.text(), far) if part)
        self._progress.update(self._cases, advance=1, note=far)
        if self._progress.disable:
            line = f"case {case_id}: so far {far}" if far else f"case {case_id} done"
            self._progress.console.print(line, highlight=False, soft_wrap=True)

    # ---- the method's stages (ProgressSink) ------------------------------------------------------
    def start(self, stage: str, total: int | None) -> None:
        """See `ProgressSink.start`."""
        self.finish()
        self._stage = self._progress.add_task(stage, total=total, note="")

    def advance(self, *, loss: float | None = None, tokens: int = 0) -> None:
        """See `ProgressSink.advance`."""
        if self._stage is not None:
            self._progress.update(self._stage, advance=1, note="" if loss is None else f"loss {loss:.3f}")

    def finish(self) -> None:
        """See `ProgressSink.finish`."""
        if self._stage is not None:
            self._progress.remove_task(self._stage)
            self._stage = None


class CaseRate:
    """Cases per minute since it was made."""

    def __init__(self) -> None:
        self._began, self.done = time.monotonic(), 0

    def text(self) -> str:
        """The rate as a few words; empty before the second case."""
        minutes = (time.monotonic() - self._began) / 60
        return f"{self.done / minutes:.1f} cases/min" if self.done > 1 and minutes else ""


_NAMES = {
    "hop_wise": "hops",
    "accuracy": "multi-hop",
    "any_right_accuracy": "any of 3",
    "old_knowledge": "old known",
    "locality": "locality",
}


def averages_text(running: Mapping[str, Any]) -> str:
    """Averages as one line; probes that were not asked are left out."""
    shown = [f"{label} {running[name]:.0%}" for name, label in _NAMES.items() if running.get(name) is not None]
    for metric, found in (running.get("portability") or {}).items():
        if metric.endswith("/direct"):  # the paper's match, for the answer alone
            shown.append(f"{metric.removesuffix('/direct').replace('/', ' ')} {found['hits']}/{found['total']}")
    if running.get("failed"):
        shown.append(f"{running['failed']} failed")
    return ", ".join(shown)


class CompareBars(RunBars):
    """A bar over the methods, under it those of the method's run."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self._methods: Any = None
        self._method = ""

    def __enter__(self) -> CompareBars:
        self._progress.start()
        self._methods = self._progress.add_task("methods", total=None, note="")
        self._cases = self._progress.add_task("cases", total=None, note="", visible=False)
        return self

    def begin_methods(self, plan: ComparePlan) -> None:
        """See `CompareSink.begin_methods`."""
        self._progress.update(self._methods, total=len(plan.methods))

    def begin_method(self, row: MethodRow) -> None:
        """See `CompareSink.begin_method`."""
        self._method = row.method
        self._progress.update(self._methods, note=row.method)
        self._progress.reset(self._cases, description="loading the model", total=None, note="", visible=True)

    def begin(self, plan: Any, done: int) -> None:
        """See `RunSink.begin`."""
        super().begin(plan, done)
        if self._progress.disable and done:
            self._progress.console.print(f"{self._method}: {done} cases are already done", highlight=False)

    def case_done(self, case_id: int | str, running: Mapping[str, Any]) -> None:
        """See `RunSink.case_done`."""
        super().case_done(f"{case_id} ({self._method})", running)

    def method_done(self, row: MethodRow) -> None:
        """See `CompareSink.method_done`."""
        self.finish()
        self._progress.update(self._methods, advance=1)
        done = f"{row.method}: {row.finished_cases} of {row.cases} cases"
        problem = f"; {row.problem}" if row.problem else ""
        self._progress.console.print(f"{done}{problem}", highlight=False, markup=False, soft_wrap=True)
