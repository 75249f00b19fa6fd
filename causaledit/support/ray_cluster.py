"""Workers on Ray: processes of one command, on this machine or on a cluster, which are replaced when they die.

Ray is imported where it is asked for; nothing here knows what a worker does.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from typing import TYPE_CHECKING, Any, Protocol, Self
from urllib.parse import urlsplit

from causaledit import errors
from causaledit.errors import EditFailedError, RunError, one_line
from causaledit.support.costs import versions
from causaledit.support.extras import require_extra
from causaledit.support.ray_worker import RayWorker

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

logger = logging.getLogger(__name__)

ANSWER_SECONDS = 10.0  # an address that is silent for so long has no cluster
# Ray's ports speak gRPC, which is HTTP/2: a client greets with this (RFC 9113, section 3.4), and a server's first frame
# has the type SETTINGS. Ray itself would wait for two minutes and then end the process.
_GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"
_SETTINGS = b"\x04"


class WorkerSettings(Protocol):
    """What the command line says of workers (`runs.worker_options`)."""

    @property
    def workers(self) -> int:
        """How many."""

    @property
    def gpus_per_worker(self) -> float | None:
        """GPUs of each; None: one where there are any."""

    @property
    def ray_address(self) -> str | None:
        """The cluster; None starts one here."""

    @property
    def worker_retries(self) -> int:
        """How often work is done again whose worker died."""


class RayCluster:
    """The workers of one command. Each keeps what it has loaded for as long as the command lasts.

    Use as a context manager: at its end the workers are gone, and so is a cluster that was started for them.

    Args:
        options: How many, with how many GPUs, where.

    Raises:
        MissingExtraError: Ray is not installed.
        RunError: Nobody answers at the address, or there are fewer GPUs than asked for.
    """

    def __init__(self, options: WorkerSettings) -> None:
        require_extra("ray", "--workers (--ray-workers)")
        self.options = options
        self.actors: list[Any] = []
        self._busy: set[Any] = set()
        self._changed = threading.Condition()
        self._ours = self._closed = False

    def __enter__(self) -> Self:
        import ray

        self._closed = False
        if not ray.is_initialized():
            _connect(self.options.ray_address)
            self._ours = True
        try:
            self._gpus = self._gpus_each(_resources())
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        import ray

        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for actor in self.actors:
            ray.kill(actor)
        self.actors = []
        if self._ours:
            ray.shutdown()

    def _gpus_each(self, resources: Mapping[str, float]) -> float:
        there, workers = resources.get("GPU", 0.0), self.options.workers
        each = self.options.gpus_per_worker
        if each is None:
            return 1.0 if there >= workers else (there / workers if there else 0.0)
        if each * workers > there:
            raise RunError(
                f"{workers} workers with --gpus-per-worker {each:g} need {each * workers:g} GPUs, and the cluster has "
                f"{there:g}: lower one of the two."
            )
        return each

    # ---- processes -----------------------------------------------------------------------------
    def new(self) -> Any:
        """One more worker."""
        import ray

        cpus = _resources().get("CPU", 1.0)
        each = 1.0 if cpus >= self.options.workers else int(100 * cpus / self.options.workers) / 100
        # no restarts by Ray: the driver must know what was lost
        made = ray.remote(RayWorker).options(num_cpus=each, num_gpus=self._gpus, max_restarts=0, max_task_retries=0)
        actor = made.remote()
        self.actors.append(actor)
        return actor

    def lost(self, actor: Any) -> None:
        """Forget a worker that died."""
        self.actors.remove(actor)

    def call(self, key: str, make: Callable[[], Any], method: str, *arguments: Any) -> Any:
        """Let a free worker do something, and wait for it; from as many threads as there are workers.

        A worker that dies meanwhile is replaced, and the call made again, up to `worker_retries` times.

        Args:
            key, make, method, arguments: As for `RayWorker.call`.

        Raises:
            CausalEditError: Of the kind that the work raised.
            RunError: Workers die, or differ from this process in their versions.
        """
        import ray

        for tries in range(1, self.options.worker_retries + 2):
            actor = self._take()
            try:
                found = ray.get(actor.call.remote(key, make, method, *arguments))
            except ray.exceptions.RayError as error:
                reason = why(error)
                self._give_back(actor, lost=True)
                logger.warning("a worker died (%s): its work is done again (try %d)", reason, tries)
                continue
            except BaseException:
                self._give_back(actor)
                raise
            self._give_back(actor)
            raise_if_failed(found)
            if "versions" in found:
                refuse_other_versions(found["versions"])
            return found["result"]
        raise RunError(
            f"A worker died {tries} times at the same work ({reason}): start fewer workers, or look at Ray's logs."
        )

    def _take(self) -> Any:
        with self._changed:
            while not self._closed:
                free = [actor for actor in self.actors if actor not in self._busy]
                if free or len(self.actors) < self.options.workers:
                    actor = free[0] if free else self.new()
                    self._busy.add(actor)
                    return actor
                self._changed.wait()
        raise RunError("The workers are gone.")

    def _give_back(self, actor: Any, *, lost: bool = False) -> None:
        with self._changed:
            self._busy.discard(actor)
            if lost and actor in self.actors:
                self.lost(actor)
            self._changed.notify()


# ---- what came back --------------------------------------------------------------------------------
def raise_if_failed(result: Mapping[str, Any]) -> None:
    """Raise here what a worker raised, as the error of ours that it was."""
    if "error" not in result:
        return
    kind = getattr(errors, str(result["kind"]), None) if result["ours"] else None
    raise (kind or EditFailedError)(result["error"])


def refuse_other_versions(theirs: Mapping[str, str]) -> None:
    """Refuse a worker whose packages are others than this process's.

    Raises:
        RunError: One has another version there.
    """
    for package, mine in versions().items():
        if (other := theirs.get(package)) != mine:
            raise RunError(
                f"A worker has {package} {other}, this process {mine}: install the same versions on all nodes "
                "(constraints.txt), as results may differ."
            )


def why(error: Exception) -> str:
    """The telling part of Ray's long texts about a worker that died."""
    text = str(error)
    if "OOM" in text or "out of memory" in text.lower():
        return "out of memory"
    return "its node went away" if "node" in text.lower() and "died" in text.lower() and "NodeDied" in type(
        error
    ).__name__ else "the process was killed or crashed"  # fmt: skip


