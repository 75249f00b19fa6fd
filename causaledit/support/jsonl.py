"""A JSON-lines file that results are appended to as they come: what a killed run leaves behind is whole."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from causaledit.errors import SaveError, ScaffoldError

if TYPE_CHECKING:
    from collections.abc import Mapping


class JsonlStore:
    """Rows by key, the last one of a key counts. Thread-safe; nothing is created before the first row.

    Args:
        path: The file; None keeps rows in memory only.
        what: What the file holds, for messages.

    Raises:
        ScaffoldError: The file exists and is something else.
    """

    def __init__(self, path: str | Path | None, what: str) -> None:
        self.path = Path(path).expanduser() if path else None
        self.rows: dict[str, dict[str, Any]] = {}
        self._lock = threading.Lock()
        if self.path is not None and self.path.exists():
            self._read(what)

    def _read(self, what: str) -> None:
        assert self.path is not None
        try:
            raw = self.path.read_bytes()
        except OSError as error:
            raise ScaffoldError(f"{what}: {str(self.path)!r} cannot be read ({error.strerror}).") from None
        whole = raw[: raw.rfind(b"\n") + 1]
        for number, line in enumerate(whole.splitlines(), start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
                self.rows[row["key"]] = row
            except (ValueError, KeyError, TypeError):
                raise ScaffoldError(
                    f"{what}: line {number} of {str(self.path)!r} is not a row that this command wrote; "
                    "name another file, or remove that one."
                ) from None
        if raw and not whole and not raw.lstrip().startswith(b'{"key"'):
            raise ScaffoldError(f"{what}: {str(self.path)!r} is not a file that this command wrote; name another one.")
        if len(whole) < len(raw):  # a run was killed while it wrote its last line
            with self.path.open("r+b") as stream:
                stream.truncate(len(whole))

    def put(self, row: Mapping[str, Any]) -> None:
        """Add a row (it has a `key`) and write it out at once.

        Raises:
            SaveError: The file cannot be written.
        """
        line = json.dumps(row, ensure_ascii=False).encode("utf-8", "surrogatepass")
        with self._lock:
            self.rows[row["key"]] = dict(row)
            if self.path is None:
                return
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                with self.path.open("ab") as stream:
                    stream.write(line + b"\n")
            except OSError as error:
                raise SaveError(f"{str(self.path)!r} cannot be written: {error.strerror or error}.") from None
