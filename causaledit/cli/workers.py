"""Workers of a command, on Ray, where the flags ask for some: for cases, and for the hf judge."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from causaledit.cli.options import Group
from causaledit.runs.worker_options import WorkerOptions

if TYPE_CHECKING:
    from collections.abc import Iterator

    from causaledit.cli.options import JudgeOptions
    from causaledit.judges.base import Judge
    from causaledit.runs.ray_pool import RayPool


@contextlib.contextmanager
def worker_pool(options: WorkerOptions) -> Iterator[RayPool | None]:
    """The pool for the block; None, and no Ray, where the command's own process does the work."""
    if not options.workers:
        yield None
        return
    from causaledit.runs.ray_pool import RayPool

    with RayPool(options) as pool:
        yield pool


# ---- judges ----------------------------------------------------------------------------------------
# what spreads the hf judge, where `--workers` is the llm judge's
JUDGE_WORKERS = Group(
    WorkerOptions,
    renamed={"workers": "--ray-workers"},
    helps={
        "workers": "Number of processes that judge at the same time, on Ray, with --judge hf; 0: this process alone.",
        "worker_retries": "How often a batch is judged again after its worker died.",
    },
)


def judge_on(pool: RayPool | None, options: JudgeOptions) -> Judge:
    """The judge of a command that edits: hf is on its workers, each of which loads it beside its own model."""
    if pool is None or options.judge != "hf":
        return options.load()
    from causaledit.judges.spread import SpreadJudge

    return SpreadJudge(pool, options.judge_model, device=options.device)


@contextlib.contextmanager
def loaded_judge(options: JudgeOptions, spread: WorkerOptions) -> Iterator[Judge]:
    """The judge for the block, over workers where the flags ask for some.

    Raises:
        JudgeError: It is unknown, lacks its key or model, or cannot be spread.
    """
    from causaledit.errors import JudgeError

    if spread.workers and options.judge != "hf":
        raise JudgeError(f"--ray-workers are for a local model: give --judge hf, not {options.judge!r}.")
    if not spread.workers:
        yield options.load()
        return
    from causaledit.judges.spread import SpreadJudge
    from causaledit.support.ray_cluster import RayCluster

    with RayCluster(spread) as cluster:
        yield SpreadJudge(cluster, options.judge_model, device=options.device)
