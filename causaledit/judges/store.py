"""Verdicts on disk, and judging with them: cache, checkpoint and resume are one append-only file.

A verdict's key is a hash of everything it depends on (`JudgedResponse.key`), so a store may hold verdicts
of several judges, tasks and runs, and nothing in it is ever stale.
"""

from __future__ import annotations

import json
import logging
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from causaledit.errors import SaveError
from causaledit.judges.base import JudgedResponse, Task, verdict_to_dict
from causaledit.judges.prompts import Verdict, verdict_from_dict

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


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
