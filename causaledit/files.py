"""Writing results: whole or not at all."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

from causaledit.errors import SaveError


def write_json(path: str | Path, data: Any) -> Path:
    """Write JSON atomically: into a temporary file beside the target, then one rename.

    Raises:
        SaveError: The folder cannot be written or is full; nothing is left behind.
    """
    path = Path(path).expanduser()
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        temporary = Path(name)
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            json.dump(data, stream, ensure_ascii=False, indent=1)
            stream.write("\n")
        temporary.replace(path)
    except OSError as error:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
        raise SaveError(f"{str(path)!r} cannot be written: {error.strerror or error}.") from None
    return path
