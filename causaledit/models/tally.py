"""Token counts and memory of a run (kept apart from generation, which needs torch)."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import re
import sys
from dataclasses import dataclass
from pathlib import Path


@dataclass
class TokenCount:
    """Tokens a run generated and trained on (padding not counted)."""

    generated: int = 0
    trained: int = 0


def peak_rss_mb() -> float:
    """Highest resident memory of this process so far, or since `reset_peak_rss`, in MB."""
    import resource

    with contextlib.suppress(OSError):  # Linux; `ru_maxrss` also counts the process that started this one
        if found := re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text(encoding="ascii")):
            return int(found[1]) / 1024
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used / 2**20 if sys.platform == "darwin" else used / 1024  # bytes there, kilobytes here


def reset_peak_rss() -> bool:
    """Let `peak_rss_mb` count from now on, freed memory given back to the system first.

    Returns:
        Whether the system can do that (Linux); elsewhere the peak stays that of the whole process.
    """
    gc.collect()
    with contextlib.suppress(AttributeError, OSError):  # glibc only
        ctypes.CDLL(None).malloc_trim(0)
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return False
    return True
