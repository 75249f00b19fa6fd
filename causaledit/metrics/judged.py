"""A judged run: verdicts for the predictions of a metrics file, kept beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from causaledit.judges.base import Judge, Task
    from causaledit.judges.store import VerdictTable


def judge_file(
    file: Path,
    cases: Sequence[Any],
    tasks: Sequence[Task],
    judge: Judge,
    *,
    workers: int,
    retry_errors: bool,
    also: Sequence[Path] = (),
) -> VerdictTable:
    """Judge the cases of a file, with its store and a progress bar.

    Args:
        file: The metrics file; its store gets the new verdicts.
        cases: What to judge, from `read_cases`.
        tasks: What to ask.
        judge: The judge.
        workers: Calls at a time.
        retry_errors: Judge again what could not be judged before.
        also: Other metrics files whose stores are read.

    Raises:
        JudgingStoppedError: The judge cannot go on, or Ctrl-C; the message says what is kept.
    """
    from causaledit.errors import JudgingStoppedError
    from causaledit.judges.judging import judge_responses
    from causaledit.judges.store import VerdictStore, store_of
    from causaledit.metrics.predictions import units_of
    from causaledit.support.progress import terminal_progress

    path = store_of(file, judge.name)
    units = units_of(cases, tasks)
    with VerdictStore(path, also=[store_of(f, judge.name) for f in also]) as store, terminal_progress() as progress:
        try:
            return judge_responses(
                judge,
                units,
                store=store,
                workers=workers,
                retry_errors=retry_errors,
                on_start=lambda missing: progress.start(f"judging ({judge.name})", missing),
                on_verdict=progress.advance,
            )
        except (JudgingStoppedError, KeyboardInterrupt) as error:
            kept = sum(
                store.get(response.key(task, judge.identity)) is not None for task, response in dict.fromkeys(units)
            )
            raise JudgingStoppedError(
                f"{str(error) or 'interrupted'}: {kept} of {len(set(units))} verdicts are kept in {path}; the same "
                "command goes on from there."
            ) from error
        finally:
            progress.finish()


def check_some_verdict(table: VerdictTable) -> str | None:
    """What to tell the user about verdicts that could not be reached, or None.

    Raises:
        JudgingStoppedError: There is not a single one.
    """
    from causaledit.errors import JudgingStoppedError

    errors = table.errors()
    if not errors:
        return None
    number, first = sum(errors.values()), max(errors, key=errors.__getitem__)
    told = f"{number} of {len(table)} responses could not be judged, most often: {first[:200]}"
    if number == len(table):
        raise JudgingStoppedError(f"{told}. No figure can be given.")
    return f"{told}. They are in no figure; --retry-errors judges them again."
