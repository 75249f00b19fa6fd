"""Writing results: whole or not at all."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from causaledit.errors import RequestError, SaveError
from causaledit.support.json_text import read_json_text


def write_text(path: str | Path, text: str) -> Path:
    """Write a text atomically: into a temporary file beside the target, then one rename.

    Raises:
        SaveError: The folder cannot be written or is full; nothing is left behind.
    """
    path = Path(path).expanduser()
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        temporary = Path(name)
        with os.fdopen(handle, "w", encoding="utf-8", newline="") as stream:
            stream.write(text)
        temporary.replace(path)
    except BaseException as error:  # also what UTF-8 cannot hold, and Ctrl-C
        if temporary is not None:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
        if not isinstance(error, OSError):
            raise
        raise SaveError(f"{str(path)!r} cannot be written: {error.strerror or error}.") from None
    return path


def write_json(path: str | Path, data: Any) -> Path:
    """Write JSON atomically.

    Raises:
        SaveError: As in `write_text`.
    """
    return write_text(path, json.dumps(data, ensure_ascii=False, indent=1) + "\n")


def read_object(path: str | Path) -> dict[str, Any]:
    """A JSON object; empty where the file is missing or holds none: for files that are useful but not needed."""
    try:
        data = read_json_text(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return data if isinstance(data, dict) else {}


def check_writable(folder: Path, option: str) -> None:
    """Refuse a folder that cannot be written, before an hour of work ends there.

    Creates nothing: the nearest existing parent is tried.

    Raises:
        SaveError: No write permission, no room, a file or a dead link is in the way, or the name is too long.
    """
    folder = folder.expanduser()
    try:
        if folder.exists() and not folder.is_dir():
            raise SaveError(f"{option} {str(folder)!r} is a file: give a folder.")
        existing = folder
        while not existing.exists():
            if existing.is_symlink():
                raise SaveError(
                    f"{option} {str(folder)!r}: {str(existing)!r} is a link to what does not exist: make that folder, "
                    "or give another one."
                )
            existing = existing.parent
        with tempfile.TemporaryFile(dir=existing) as probe:
            probe.write(b"\0" * 4096)
            probe.flush()
            os.fsync(probe.fileno())
    except SaveError:
        raise
    except OSError as error:
        raise SaveError(
            f"{option} {str(folder)!r} cannot be written ({error.strerror}): give another folder."
        ) from None


def write_arrays(file: Path, arrays: dict[str, Any]) -> None:
    """Write a `.npz` atomically."""
    temporary: str | None = None
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
        with os.fdopen(handle, "wb") as stream:
            np.savez(stream, **arrays)
        Path(temporary).replace(file)
    except BaseException as error:
        if temporary is not None:
            with contextlib.suppress(OSError):
                Path(temporary).unlink(missing_ok=True)
        if not isinstance(error, OSError):
            raise
        raise SaveError(f"{str(file)!r} cannot be written: {error.strerror or error}.") from None


def load_json(path: str | Path, what: str) -> Any:
    """Read a JSON file (`read_json_text`), or raise a `RequestError` that names the file and what it was for.

    A byte-order mark, which some editors write, is passed over.
    """
    path = Path(path).expanduser()
    try:
        return read_json_text(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise RequestError(f"{what}: the file {str(path)!r} does not exist.") from None
    except OSError as error:
        raise RequestError(f"{what}: the file {str(path)!r} cannot be read ({error.strerror}).") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise RequestError(f"{what}: the file {str(path)!r} is not valid JSON ({error}).") from None
