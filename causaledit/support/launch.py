"""How many processes `accelerate launch` or `torchrun` started together, and which of them this one is."""

from __future__ import annotations

import os


def launched() -> int:
    """How many processes were launched together, of which this is one."""
    size = os.environ.get("WORLD_SIZE", "")
    return int(size) if size.isdigit() else 1


def is_first() -> bool:
    """Whether this process is the one that shows and saves."""
    return (os.environ.get("RANK") or "0") == "0"
