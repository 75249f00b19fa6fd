"""Judge responses: in workers, checkpointed into the store as the verdicts come."""

from __future__ import annotations

import queue
import threading
from typing import TYPE_CHECKING, Any

from causaledit.judges.prompts import ENDPOINT_ERROR, Verdict
from causaledit.judges.store import Unit, VerdictStore, VerdictTable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from causaledit.judges.base import Judge, JudgedResponse, Task


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
        if store is not None and not (verdict.error or "").startswith(ENDPOINT_ERROR):
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
    if hasattr(judge, "judge_many"):
        # responses of like length beside each other: padding is work too
        for task in dict.fromkeys(task for task, _ in units):
            responses = sorted((r for t, r in units if t == task), key=lambda r: len(r.prompt) + len(r.response))
            for start in range(0, len(responses), judge.batch_size):
                batch = responses[start : start + judge.batch_size]
                for response, verdict in zip(batch, judge.judge_many(task, batch), strict=True):
                    yield (task, response), verdict
    elif workers > 1 and len(units) > 1 and getattr(judge, "concurrent", False):
        yield from _in_threads(judge, units, workers)
    else:
        for task, response in units:
            yield (task, response), judge_one(judge, task, response)


def _in_threads(judge: Judge, units: Sequence[Unit], workers: int) -> Iterator[tuple[Unit, Verdict]]:
    """Verdicts as they come. Threads are daemons: an interrupted program does not wait for a hanging endpoint."""
    waiting: queue.SimpleQueue[Unit] = queue.SimpleQueue()
    done: queue.SimpleQueue[tuple[Unit, Verdict | None, BaseException | None]] = queue.SimpleQueue()
    stopped = threading.Event()
    for unit in units:
        waiting.put(unit)

    def work() -> None:
        while not stopped.is_set():
            try:
                unit = waiting.get_nowait()
            except queue.Empty:
                return
            try:
                done.put((unit, judge_one(judge, *unit), None))
            except BaseException as error:  # handed to the caller's thread
                done.put((unit, None, error))
                return

    for number in range(min(workers, len(units))):
        threading.Thread(target=work, name=f"judge-{number}", daemon=True).start()
    left = len(units)
    try:
        while left:
            unit, verdict, failure = done.get()
            if failure is not None:
                stopped.set()
                while not done.empty():  # what others finished meanwhile is kept
                    unit, verdict, error = done.get()
                    if error is None:
                        yield unit, verdict
                raise failure
            left -= 1
            yield unit, verdict
    finally:
        stopped.set()
        if left and hasattr(judge, "stop"):
            judge.stop()
