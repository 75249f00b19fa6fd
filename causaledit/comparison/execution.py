"""Methods side by side: the same cases, probes and judge for all, each method a resumable run of its own.

Data flow: arguments → **plan** (one run's plan per method; everything that can be refused is refused here) →
per method: run → judge → **row** → compare.json and compare.md, written anew after each method.

    output_root/{datatype}/{model_type}/compare/tag-{exp_tag}/n{cases}_seed{seed}_{run_id}/
        compare.json  compare.md  meta/compare_args.json

The runs themselves lie where `causaledit run` puts them, under the same run id. One model serves all of them, as
every edit is undone exactly; that this is so is checked after each method.
"""

from __future__ import annotations

import dataclasses
import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

from causaledit.ability.summary import read_ability
from causaledit.comparison.shared_model import SharedModel
from causaledit.comparison.tables import markdown
from causaledit.errors import MetricsError, one_line
from causaledit.metrics.judged import check_some_verdict, judge_file
from causaledit.metrics.paired import compare_runs
from causaledit.metrics.predictions import cases_of, read_metrics
from causaledit.metrics.summary import TASKS, summarise
from causaledit.probes.sets import PROBE_SET_VERSION
from causaledit.runs.execution import RunSink, SilentRun, execute, open_folder, refuse_workers
from causaledit.runs.folder import locked
from causaledit.runs.probing import engine_of
from causaledit.support.costs import versions
from causaledit.support.files import read_object, write_json, write_text

if TYPE_CHECKING:
    from causaledit.comparison.plan import ComparePlan
    from causaledit.judges.base import Judge
    from causaledit.metrics.summary import RunMetrics
    from causaledit.runs.plan import Plan
    from causaledit.runs.ray_pool import RayPool

logger = logging.getLogger(__name__)

Status = Literal["not started", "unfinished", "finished", "failed"]


# ---- rows ------------------------------------------------------------------------------------------
@dataclass
class MethodRow:
    """What is known of one method.

    Attributes:
        method: Its name.
        folder: Its run's folder.
        status: How far the run got.
        cases: How many it has.
        finished_cases: How many are done, without those that failed.
        error: Why the run failed.
        failed_cases: Cases that could not be edited, with the reason.
        judging_error: Why there are no metrics though there are predictions.
        metrics: `RunMetrics.to_dict()`.
        paired: Against the reference (`compare_runs`); None for the reference itself.
        costs: As in run_info.json.
        device: As in run_info.json.
        in_turn: Whether edits of one case were made one after another, as the method can't make them together.
        method_of: Whose method it is: `embedded` (ours) or `easyedit`; None for the unedited model.
        ability: From `read_ability`, where `--ability` measures it.
    """

    method: str
    folder: str
    status: Status
    cases: int
    finished_cases: int = 0
    error: str | None = None
    failed_cases: dict[str, str] = field(default_factory=dict)
    judging_error: str | None = None
    metrics: dict[str, Any] | None = None
    paired: dict[str, Any] | None = None
    costs: dict[str, Any] = field(default_factory=dict)
    device: dict[str, Any] | None = None
    in_turn: bool = False
    method_of: str | None = None
    ability: dict[str, Any] | None = None

    @property
    def problem(self) -> str | None:
        """What went wrong, in a few words."""
        if self.error:
            return self.error
        if self.failed_cases:
            case, reason = next(iter(self.failed_cases.items()))
            return f"{len(self.failed_cases)} of {self.cases} cases failed, the first is {case}: {reason}"
        return f"not judged: {self.judging_error}" if self.judging_error else None


# ---- progress --------------------------------------------------------------------------------------
class CompareSink(RunSink, Protocol):
    """Receives a comparison's progress, and that of each of its runs."""

    def begin_methods(self, plan: ComparePlan) -> None:
        """The comparison begins."""

    def begin_method(self, row: MethodRow) -> None:
        """A method's turn."""

    def method_done(self, row: MethodRow) -> None:
        """It is over, well or not, and the table is on disk."""


class SilentCompare(SilentRun):
    """Shows nothing."""

    def begin_methods(self, plan: ComparePlan) -> None:
        """See `CompareSink.begin_methods`."""

    def begin_method(self, row: MethodRow) -> None:
        """See `CompareSink.begin_method`."""

    def method_done(self, row: MethodRow) -> None:
        """See `CompareSink.method_done`."""


# ---- execution -------------------------------------------------------------------------------------
def execute_comparison(
    plan: ComparePlan,
    judge: Judge,
    sink: CompareSink | None = None,
    *,
    workers: int = 1,
    retry_errors: bool = False,
    pool: RayPool | None = None,
) -> list[MethodRow]:
    """Run, judge and tabulate every method, going on where an earlier call stopped.

    A method that fails does not end the comparison, nor does a judge that gives up: both are in the method's row,
    and a later call tries them again.

    Args:
        plan: From `make_compare_plan`.
        judge: The judge that the plan was made for.
        sink: Where progress goes.
        workers: Requests at a time, for a judge that waits for an endpoint.
        retry_errors: Judge again what is kept as an error.
        pool: Workers that edit, instead of this process.

    Returns:
        One row per method, in the order of the plan.

    Raises:
        RunError: Another process works on the comparison, or the workers cannot do a part of it.
        SaveError: The table cannot be written.
    """
    if pool is not None:
        for run in plan.runs.values():
            refuse_workers(run)
    with locked(plan.folder):
        write_json(plan.folder / "meta" / "compare_args.json", {**plan.arguments, "run_id": plan.run_id})
        return _Comparison(plan, judge, sink or SilentCompare(), workers, retry_errors, pool).run()


