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


def judge_beside(options: JudgeOptions, spread: WorkerOptions) -> Judge | None:
    """The judge of a command that edits; None where its workers will be the judge (`judge_on`).

    Raises:
        JudgeError: It is unknown, or lacks its key or model.
    """
    if options.judge != "hf" or not spread.workers:
        return options.load()
    from causaledit.judges.hf import check_named

    check_named(options.judge_model)
    return None


def judge_on(pool: RayPool | None, options: JudgeOptions, loaded: Judge | None) -> Judge:
    """The judge that is loaded, or else hf: on the workers that edit, each of which loads it beside its own model.

    Args:
        loaded: From `judge_beside`.
    """
    if loaded is not None or pool is None:
        return loaded or options.load()
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
