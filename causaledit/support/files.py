"""Writing results: whole or not at all."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from causaledit.errors import RequestError, SaveError
from causaledit.support.json_text import read_json_text
from causaledit.support.paths import expanded

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextlib.contextmanager
def written_whole(path: Path) -> Iterator[BinaryIO]:
    """A stream whose content becomes the file at the end of the block: from a file beside it, with one rename.

    The content is on the disk before the rename, so that a power cut leaves no empty file. The file has the rights that
    any new file of the user has.

    Raises:
        SaveError: The folder cannot be written or is full; nothing is left behind, after any other exception neither.
    """
    unfinished = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with unfinished.open("xb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        unfinished.replace(path)
    except OSError as error:
        raise SaveError(f"{str(path)!r} cannot be written: {error.strerror or error}.") from None
    finally:
        with contextlib.suppress(OSError):  # renamed, or in a folder that is none
            unfinished.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> Path:
    """Write a text atomically.

    Raises:
        SaveError: As in `written_whole`.
    """
    path = expanded(path)
    with written_whole(path) as stream:
        stream.write(text.encode("utf-8"))
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
    folder = expanded(folder)
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
    """Write a `.npz` atomically.

    Raises:
        SaveError: As in `written_whole`.
    """
    with written_whole(file) as stream:
        np.savez(stream, **arrays)


def load_json(path: str | Path, what: str) -> Any:
    """Read a JSON file (`read_json_text`), or raise a `RequestError` that names the file and what it was for.

    A byte-order mark, which some editors write, is passed over.
    """
    path = expanded(path)
    try:
        return read_json_text(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise RequestError(f"{what}: the file {str(path)!r} does not exist.") from None
    except OSError as error:
        raise RequestError(f"{what}: the file {str(path)!r} cannot be read ({error.strerror}).") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise RequestError(f"{what}: the file {str(path)!r} is not valid JSON ({error}).") from None
