"""What the commands share: checks before any compute, and figures of the process."""

from __future__ import annotations

import os
import sys
import tempfile
from typing import TYPE_CHECKING

from causaledit.errors import SaveError

if TYPE_CHECKING:
    from pathlib import Path


def check_writable(folder: Path, option: str) -> None:
    """Refuse a folder that cannot be written, before an hour of work ends there.

    Creates nothing that was not there: the nearest existing parent is tried.

    Raises:
        SaveError: No write permission, no room, or a file is in the way.
    """
    folder = folder.expanduser()
    if folder.exists() and not folder.is_dir():
        raise SaveError(f"{option} {str(folder)!r} is a file: give a folder.")
    existing = folder
    while not existing.exists():
        existing = existing.parent
    try:
        with tempfile.TemporaryFile(dir=existing) as probe:
            probe.write(b"\0" * 4096)
            probe.flush()
            os.fsync(probe.fileno())
    except OSError as error:
        raise SaveError(
            f"{option} {str(folder)!r} cannot be written ({error.strerror}): give another folder."
        ) from None


def peak_rss_mb() -> float:
    """Highest resident memory of this process so far, in MB."""
    import resource

    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used / 2**20 if sys.platform == "darwin" else used / 1024  # bytes there, kilobytes here
