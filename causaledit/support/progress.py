"""Progress of a long edit: what the method reports, and the rich bars that show it.

The library reports through a `ProgressSink`; it never prints. `RichProgress` is what the command line
and, in a terminal, the hosts attach.
"""

from __future__ import annotations

import contextlib
import sys
import time
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator


class ProgressSink(Protocol):
    """Receives the method's progress."""

    def start(self, stage: str, total: int | None) -> None:
        """A stage begins; `total` is its number of steps where that is known."""

    def advance(self, *, loss: float | None = None, tokens: int = 0) -> None:
        """One step of the current stage is done."""

    def finish(self) -> None:
        """The current stage is over, early or not."""


class SilentProgress:
    """Shows nothing."""

    def start(self, stage: str, total: int | None) -> None:
        """See `ProgressSink.start`."""

    def advance(self, *, loss: float | None = None, tokens: int = 0) -> None:
        """See `ProgressSink.advance`."""

    def finish(self) -> None:
        """See `ProgressSink.finish`."""


class RichProgress:
    """One rich bar per stage: step, loss, tokens per second, time left. Use as a context manager."""

    def __init__(self, console: Any = None) -> None:
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        from causaledit.support.console import plain_console

        self._progress = Progress(
            TextColumn("{task.description:<22}", markup=False),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[count]:>7}", style="progress.download"),
            TextColumn("{task.fields[loss]:<11} {task.fields[rate]:<10}"),
            TimeRemainingColumn(),
            console=console or plain_console(stderr=True),
            transient=False,
        )
        self._task: Any = None
        self._started = 0.0
        self._tokens = 0

    def __enter__(self) -> RichProgress:
        self._progress.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._progress.stop()

    def start(self, stage: str, total: int | None) -> None:
        """See `ProgressSink.start`."""
        count = "" if total is None else f"0/{total}"
        self._task = self._progress.add_task(stage, total=total, count=count, loss="", rate="")
        self._started, self._tokens = time.perf_counter(), 0

    def advance(self, *, loss: float | None = None, tokens: int = 0) -> None:
        """See `ProgressSink.advance`."""
        if self._task is None:
            return
        self._tokens += tokens
        seconds = max(time.perf_counter() - self._started, 1e-6)
        fields: dict[str, Any] = {"rate": f"{self._tokens / seconds:.0f} tok/s" if self._tokens else ""}
        if loss is not None:
            fields["loss"] = f"loss {loss:.3f}"
        task = self._current()
        fields["count"] = f"{task.completed + 1:.0f}" + ("" if task.total is None else f"/{task.total:.0f}")
        self._progress.update(self._task, advance=1, **fields)

    def finish(self) -> None:
        """See `ProgressSink.finish`."""
        if self._task is None:
            return
        if done := self._current().completed:
            self._progress.update(self._task, total=done, count=f"{done:.0f}/{done:.0f}")
        else:  # there was nothing to do, and nothing to show
            self._progress.remove_task(self._task)
        self._task = None

    def _current(self) -> Any:
        return next(task for task in self._progress.tasks if task.id == self._task)


@contextlib.contextmanager
def terminal_progress() -> Iterator[ProgressSink]:
    """Rich bars where standard error is a terminal, nothing otherwise (logs stay readable)."""
    if sys.stderr.isatty():
        with RichProgress() as progress:
            yield progress
    else:
        yield SilentProgress()