def _resources() -> Mapping[str, float]:
    import ray

    of_cluster: Any = ray.cluster_resources  # without types
    found: Mapping[str, float] = of_cluster()
    return found


# ---- the way there ---------------------------------------------------------------------------------
def _connect(address: str | None) -> None:
    """Join a cluster, or start one here.

    Raises:
        RunError: Nobody answers there.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    import ray

    place: dict[str, Any] = {"include_dashboard": False} if address is None else {"address": address}
    if address not in (None, "auto", "local"):
        _answers(str(address))
    try:
        ray.init(**place, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, ImportError, RuntimeError, ValueError, TimeoutError) as error:
        where = f"--ray-address {address!r}" if address else "--workers"
        raise RunError(f"{where}: Ray cannot be reached: {one_line(error)}") from None


def _answers(address: str) -> None:
    parts = urlsplit(address if "//" in address else f"//{address}")
    try:
        host, port = parts.hostname, parts.port or 10001
    except ValueError:
        host, port = None, 0
    if not host:
        raise RunError(f"--ray-address must be auto, host:port or ray://host:port, got {address!r}.")
    where = f"--ray-address {address!r}"
    end = time.monotonic() + ANSWER_SECONDS
    try:
        with socket.create_connection((host, port), timeout=ANSWER_SECONDS) as link:
            link.settimeout(max(0.1, end - time.monotonic()))
            link.sendall(_GREETING)
            reply = link.recv(9)
    except OSError as error:
        raise RunError(
            f"{where}: nobody answers there ({error.strerror or 'no answer'}): start Ray (`ray start --head`), or give "
            "another address."
        ) from None
    if reply[3:4] != _SETTINGS and os.environ.get("RAY_USE_TLS", "0") in ("", "0"):
        raise RunError(f"{where}: what answers there is not Ray: give the address that `ray start --head` printed.")
