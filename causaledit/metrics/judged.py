"""A metrics file judged: the one place that opens a verdict store for it and fills it."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from causaledit.errors import JudgingStoppedError, SaveError
from causaledit.judges.judging import judge_responses
from causaledit.judges.store import VerdictStore, analysis_folder, store_of
from causaledit.metrics.predictions import units_of
from causaledit.support.files import check_writable
from causaledit.support.progress import SilentProgress

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from causaledit.judges.base import Judge, Task
    from causaledit.judges.store import Unit, VerdictTable
    from causaledit.metrics.predictions import JudgedCase
    from causaledit.support.progress import ProgressSink

logger = logging.getLogger(__name__)


def judge_file(
    file: Path,
    cases: Sequence[JudgedCase],
    tasks: Sequence[Task],
    judge: Judge,
    *,
    workers: int = 1,
    retry_errors: bool = False,
    also: Sequence[Path] = (),
    progress: ProgressSink | None = None,
    label: str = "",
    must_keep: bool = True,
) -> VerdictTable:
    """Judge the cases of a metrics file; known verdicts come from the store beside it, and new ones go into it.

    Args:
        file: The metrics file.
        cases: What to judge, from `cases_of`.
        tasks: What to ask.
        judge: The judge.
        workers: Requests at a time, for a judge that waits for an endpoint.
        retry_errors: Judge again the responses whose verdict is an error.
        also: Other metrics files whose stores are also read.
        progress: Where progress goes.
        label: What is judged, for the progress; the judge's name where it is empty.
        must_keep: Refuse a store that cannot be used; else its verdicts are used and not kept, with a warning.

    Raises:
        JudgingStoppedError: The judge cannot continue; the message says what is kept.
        KeyboardInterrupt: On Ctrl-C, with such a message.
        SaveError: The store cannot be read or written, and `must_keep`.
    """
    progress = progress or SilentProgress()
    units = units_of(cases, tasks)
    store = _open(file, judge, also, must_keep)
    try:
        return judge_responses(
            judge,
            units,
            store=store,
            workers=workers,
            retry_errors=retry_errors,
            on_start=lambda missing: progress.start(
                f"judging {label}" if label else f"judging ({judge.name})", missing
            ),
            on_verdict=progress.advance,
        )
    except JudgingStoppedError as error:
        raise JudgingStoppedError(f"{error}{_kept(store, units, judge)}") from error
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"interrupted{_kept(store, units, judge)}") from None
    finally:
        progress.finish()
        if store is not None:
            store.close()


def _open(file: Path, judge: Judge, also: Sequence[Path], must_keep: bool) -> VerdictStore | None:
    try:
        if not must_keep:
            check_writable(analysis_folder(file), "the run's folder")
        return VerdictStore(store_of(file, judge.name), also=[store_of(f, judge.name) for f in also])
    except SaveError as error:
        if must_keep:
            raise
        logger.warning("%s: verdicts are not kept: %s", file, error)
        return None


def _kept(store: VerdictStore | None, units: Sequence[Unit], judge: Judge) -> str:
    if store is None:
        return ""
    wanted = set(units)
    kept = sum(store.get(response.key(task, judge.identity)) is not None for task, response in wanted)
    return f": {kept} of {len(wanted)} verdicts are kept in {store.path}"


def check_some_verdict(*tables: VerdictTable) -> str | None:
    """A message about verdicts that could not be reached, or None.

    Args:
        tables: The verdicts of one run or of several.

    Raises:
        JudgingStoppedError: There are errors and not a single verdict.
    """
    errors: dict[str, int] = {}
    for table in tables:
        for reason, count in table.errors().items():
            errors[reason] = errors.get(reason, 0) + count
    if not errors:
        return None
    number, total = sum(errors.values()), sum(map(len, tables))
    often = max(errors, key=errors.__getitem__)
    found = f"{number} of {total} responses could not be judged, most often: {often[:200]}"
    if number == total:
        raise JudgingStoppedError(f"{found}. No metric can be given.")
    return f"{found}. They count in no metric; --retry-errors judges them again."
