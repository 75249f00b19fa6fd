"""Verdicts on disk, and judging with them: cache, checkpoint and resume are one append-only file.

A verdict's key is a hash of everything it depends on (`JudgedResponse.key`), so a store may hold verdicts
of several judges, tasks and runs, and nothing in it is ever stale.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from causaledit.errors import SaveError
from causaledit.judges.base import JudgedResponse, Task, verdict_to_dict
from causaledit.judges.prompts import Verdict, verdict_from_dict
from causaledit.support.jsonl import JsonlWriter, read_lines
from causaledit.support.paths import expanded

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


logger = logging.getLogger(__name__)

Unit = tuple[Task, JudgedResponse]


def analysis_folder(file: Path) -> Path:
    """Where verdicts and analyses of a metrics file lie."""
    return expanded(file).parent / "analysis"


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

    def get(self, task: Task, response: JudgedResponse | None) -> Verdict | None:
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
    """An append-only file of verdicts, one JSON line each (`support.jsonl`). Use as a context manager.

    A broken line is passed over: what it held is judged again.

    Args:
        path: The file; its folder is made when the first verdict is written.
        also: Further stores to read from.

    Raises:
        SaveError: A store cannot be read.
    """

    def __init__(self, path: str | Path, *, also: Iterable[str | Path] = ()) -> None:
        self.path = Path(path)
        self._writer = JsonlWriter(self.path)
        self._rows: dict[str, tuple[Task, dict[str, Any]]] = {}
        for file in (*map(Path, also), self.path):
            self._rows.update(_read_rows(file))

    def __len__(self) -> int:
        return len(self._rows)

    def __enter__(self) -> VerdictStore:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def get(self, key: str) -> Verdict | None:
        """The verdict kept under a key, or None."""
        if key not in self._rows:
            return None
        task, data = self._rows[key]
        return verdict_from_dict(task, data)

    def add(self, key: str, task: Task, judge: str, verdict: Verdict) -> None:
        """Append a verdict.

        Raises:
            SaveError: The file cannot be written.
        """
        data = verdict_to_dict(verdict)
        self._writer.append({"key": key, "task": task, "judge": judge, "verdict": data})
        self._rows[key] = (task, data)

    def close(self) -> None:
        """Synchronise and close the file."""
        self._writer.close()


def _read_rows(path: Path) -> Iterator[tuple[str, tuple[Task, dict[str, Any]]]]:
    if not path.is_file():
        return
    broken = 0
    try:
        for line in read_lines(path):
            try:
                row = line.row or {}
                task, verdict = row["task"], row["verdict"]
                verdict_from_dict(task, verdict)
                key = row["key"]
            except (ValueError, KeyError, TypeError):
                broken += 1
                continue
            yield key, (task, verdict)
    except OSError as error:
        raise SaveError(f"The verdict store {str(path)!r} cannot be read: {error.strerror}.") from None
    if broken:
        logger.warning("%s: %d broken line(s) passed over; what they held is judged again", path, broken)
