"""JSON-lines files to which results are appended as they come: what a killed program leaves behind is intact.

A row is written in one call as soon as it is ready, so after `kill -9` at most the row being written is lost: readers
skip a last line that was cut, and the next writer removes it. The file is synchronised to the disk once
a second and at the end, so a power cut loses at most a second's rows.
"""

from __future__ import annotations

import json
import os
import threading
import time
import weakref
from typing import TYPE_CHECKING, Any, NamedTuple

from causaledit.errors import SaveError, ScaffoldError
from causaledit.support.json_text import read_json_text
from causaledit.support.paths import expanded

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path
    from types import TracebackType
    from typing import Self

SYNC_SECONDS = 1.0


class Line(NamedTuple):
    """One line that is not empty.

    Attributes:
        number: From 1, empty lines counted.
        text: The line.
        row: Its object; None where it holds no JSON object.
        cut: It holds none and lacks its line break: a program was killed while it wrote it.
    """

    number: int
    text: bytes
    row: dict[str, Any] | None
    cut: bool


def read_lines(path: Path) -> Iterator[Line]:
    """The lines of a file, one after the other.

    Raises:
        OSError: The file cannot be read.
    """
    with path.open("rb") as stream:
        for number, text in enumerate(stream, start=1):
            if text.strip():
                row = _row(text)
                yield Line(number, text, row, row is None and not text.endswith(b"\n"))


def _row(text: bytes) -> dict[str, Any] | None:
    try:
        row = read_json_text(text.decode("utf-8", "surrogatepass"))  # as `append` writes them
    except ValueError:
        return None
    return row if isinstance(row, dict) else None


class JsonlWriter:
    """Appends rows to a file. Thread-safe; neither the file nor its folder is created before the first row.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._handle: int | None = None
        self._release: weakref.finalize[..., JsonlWriter] | None = None
        self._synchronised = 0.0

    def append(self, row: Mapping[str, Any]) -> None:
        """Write a row.

        Raises:
            SaveError: The file cannot be written.
        """
        line = json.dumps(row, ensure_ascii=False).encode("utf-8", "surrogatepass") + b"\n"
        with self._lock:
            try:
                if self._handle is None:
                    self._open()
                assert self._handle is not None
                os.write(self._handle, line)
                if time.monotonic() - self._synchronised > SYNC_SECONDS:
                    os.fsync(self._handle)
                    self._synchronised = time.monotonic()
            except OSError as error:
                raise SaveError(f"{str(self.path)!r} cannot be written: {error.strerror or error}.") from None

    def close(self) -> None:
        """Synchronise and close the file; it is also closed when nobody holds the writer any longer."""
        with self._lock:
            if self._release is not None:
                self._release()
            self._handle = self._release = None

    def _open(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
        self._handle, self._release = handle, weakref.finalize(self, _close, handle)
        size = os.fstat(handle).st_size
        if size and os.pread(handle, 1, size - 1) != b"\n":
            last = _last_line(handle, size)
            if _row(last) is None:  # the last program was killed while it wrote this line
                os.ftruncate(handle, size - len(last))
            else:
                os.write(handle, b"\n")


def _last_line(handle: int, size: int) -> bytes:
    """What follows the last line break."""
    length = 4096
    while True:
        tail = os.pread(handle, min(length, size), max(size - length, 0))
        if b"\n" in tail or length >= size:
            return tail[tail.rfind(b"\n") + 1 :]
        length *= 2


def _close(handle: int) -> None:
    os.fsync(handle)
    os.close(handle)


class JsonlStore:
    """Rows by their `key`, in memory and in a file; the last one of a key counts. Thread-safe.

    Args:
        path: The file; None keeps rows in memory only.
        what: What the file holds, for messages.

    Raises:
        ScaffoldError: The file exists and holds something else.
    """

    def __init__(self, path: str | Path | None, what: str) -> None:
        self.path = expanded(path) if path else None
        self.rows: dict[str, dict[str, Any]] = {}
        self._writer = JsonlWriter(self.path) if self.path is not None else None
        self._lock = threading.Lock()
        if self.path is not None and self.path.exists():
            self._read(self.path, what)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Synchronise and close the file."""
        if self._writer is not None:
            self._writer.close()

    def put(self, row: Mapping[str, Any]) -> None:
        """Add a row (it has a `key`) and write it out at once.

        Raises:
            SaveError: The file cannot be written.
        """
        with self._lock:
            self.rows[row["key"]] = dict(row)
            if self._writer is not None:
                self._writer.append(row)

    def _read(self, path: Path, what: str) -> None:
        try:
            for line in read_lines(path):
                if line.row is not None and isinstance(line.row.get("key"), str):
                    self.rows[line.row["key"]] = line.row
                elif line.cut and not self.rows and not _begins_like_a_row(line.text):
                    raise ScaffoldError(
                        f"{what}: {str(path)!r} is not a file that this command wrote; name another one."
                    )
                elif not line.cut:
                    raise ScaffoldError(
                        f"{what}: line {line.number} of {str(path)!r} is not a row that this command wrote; "
                        "name another file, or remove that one."
                    )
        except OSError as error:
            raise ScaffoldError(f"{what}: {str(path)!r} cannot be read ({error.strerror}).") from None


def _begins_like_a_row(text: bytes) -> bool:
    begin = b'{"key"'
    return text.lstrip()[: len(begin)] == begin[: len(text.lstrip())]
