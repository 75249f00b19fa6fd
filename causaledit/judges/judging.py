"""Judge responses: in workers, checkpointed into the store as the verdicts come."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from causaledit.errors import JudgingStoppedError
from causaledit.judges.base import Judge
from causaledit.judges.prompts import ENDPOINT_ERROR, Verdict
from causaledit.judges.store import Unit, VerdictStore, VerdictTable
from causaledit.support.workers import GaveUpError, in_workers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from causaledit.judges.base import JudgedResponse, Task

# an endpoint that failed for this many requests in a row is not asked again
FAILURES_IN_A_ROW = 3


@runtime_checkable
class BatchJudge(Judge, Protocol):
    """A judge that works on several responses at a time.

    One with `batches_at_a_time` is called from so many threads.
    """

    batch_size: int

    def judge_many(self, task: Task, items: Sequence[JudgedResponse]) -> list[Any]:
        """Verdicts for a batch of responses, in order."""


def judge_responses(
    judge: Judge,
    units: Iterable[Unit],
    *,
    store: VerdictStore | None = None,
    workers: int = 1,
    retry_errors: bool = False,
    on_start: Callable[[int], None] | None = None,
    on_verdict: Callable[[], None] | None = None,
) -> VerdictTable:
    """Judge responses, taking from the store what is there and adding to it what is not.

    Args:
        judge: The judge. One with `judge_many(task, responses)` and `batch_size` is given batches; one that says
            `concurrent = True` (it waits for others) is called from `workers` threads.
        units: What to judge: (task, response); repetitions are judged once.
        store: Where verdicts are kept as they come.
        workers: Threads, for such a judge.
        retry_errors: Judge again what is kept as an error.
        on_start: Told how many verdicts are missing.
        on_verdict: Called after each of them.

    Raises:
        JudgingStoppedError: The judge cannot go on; what came before is in the store.
    """
    table = VerdictTable(judge.identity)
    todo: list[tuple[Unit, str]] = []
    for task, response in dict.fromkeys(units):
        key = response.key(task, judge.identity)
        kept = store.get(key) if store is not None else None
        if kept is None or (retry_errors and kept.error is not None):
            todo.append(((task, response), key))
        else:
            table.put(task, response, kept)
    if on_start is not None:
        on_start(len(todo))
    keys = dict(todo)
    for (task, response), verdict in _verdicts(judge, [unit for unit, _ in todo], workers):
        table.put(task, response, verdict)
        if store is not None and not _endpoint_failed(verdict):
            store.add(keys[task, response], task, judge.identity, verdict)
        if on_verdict is not None:
            on_verdict()
    return table


def judge_one(judge: Judge, task: Task, response: JudgedResponse) -> Any:
    """The judge's method for a task."""
    method = {
        "answer": judge.judge_answer,
        "refutation": judge.judge_refutation,
        "rationale": judge.judge_rationale,
    }[task]
    return method(response)


def _verdicts(judge: Judge, units: Sequence[Unit], workers: int) -> Iterator[tuple[Unit, Verdict]]:
    if isinstance(judge, BatchJudge):
        at_a_time = getattr(judge, "batches_at_a_time", 1)
        for (task, batch), verdicts in in_workers(
            lambda part: judge.judge_many(*part), _batches(units, judge.batch_size), workers=at_a_time
        ):
            yield from zip([(task, response) for response in batch], verdicts, strict=True)
        return
    last = ""
    try:
        for unit, verdict in in_workers(
            lambda unit: judge_one(judge, *unit),
            units,
            workers=workers if getattr(judge, "concurrent", False) else 1,
            failed=_endpoint_failed,
            give_up_after=FAILURES_IN_A_ROW,
            on_stop=getattr(judge, "stop", None),
        ):
            if _endpoint_failed(verdict):
                last = verdict.error.removeprefix(ENDPOINT_ERROR)
            yield unit, verdict
    except GaveUpError:
        raise JudgingStoppedError(f"{last} ({FAILURES_IN_A_ROW} requests in a row failed)") from None


def _batches(units: Sequence[Unit], size: int) -> list[tuple[Task, list[JudgedResponse]]]:
    """Responses to the same task, those of like length beside each other: padding is work too."""
    found = []
    for task in dict.fromkeys(task for task, _ in units):
        responses = sorted((r for t, r in units if t == task), key=lambda r: len(r.prompt) + len(r.response))
        found += [(task, responses[start : start + size]) for start in range(0, len(responses), size)]
    return found


def _endpoint_failed(verdict: Verdict) -> bool:
    """Whether a verdict is missing through the endpoint's fault, not the response's."""
    return (verdict.error or "").startswith(ENDPOINT_ERROR)
