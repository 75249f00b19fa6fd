"""Token counts and memory of a run (kept apart from generation, which needs torch)."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import re
import sys
import time
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


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
    """Let `peak_rss_mb` count from now on, after returning freed memory to the system.

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


_PACKAGES = ("causaledit", "torch", "transformers", "trl", "peft", "accelerate")


def versions() -> dict[str, str]:
    """Versions of the packages that an edit depends on."""
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:  # causaledit itself, run from a checkout
            found[package] = "not installed"
    return found


@dataclass
class EditTally:
    """What one edit cost: seconds per stage and tokens."""

    seconds: dict[str, float] = field(default_factory=dict)
    tokens: TokenCount = field(default_factory=TokenCount)

    @contextlib.contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Add the time of the block to a stage."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[stage] = self.seconds.get(stage, 0.0) + time.perf_counter() - began
