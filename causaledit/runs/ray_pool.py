"""Workers on Ray: they take groups of cases from a queue, and one that dies is replaced.

Data flow: **connect** → actors load the model → idle actor ← next group → results to the driver, in any order. The
driver alone writes. Whatever a worker did not finish goes back to the queue when it dies; a case is given up after
`worker_retries` further tries.
"""

from __future__ import annotations

import collections
import logging
import os
import socket
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from causaledit import errors
from causaledit.errors import EditFailedError, RunError, one_line
from causaledit.methods.hyperparams import model_label
from causaledit.runs.groups import failed_item, groups_to_do
from causaledit.runs.ray_worker import CaseWorker
from causaledit.support.costs import versions
from causaledit.support.extras import require_extra

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from causaledit.mquake.cases import Case
    from causaledit.runs.plan import Plan
    from causaledit.runs.worker_options import WorkerOptions

logger = logging.getLogger(__name__)

ANSWER_SECONDS = 10.0  # an address that is silent for so long has no cluster
PATIENCE_SECONDS = 60.0  # without news, before it is said what is waited for

Records = list[tuple[int | str, dict[str, Any], dict[str, Any]]]


class WorkerDiedError(EditFailedError):
    """The process that edited a case died, again and again."""


class RayPool:
    """Workers of one command, for one run after another; they keep their model from run to run.

    Use as a context manager: at its end the workers are gone, and so is a cluster that was started for them.

    Args:
        options: How many, with how many GPUs, where.

    Raises:
        MissingExtraError: Ray is not installed.
        RunError: Nobody answers at the address, or there are fewer GPUs than asked for.
    """

    def __init__(self, options: WorkerOptions) -> None:
        require_extra("ray", "--workers")
        self.options = options
        self._actors: list[Any] = []
        self._ours = False
        self.model: dict[str, Any] | None = None

    def __enter__(self) -> RayPool:
        import ray

        if not ray.is_initialized():
            _connect(self.options.ray_address, self.options.workers)
            self._ours = True
        try:
            self._gpus = self._gpus_each(ray.cluster_resources())
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        import ray

        for actor in self._actors:
            ray.kill(actor)
        self._actors = []
        if self._ours:
            ray.shutdown()

    def _gpus_each(self, resources: Mapping[str, float]) -> float:
        there, workers = resources.get("GPU", 0.0), self.options.workers
        each = self.options.gpus_per_worker
        if each is None:
            return 1.0 if there >= workers else (there / workers if there else 0.0)
        if each * workers > there:
            raise RunError(
                f"--workers {workers} with --gpus-per-worker {each:g} are {each * workers:g} GPUs, and the cluster has "
                f"{there:g}: lower one of the two."
            )
        return each

    def _new(self) -> Any:
        import ray

        cpus = ray.cluster_resources().get("CPU", 1.0)
        each = 1.0 if cpus >= self.options.workers else int(100 * cpus / self.options.workers) / 100
        # no restarts by Ray: the driver must know which case was lost
        made = ray.remote(CaseWorker).options(num_cpus=each, num_gpus=self._gpus, max_restarts=0, max_task_retries=0)
        actor = made.remote()
        self._actors.append(actor)
        return actor

    def run(
        self,
        plan: Plan,
        todo: Sequence[Case],
        *,
        ready: Callable[[Mapping[str, Any], int], None],
        done: Callable[[Records, float, float], None],
        measure_rate: bool,
    ) -> None:
        """Do all groups with a case to do.

        Args:
            plan: The run's.
            todo: The cases to do.
            ready: Called when a worker has loaded the model, with what it says of itself and how many are ready.
            done: Called with the records of cases that are done, and the worker's peak memory and GPU memory, in MB.
            measure_rate: Let the first worker measure the speed of plain generation.

        Raises:
            CausalEditError: Of the kind that the work raised; the first, once.
            RunError: Workers die while they load the model, or differ from this process in their versions.
        """
        if not isinstance(plan.hparams.model_name, str | os.PathLike):
            raise RunError(
                "--workers: the hyper-parameters hold a loaded model: give its folder or name, which each loads."
            )
        _Run(self, plan, todo, ready, done).run(measure_rate)


