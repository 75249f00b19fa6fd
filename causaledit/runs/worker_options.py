"""Who edits a run's cases: this process, or workers. Apart from what starts them, so that help texts need no Ray."""

from __future__ import annotations

from dataclasses import dataclass

from causaledit.support.options import option

_WORKERS = ("workers", ())  # without workers these have no effect


@dataclass(frozen=True)
class WorkerOptions:
    """Workers of a run, on this machine or on a Ray cluster."""

    workers: int = option(
        0, "Number of processes that edit cases at the same time, on Ray; 0: this process alone.", min=0
    )
    gpus_per_worker: float | None = option(
        None, "GPUs of each worker (a share such as 0.5 is allowed); by default one where there are any.",
        flag="--gpus-per-worker", min=0, of=_WORKERS,
    )  # fmt: skip
    ray_address: str | None = option(
        None, "Ray cluster: auto, host:port or ray://host:port; by default one is started here.", flag="--ray-address",
        of=_WORKERS,
    )  # fmt: skip
    worker_retries: int = option(
        2, "How often a case is done again after its worker died.", flag="--worker-retries", min=0, of=_WORKERS
    )