class _Comparison:
    """One process's part of a comparison."""

    def __init__(
        self, plan: ComparePlan, judge: Judge, sink: CompareSink, workers: int, retry_errors: bool, pool: RayPool | None
    ) -> None:
        self.plan, self.judge, self.sink, self.pool = plan, judge, sink, pool
        self.workers, self.retry_errors = workers, retry_errors
        self.model = SharedModel(read_object(plan.folder / "compare.json").get("model") if plan.resumed else None)
        self.engine = engine_of(next(iter(plan.runs.values())).arguments)  # one for all, like the model
        self.reference: RunMetrics | None = None
        self.rows = {
            name: MethodRow(
                name,
                str(run.folder),
                "not started",
                len(run.cases),
                in_turn=run.in_turn,
                method_of=run.run_args["method_of"],
            )
            for name, run in plan.runs.items()
        }

    def run(self) -> list[MethodRow]:
        """All methods, the reference first: the others are tested against it."""
        self.sink.begin_methods(self.plan)
        order = sorted(self.plan.methods, key=lambda name: name != self.plan.reference)
        try:
            for name in order:  # what an earlier call left is in the table from the start
                if self.plan.runs[name].resumed:
                    self._describe(name)
            for name in order:
                self._method(name)
        finally:
            if self.engine is not None:
                self.engine.close()
            self._write()
        return list(self.rows.values())

    def _method(self, name: str) -> None:
        run, row = self.plan.runs[name], self.rows[name]
        self.sink.begin_method(row)
        error = None
        try:
            # a run that is complete loads no model
            execute(run, self.sink, load=self.model.get, pool=self.pool, engine=self.engine)
            if self.pool is not None and self.pool.model is not None:
                self.model.describe(self.pool.model)
        except KeyboardInterrupt:
            row.status = "unfinished"
            raise
        except Exception as failure:
            error = one_line(failure)
            logger.debug("%s failed", name, exc_info=True)
            logger.warning("%s failed, the others go on: %s", name, error)
        changed = self.model.check() if self.pool is None else self.pool.check()
        row.error = error or (f"{name} left the model otherwise than it was: {changed}" if changed else None)
        self._describe(name, retry_errors=self.retry_errors)
        if row.error:
            row.status = "failed"
        self._write()
        self.sink.method_done(row)

    def _describe(self, name: str, *, retry_errors: bool = False) -> None:
        """Fill in the method's row from what is on disk."""
        run, row = self.plan.runs[name], self.rows[name]
        info = read_object(run.folder / "meta" / "run_info.json")
        row.costs, row.device = info.get("costs") or {}, info.get("device")
        folder = open_folder(run)
        row.failed_cases = {str(case): reason for case, reason in folder.failed.items()}
        row.finished_cases = folder.finished_cases
        row.status = "finished" if folder.complete else "unfinished"
        row.metrics = row.paired = row.judging_error = None
        row.ability = read_ability(run.folder, sequence=run.sequence is not None)
        if not folder.items:
            return
        folder.assemble()  # a run that was killed has cases that are not in metrics.json yet
        try:
            metrics = self._judge(run, retry_errors)
        except Exception as error:  # the predictions are on disk, and the other methods have theirs to give
            row.judging_error = one_line(error)
            logger.debug("%s: judging failed", name, exc_info=True)
            logger.warning("%s is not judged: %s", name, row.judging_error)
            return
        row.metrics = metrics.to_dict()
        if name == self.plan.reference:
            self.reference = metrics
        elif self.reference is not None:
            try:
                row.paired = compare_runs(metrics, self.reference).to_dict()
            except MetricsError as error:  # one of the two has no case yet
                logger.info("%s and %s are not paired: %s", name, self.plan.reference, error)

    def _judge(self, run: Plan, retry_errors: bool) -> RunMetrics:
        file = run.folder / "metrics.json"
        cases = cases_of(read_metrics(file, run.arguments.editing_method))
        verdicts = judge_file(
            file,
            cases,
            TASKS,
            self.judge,
            workers=self.workers,
            retry_errors=retry_errors,
            progress=self.sink.stages,
        )
        check_some_verdict(verdicts)
        return summarise(cases, verdicts)

    def _write(self) -> None:
        rows = list(self.rows.values())
        data = {
            "reference": self.plan.reference,
            "run_id": self.plan.run_id,
            "arguments": dict(self.plan.arguments),
            "model": self.model.description or None,
            "dataset_sha256": next(iter(self.plan.runs.values())).sha256,
            "cases": [case.case_id for case in next(iter(self.plan.runs.values())).cases],
            "probe_set_version": PROBE_SET_VERSION,
            "versions": versions(),
            "methods": {row.method: _plain(row) for row in rows},
        }
        write_json(self.plan.folder / "compare.json", data)
        write_text(self.plan.folder / "compare.md", markdown(data))


def _plain(row: MethodRow) -> dict[str, Any]:
    """A row as compare.json has it; a comparison without ability does not name it."""
    data = dataclasses.asdict(row)
    if row.ability is None:
        del data["ability"]
    return {**data, "problem": row.problem}