class _Run:
    """The queue of one run, and which worker does what."""

    def __init__(
        self, pool: RayPool, plan: Plan, todo: Sequence[Case], ready: Callable[..., None], done: Callable[..., None]
    ) -> None:
        import ray

        self.pool, self.ready, self.done = pool, ready, done
        self.cases = {case.case_id: case for case in todo}
        self.waiting = collections.deque(
            (number, [case.case_id for case in cases]) for number, cases in groups_to_do(plan, todo)
        )
        self.plan = ray.put(plan)
        self.name = model_label(plan.hparams.model_name)
        self.tries: collections.Counter[int] = collections.Counter()
        self.lost_loading = 0
        self.active: set[Any] = set()
        # what runs: reference → (actor, its group, or None while it loads)
        self.running: dict[Any, tuple[Any, tuple[int, list[int | str]] | None]] = {}

    def run(self, measure_rate: bool) -> None:
        """Until every group is done or given up."""
        import ray

        wanted = min(self.pool.options.workers, len(self.waiting))
        for n in range(wanted):
            actor = self.pool._actors[n] if n < len(self.pool._actors) else self.pool._new()
            self._load(actor, measure_rate=measure_rate and n == 0)
        while self.running:
            finished, _ = ray.wait(list(self.running), num_returns=1, timeout=PATIENCE_SECONDS)
            if not finished:
                self._say_what_is_waited_for()
                continue
            (reference,) = finished
            actor, group = self.running.pop(reference)
            try:
                result = ray.get(reference)
            except ray.exceptions.RayError as error:
                self._died(actor, group, error)
                continue
            if group is None:
                self._loaded(actor, result)
            else:
                self.done(result["records"], result["peak_rss_mb"], result["peak_gpu_mb"])
                _raise_if_failed(result)
            if self.waiting:
                self._give(actor)

    def _say_what_is_waited_for(self) -> None:
        import ray

        if not self.active:
            free = {name: ray.available_resources().get(name, 0.0) for name in ("CPU", "GPU")}
            logger.warning(
                "no worker has loaded the model yet; free on the cluster: %g CPUs, %g GPUs", free["CPU"], free["GPU"]
            )

    def _load(self, actor: Any, *, measure_rate: bool = False) -> None:
        self.running[actor.prepare.remote(self.plan, list(self.cases), measure_rate)] = (actor, None)

    def _give(self, actor: Any) -> None:
        group = self.waiting.popleft()
        self.running[actor.group.remote(*group)] = (actor, group)

    def _loaded(self, actor: Any, result: Mapping[str, Any]) -> None:
        _raise_if_failed(result)
        for package, mine in versions().items():
            if (theirs := result["versions"].get(package)) != mine:
                raise RunError(
                    f"--workers: a worker has {package} {theirs}, this process {mine}: install the same versions on "
                    "all nodes (constraints.txt), as results may differ."
                )
        self.lost_loading = 0
        self.active.add(actor)
        self.pool.model = dict(result["model"])
        self.ready(result, len(self.active))

    def _died(self, actor: Any, group: tuple[int, list[int | str]] | None, error: Exception) -> None:
        """Replace a worker; what it had goes to the front of the queue, or is given up."""
        self.active.discard(actor)
        self.pool._actors.remove(actor)
        retries = self.pool.options.worker_retries
        if group is None:
            self.lost_loading += 1
            if self.lost_loading > retries:
                raise RunError(
                    f"--workers: workers die while they load {self.name!r} (out of memory, or packages missing on a "
                    f"node): {one_line(error)} Start fewer workers, or look at Ray's logs."
                )
        else:
            number, ids = group
            self.tries[number] += 1
            if self.tries[number] > retries:
                reason = WorkerDiedError(f"its worker died {self.tries[number]} times: {_why(error)}")
                self.done([(i, failed_item(self.cases[i], reason), {"group": number}) for i in ids], 0.0, 0.0)
            else:
                logger.warning("a worker died at case %s: it is done again (%s)", ids[0], _why(error))
                self.waiting.appendleft(group)
        if self.waiting:
            self._load(self.pool._new())


def _why(error: Exception) -> str:
    """The telling part of Ray's long texts."""
    text = str(error)
    if "OOM" in text or "out of memory" in text.lower():
        return "out of memory"
    return "its node went away" if "node" in text.lower() and "died" in text.lower() and "NodeDied" in type(
        error
    ).__name__ else "the process was killed or crashed"  # fmt: skip


def _raise_if_failed(result: Mapping[str, Any]) -> None:
    """Raise here what a worker raised, as the error of ours that it was."""
    if "error" not in result:
        return
    kind = getattr(errors, str(result["kind"]), None) if result["ours"] else None
    raise (kind or EditFailedError)(result["error"])


def _connect(address: str | None, workers: int) -> None:
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
    try:
        socket.create_connection((host, port), timeout=ANSWER_SECONDS).close()
    except OSError as error:
        raise RunError(
            f"--ray-address {address!r}: nobody answers there ({error.strerror or 'no answer'}): start Ray "
            "(`ray start --head`), or give another address."
        ) from None
