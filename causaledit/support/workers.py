"""Work that waits for others (an endpoint), done by a few threads: results come as they are ready.

One pool serves judging and narratives. It stops for three reasons, and after each of them nothing starts
new work: the caller goes away (Ctrl-C, an error while a result is handled), the work itself raises, or it fails so
often in a row that continuing is pointless.
"""

from __future__ import annotations

import queue
import threading
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

Item = TypeVar("Item")
Result = TypeVar("Result")


class GaveUpError(Exception):
    """Several results in a row were failures; items not yet begun have no result."""


def in_workers(
    work: Callable[[Item], Result],
    items: Iterable[Item],
    *,
    workers: int = 1,
    failed: Callable[[Result], bool] = lambda _: False,
    give_up_after: int | None = None,
    on_stop: Callable[[], None] | None = None,
) -> Iterator[tuple[Item, Result]]:
    """Do the work for every item, and give each result with its item as soon as it is there.

    Args:
        work: What to do with an item. With more than one worker it is called from several threads at a time.
        items: The items, in this order.
        workers: Number of threads; 1 works in the caller's own. Threads are daemons: an interrupted program does not
            wait for an endpoint that hangs.
        failed: Whether a result is a failure; for `give_up_after`.
        give_up_after: The number of consecutive failures, in order of arrival, that ends the work; None: never.
        on_stop: Called when calls may still be running that nothing waits for, so that they can end early.

    Raises:
        GaveUpError: After the results of all items that were begun, `give_up_after` failures came in a row.
        BaseException: What `work` raised, after the results that were there by then.
    """
    listed = list(items)
    streak = _Streak(failed, give_up_after)
    if workers > 1 and len(listed) > 1:
        yield from _Pool(work, listed, workers, streak).results(on_stop)
    else:
        for item in listed:
            result = work(item)
            streak.note(result)
            yield item, result
            if streak.over:
                break
    if streak.over:
        raise GaveUpError(f"{give_up_after} failures in a row")


class _Streak(Generic[Result]):
    """Counts failures in a row, from several threads."""

    def __init__(self, failed: Callable[[Result], bool], most: int | None) -> None:
        self._failed, self._most = failed, most
        self._lock = threading.Lock()
        self._count = 0
        self.over = False

    def note(self, result: Result) -> None:
        """Take a result into account; once it is over, it stays over."""
        with self._lock:
            self._count = self._count + 1 if self._failed(result) else 0
            self.over = self.over or (self._most is not None and self._count >= self._most)


class _Pool(Generic[Item, Result]):
    """The threads of one call of `in_workers`."""

    def __init__(
        self, work: Callable[[Item], Result], items: Sequence[Item], workers: int, streak: _Streak[Result]
    ) -> None:
        self._work, self._streak = work, streak
        self._stopped = threading.Event()
        self._waiting: queue.SimpleQueue[Item] = queue.SimpleQueue()
        for item in items:
            self._waiting.put(item)
        # results, what was raised, and None from every thread that ends
        self._done: queue.SimpleQueue[tuple[Item, Result] | BaseException | None] = queue.SimpleQueue()
        self._running = min(workers, len(items))

    def results(self, on_stop: Callable[[], None] | None) -> Iterator[tuple[Item, Result]]:
        """Start the threads and give what they return, until all have ended or one has raised."""
        for number in range(self._running):
            threading.Thread(target=self._thread, name=f"worker-{number}", daemon=True).start()
        try:
            while self._running:
                outcome = self._done.get()
                if isinstance(outcome, BaseException):
                    while not self._done.empty():  # what others finished meanwhile is kept
                        if isinstance(late := self._done.get(), tuple):
                            yield late
                    raise outcome
                if outcome is None:
                    self._running -= 1
                else:
                    yield outcome
        finally:
            self._stopped.set()
            if self._running and on_stop is not None:
                on_stop()

    def _thread(self) -> None:
        try:
            while not self._stopped.is_set():
                try:
                    item = self._waiting.get_nowait()
                except queue.Empty:
                    return
                result = self._work(item)
                self._streak.note(result)
                if self._streak.over:
                    self._stopped.set()
                self._done.put((item, result))
        except BaseException as error:  # handed to the caller's thread
            self._stopped.set()
            self._done.put(error)
        finally:
            self._done.put(None)
