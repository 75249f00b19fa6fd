"""Evaluation runs: edit a case, probe it, undo it exactly, write it, next case.

Data flow: arguments → **plan** (data, cases, groups, prompts; everything that can be refused is refused here) →
**execute** (per group: apply → probe → write → undo) → metrics.json, res.json.

    output_root/{datatype}/{model_type}/{editing_method}/tag-{exp_tag}/n{cases}_seed{seed}_{run_id}/
        metrics.json  res.json  requests.json  meta/run_args.json  meta/run_info.json  cases/  losses/

These names, and the keys in metrics.json, are the published tool's. `cases/` holds one file per finished case:
it is what a run resumes from, after any stop.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from causaledit.errors import RunError
from causaledit.models.loading import load_from_hparams
from causaledit.runs.ability import RunAbility
from causaledit.runs.base_model import BaseAnswers, ask_base
from causaledit.runs.folder import RunFolder, RunInfo, locked
from causaledit.runs.groups import GroupRunner, groups_to_do
from causaledit.runs.plan import record_arguments
from causaledit.runs.post import case_averages
from causaledit.runs.probing import engine_of, prober_of, start_engine
from causaledit.runs.sequence_execution import SequenceExecution
from causaledit.runs.sequence_folder import SequenceFolder
from causaledit.support.files import write_json
from causaledit.support.progress import ProgressSink, SilentProgress

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from causaledit.models.loading import LoadedModel
    from causaledit.models.vllm_engine import VLLMEngine
    from causaledit.mquake.cases import Case
    from causaledit.runs.plan import Plan
    from causaledit.runs.ray_pool import RayPool, Records


logger = logging.getLogger(__name__)


# ---- progress --------------------------------------------------------------------------------------
class RunSink(Protocol):
    """Receives a run's progress. `stages` is what the method reports to while it edits."""

    stages: ProgressSink

    def begin(self, plan: Plan, done: int) -> None:
        """The model is loaded; `done` cases were finished before."""

    def case_done(self, case_id: int | str, running: Mapping[str, Any]) -> None:
        """A case is on disk; `running` are the averages so far."""

    def workers(self, ready: int, wanted: int) -> None:
        """So many of the wanted workers have loaded the model."""


class SilentRun:
    """Shows nothing."""

    stages: ProgressSink = SilentProgress()

    def begin(self, plan: Plan, done: int) -> None:
        """See `RunSink.begin`."""

    def case_done(self, case_id: int | str, running: Mapping[str, Any]) -> None:
        """See `RunSink.case_done`."""

    def workers(self, ready: int, wanted: int) -> None:
        """See `RunSink.workers`."""


# ---- execution -------------------------------------------------------------------------------------
@dataclass
class RunSummary:
    """How a run ended.

    Attributes:
        folder: Where it is kept.
        results: The content of res.json.
        failed: Cases that could not be edited, with the reason.
        costs: As in run_info.json.
    """

    folder: Path
    results: dict[str, Any]
    failed: dict[int | str, str] = field(default_factory=dict)
    costs: dict[str, Any] = field(default_factory=dict)


def execute(
    plan: Plan,
    sink: RunSink | None = None,
    *,
    model: Any = None,
    tokenizer: Any = None,
    load: Callable[[Any], LoadedModel] = load_from_hparams,
    pool: RayPool | None = None,
    engine: VLLMEngine | None = None,
) -> RunSummary:
    """Run a plan to its end, resuming where an earlier call stopped.

    Args:
        plan: From `make_plan`.
        sink: Where progress goes.
        model: A loaded model with its `tokenizer`, instead of loading the hparams' one; restored bit for bit.
        tokenizer: See `model`.
        load: Loads the model that hyper-parameters name, where there is a case to run and no `model`.
        pool: Workers that load the model and edit, instead of this process, which then only writes.
        engine: For `--vllm`: one that several runs share; by default the run has its own.

    Raises:
        CausalEditError: The run cannot continue; finished cases are on disk. A case that cannot be edited does not
            end the run: it is in the summary, and in metrics.json with `error` instead of `post`.
    """
    if pool is not None:
        refuse_workers(plan)
    answering = engine or engine_of(plan.arguments)
    with locked(plan.folder):
        record_arguments(plan)
        folder = open_folder(plan)  # under the lock: what is read is what this process goes on from
        info = RunInfo(plan)
        info.measure_memory()
        requests = [edit.to_request(case.case_id) for case in plan.cases for edit in case.edits]
        write_json(plan.folder / "requests.json", requests)
        folder.assemble()
        status, reason = "failed", None
        try:
            if isinstance(folder, SequenceFolder):
                if not folder.complete:
                    if model is None:
                        model, tokenizer = load(plan.hparams)
                    _run_sequence(plan, folder, sink or SilentRun(), info, model, tokenizer, answering)
            elif todo := folder.unfinished():
                execution = _Execution(plan, folder, sink or SilentRun(), info, answering)
                if pool is not None:
                    execution.run_on(pool, todo)
                else:
                    base = ask_base(plan, todo, load, answering) if plan.arguments.base is not None else None
                    if model is None:
                        model, tokenizer = load(plan.hparams)
                    execution.run(todo, model, tokenizer, base)
            status = "finished"
        except KeyboardInterrupt:
            status = "interrupted"
            raise
        except BaseException as error:
            reason = f"{type(error).__name__}: {error}"
            raise
        finally:
            folder.assemble()
            info.write(status, folder, reason)
            if engine is not None:
                engine.rest()
            elif answering is not None:
                answering.close()
        return RunSummary(plan.folder, folder.averages(), folder.failed, info.costs(folder))


