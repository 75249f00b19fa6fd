"""Workers of a run: they take groups of cases from a queue, and one that dies is replaced.

Data flow: **connect** → workers load the model → idle worker ← next group → results to the driver, in any order. The
driver alone writes. Whatever a worker did not finish goes back to the queue when it dies; a case is given up after
`worker_retries` further tries.
"""

from __future__ import annotations

import collections
import contextlib
import logging
import os
from typing import TYPE_CHECKING, Any

from causaledit.errors import EditFailedError, RunError, one_line
from causaledit.methods.hyperparams import model_label
from causaledit.runs.groups import failed_item, groups_to_do
from causaledit.runs.ray_worker import CaseWorker
from causaledit.support.ray_cluster import RayCluster, raise_if_failed, refuse_other_versions, why

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from causaledit.mquake.cases import Case
    from causaledit.runs.plan import Plan
    from causaledit.support.ray_cluster import WorkerSettings

logger = logging.getLogger(__name__)

PATIENCE_SECONDS = 60.0  # without news, before it is said what is waited for

Records = list[tuple[int | str, dict[str, Any], dict[str, Any]]]


class WorkerDiedError(EditFailedError):
    """The process that edited a case died, again and again."""


class RayPool(RayCluster):
    """Workers of one command, for one run after another; they keep their model from run to run.

    Args:
        options: How many, with how many GPUs, where.

    Attributes:
        model: What the workers say of the model they have loaded.
    """

    def __init__(self, options: WorkerSettings) -> None:
        super().__init__(options)
        self.model: dict[str, Any] | None = None

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

    def check(self) -> str | None:
        """What a run left otherwise than it was in a worker's model, which is then loaded anew for the next run.

        Workers that still edit, after a run that failed, finish that first.
        """
        import ray

        found: list[str] = []
        for reference in [actor.call.remote("cases", CaseWorker, "check") for actor in self.actors]:
            with contextlib.suppress(ray.exceptions.RayError):  # one that died is replaced where it is next asked
                answer = ray.get(reference)
                found += [changed] if (changed := answer.get("result", answer.get("error"))) else []
        return next(iter(found), None)


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
            actor = self.pool.actors[n] if n < len(self.pool.actors) else self.pool.new()
            self._load(actor, measure_rate=measure_rate and n == 0)
        while self.running:
            finished, _ = ray.wait(list(self.running), num_returns=1, timeout=PATIENCE_SECONDS)
            if not finished:
                self._say_what_is_waited_for()
                continue
            (reference,) = finished
            actor, group = self.running.pop(reference)
            try:
                found = ray.get(reference)
            except ray.exceptions.RayError as error:
                self._died(actor, group, error)
                continue
            raise_if_failed(found)
            result = found["result"]
            if group is None:
                self._loaded(actor, result)
            else:
                self.done(result["records"], result["peak_rss_mb"], result["peak_gpu_mb"])
                raise_if_failed(result)
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
        self._ask(actor, None, "prepare", self.plan, list(self.cases), measure_rate)

    def _give(self, actor: Any) -> None:
        group = self.waiting.popleft()
        self._ask(actor, group, "group", *group)

    def _ask(self, actor: Any, group: tuple[int, list[int | str]] | None, method: str, *arguments: Any) -> None:
        self.running[actor.call.remote("cases", CaseWorker, method, *arguments)] = (actor, group)

    def _loaded(self, actor: Any, result: Mapping[str, Any]) -> None:
        raise_if_failed(result)
        refuse_other_versions(result["versions"])
        self.lost_loading = 0
        self.active.add(actor)
        self.pool.model = dict(result["model"])
        self.ready(result, len(self.active))

    def _died(self, actor: Any, group: tuple[int, list[int | str]] | None, error: Exception) -> None:
        """Replace a worker; what it had goes to the front of the queue, or is given up."""
        self.active.discard(actor)
        self.pool.lost(actor)
        retries = self.pool.options.worker_retries
        if group is None:
            self.lost_loading += 1
            if self.lost_loading > retries:
                raise RunError(
                    f"Workers die while they load {self.name!r} (out of memory, or packages missing on a "
                    f"node): {one_line(error)} Start fewer workers, or look at Ray's logs."
                )
        else:
            number, ids = group
            self.tries[number] += 1
            if self.tries[number] > retries:
                reason = WorkerDiedError(f"its worker died {self.tries[number]} times: {why(error)}")
                self.done([(i, failed_item(self.cases[i], reason), {"group": number}) for i in ids], 0.0, 0.0)
            else:
                logger.warning("a worker died at case %s: it is done again (%s)", ids[0], why(error))
                self.waiting.appendleft(group)
        if self.waiting:
            self._load(self.pool.new())
