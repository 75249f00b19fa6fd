"""Verdicts on disk, and judging with them: cache, checkpoint and resume are one append-only file.

A verdict's key is a hash of everything it depends on (`JudgedResponse.key`), so a store may hold verdicts
of several judges, tasks and runs, and nothing in it is ever stale.
"""

from __future__ import annotations

import json
import logging
import os
import queue
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from causaledit.errors import SaveError
from causaledit.judges.base import JudgedResponse, Task, verdict_to_dict
from causaledit.judges.prompts import ENDPOINT_ERROR, Verdict, verdict_from_dict

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from causaledit.judges.base import Judge

logger = logging.getLogger(__name__)

SYNC_SECONDS = 1.0

Unit = tuple[Task, JudgedResponse]


def analysis_folder(file: Path) -> Path:
    """Where verdicts and analyses of a metrics file lie."""
    return file.expanduser().parent / "analysis"


def store_of(file: Path, judge: str) -> Path:
    """The verdict store of a metrics file and a judge."""
    return analysis_folder(file) / f"verdicts_{judge}.jsonl"


class VerdictTable:
    """Verdicts of one judge in memory: `get(task, response)` is None where nothing was judged.

    Attributes:
        judge: The judge's identity.
    """

    def __init__(self, judge: str) -> None:
        self.judge = judge
        self._verdicts: dict[Unit, Verdict] = {}

    def get(self, task: Task, response: JudgedResponse | None) -> Any:
        """The verdict, or None."""
        return None if response is None else self._verdicts.get((task, response))

    def put(self, task: Task, response: JudgedResponse, verdict: Verdict) -> None:
        """Add or replace a verdict."""
        self._verdicts[task, response] = verdict

    def __len__(self) -> int:
        return len(self._verdicts)

    def errors(self) -> dict[str, int]:
        """How many verdicts could not be reached, by reason."""
        counts: dict[str, int] = {}
        for verdict in self._verdicts.values():
            if verdict.error is not None:
                counts[verdict.error] = counts.get(verdict.error, 0) + 1
        return counts


class VerdictStore:
    """An append-only file of verdicts, one JSON line each. Use as a context manager.

    A line is written whole, in one call, as soon as its verdict is there: after `kill -9` at most the line
    being written is lost, and a broken line is passed over. The file is synchronised to the disk once a
    second and at the end, which is what a power cut can cost.

    Args:
        path: The file; its folder is made when the first verdict is written.
        also: Further stores to read from.
    """

    def __init__(self, path: str | Path, *, also: Iterable[str | Path] = ()) -> None:
        self.path = Path(path)
        self._handle: int | None = None
        self._synchronised = 0.0
        self._lines: dict[str, tuple[Task, dict[str, Any]]] = {}
        for file in (*map(Path, also), self.path):
            self._lines.update(_read_lines(file))

    def __len__(self) -> int:
        return len(self._lines)

    def __enter__(self) -> VerdictStore:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def get(self, key: str) -> Verdict | None:
        """The verdict kept under a key, or None."""
        if key not in self._lines:
            return None
        task, data = self._lines[key]
        return verdict_from_dict(task, data)

    def add(self, key: str, task: Task, judge: str, verdict: Verdict) -> None:
        """Append a verdict.

        Raises:
            SaveError: The file cannot be written.
        """
        data = verdict_to_dict(verdict)
        line = json.dumps({"key": key, "task": task, "judge": judge, "verdict": data}, ensure_ascii=False) + "\n"
        try:
            if self._handle is None:
                self._handle = self._open()
            os.write(self._handle, line.encode())
            if time.monotonic() - self._synchronised > SYNC_SECONDS:
                os.fsync(self._handle)
                self._synchronised = time.monotonic()
        except OSError as error:
            raise SaveError(f"{str(self.path)!r} cannot be written: {error.strerror or error}.") from None
        self._lines[key] = (task, data)

    def close(self) -> None:
        """Synchronise and close the file."""
        if self._handle is not None:
            os.fsync(self._handle)
            os.close(self._handle)
            self._handle = None

    def _open(self) -> int:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
        size = os.fstat(handle).st_size
        if size and os.pread(handle, 1, size - 1) != b"\n":  # the last run was killed within a line
            os.write(handle, b"\n")
        return handle


def _read_lines(path: Path) -> Iterator[tuple[str, tuple[Task, dict[str, Any]]]]:
    if not path.is_file():
        return
    broken = 0
    try:
        with path.open("rb") as stream:
            for line in stream:
                if not line.strip():
                    continue
                try:
                    data = json.loads(line)
                    task, verdict = data["task"], data["verdict"]
                    verdict_from_dict(task, verdict)
                except (ValueError, KeyError, TypeError):
                    broken += 1
                    continue
                yield data["key"], (task, verdict)
    except OSError as error:
        raise SaveError(f"The verdict store {str(path)!r} cannot be read: {error.strerror}.") from None
    if broken:
        logger.warning("%s: %d broken line(s) passed over; what they held is judged again", path, broken)


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
