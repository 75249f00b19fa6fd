"""Workers of a command: a Ray pool where the flags ask for one."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from causaledit.runs.ray_pool import RayPool
    from causaledit.runs.worker_options import WorkerOptions


@contextlib.contextmanager
def worker_pool(options: WorkerOptions) -> Iterator[RayPool | None]:
    """The pool for the block; None, and no Ray, where the command's own process does the work."""
    if not options.workers:
        yield None
        return
    from causaledit.runs.ray_pool import RayPool

    with RayPool(options) as pool:
        yield pool