def open_folder(plan: Plan) -> RunFolder | SequenceFolder:
    """The files of a planned run, with what is already in them."""
    return RunFolder(plan.folder, plan.cases) if plan.sequence is None else SequenceFolder(plan.folder, plan.sequence)


def _run_sequence(
    plan: Plan, folder: SequenceFolder, sink: RunSink, info: RunInfo, model: Any, tokenizer: Any,
    engine: VLLMEngine | None,
) -> None:  # fmt: skip
    assert plan.sequence is not None
    prober = prober_of(plan, tokenizer, engine)
    SequenceExecution(plan, plan.sequence, folder, sink, info, model, tokenizer, prober).run()


def refuse_workers(plan: Plan) -> None:
    """What goes from one edit to the next, or compares with a model beside, is done by one process.

    Raises:
        RunError: The plan has such a part.
    """
    arguments = plan.arguments
    parts = {"sequential": plan.sequence, "ability": plan.ability, "base": arguments.base, "vllm": arguments.vllm}
    for name, part in parts.items():
        if part is not None:
            raise RunError(f"--{name} runs in one process: leave out --workers (--ray-workers), or --{name}.")


class _Execution:
    """What this process does for a run, whoever edits: it writes, and says how far the run is."""

    def __init__(
        self, plan: Plan, folder: RunFolder, sink: RunSink, info: RunInfo, engine: VLLMEngine | None = None
    ) -> None:
        self.plan, self.folder, self.sink, self.info, self.engine = plan, folder, sink, info, engine

    def run(self, todo: Sequence[Case], model: Any, tokenizer: Any, base: BaseAnswers | None = None) -> None:
        """Edit all groups with a case to run in this process.

        Args:
            base: What the unedited model of `--base` said.
        """
        runner = GroupRunner(self.plan, model, tokenizer, self.record, self.sink.stages, self.engine)
        runner.check_window(todo)
        start_engine(self.plan, runner.prober, model)
        self.info.measure_machine(model, tokenizer)
        self._begin(todo)
        if base is not None:
            runner.known, runner.ability = base.locality, base.ability
            if base.ability is not None:
                base.ability.measure(0, model, again=False)
        if self.plan.ability is not None and runner.ability is None:
            runner.ability = RunAbility(self.plan.folder, self.plan.ability, model, tokenizer)
        for number, cases in groups_to_do(self.plan, todo):
            runner.run(number, cases)

    def run_on(self, pool: RayPool, todo: Sequence[Case]) -> None:
        """Let workers edit them; results are written here as they come."""
        begun = False

        def ready(worker: Mapping[str, Any], count: int) -> None:
            nonlocal begun
            self.info.take_machine(worker["device"], worker["plain_tokens_per_second"])
            if not begun:
                begun = True
                self._begin(todo)
            self.sink.workers(count, pool.options.workers)

        def done(records: Records, peak_rss_mb: float, peak_gpu_mb: float) -> None:
            self.info.take_peaks(peak_rss_mb, peak_gpu_mb)
            for case_id, item, cost in records:
                self.record(cases[case_id], item, cost)

        cases = {case.case_id: case for case in todo}
        pool.run(
            self.plan, todo, ready=ready, done=done, measure_rate=self.info.plain_tokens_per_second is None
        )  # fmt: skip

    def _begin(self, todo: Sequence[Case]) -> None:
        self.info.write("running", self.folder)
        self.sink.begin(self.plan, len(self.plan.cases) - len(todo))

    def record(self, case: Case, item: dict[str, Any], cost: dict[str, Any]) -> None:
        """Write a case that is done, or has failed."""
        self.folder.write(case, item, cost)
        self.sink.case_done(case.case_id, self.folder.averages())
        known = {name: value for name, value in case_averages(item).items() if value is not None}
        logger.debug("case %s: %s, %.0f s", case.case_id, known, item["time"])
