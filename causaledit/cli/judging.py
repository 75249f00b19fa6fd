"""What the commands that judge a file share: judging with a progress bar, and reporting the result."""

from __future__ import annotations

from typing import TYPE_CHECKING

from causaledit.support.console import plain_console

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from causaledit.cli.options import JudgeOptions
    from causaledit.judges.base import Judge, Task
    from causaledit.judges.store import VerdictTable
    from causaledit.metrics.predictions import JudgedCase


def judge_with_progress(
    file: Path,
    cases: Sequence[JudgedCase],
    tasks: Sequence[Task],
    judge: Judge,
    options: JudgeOptions,
    also: Sequence[Path] = (),
) -> VerdictTable:
    """`judge_file` with a progress bar.

    Raises:
        JudgingStoppedError: The judge cannot continue, or Ctrl-C; the message says what is kept.
        SaveError: The verdict store cannot be used.
    """
    from causaledit.errors import JudgingStoppedError
    from causaledit.metrics.judged import judge_file
    from causaledit.support.progress import terminal_progress

    try:
        with terminal_progress() as progress:
            return judge_file(
                file,
                cases,
                tasks,
                judge,
                workers=options.workers,
                retry_errors=options.retry_errors,
                also=also,
                progress=progress,
            )
    except (JudgingStoppedError, KeyboardInterrupt) as error:
        raise JudgingStoppedError(f"{error}; run the same command again to resume.") from error


def show(text: str, problem: str | None, written: str) -> None:
    """Print what was found, what could not be judged (to standard error), and where it was written."""
    console = plain_console(soft_wrap=True)
    console.print(text, highlight=False, markup=False)
    if problem:
        plain_console(stderr=True, soft_wrap=True).print(problem, highlight=False, markup=False)
    console.print(f"written to {written}", highlight=False, markup=False)
