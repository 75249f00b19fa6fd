"""Evaluation runs: edit a case, probe it, undo it exactly, write it, next case.

Data flow: arguments → **plan** (data, cases, groups, prompts; everything that can be refused is refused here) →
**execute** (per group: apply → probe → write → undo) → metrics.json, res.json.

    output_root/{datatype}/{model_type}/{editing_method}/tag-{exp_tag}/n{cases}_seed{seed}_{run_id}/
        metrics.json  res.json  requests.json  meta/run_args.json  meta/run_info.json  cases/

These names, and the keys in metrics.json, are the published tool's. `cases/` holds one file per finished case:
it is what a run resumes from, after any stop.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from causaledit.errors import (
    CausalEditError,
    EditFailedError,
    RequestError,
)
from causaledit.methods.in_turn import edit_all
from causaledit.models.batches import is_out_of_memory
from causaledit.models.loading import load_from_hparams
from causaledit.models.weights import fingerprint
from causaledit.probes.likelihood import ask_likelihoods
from causaledit.probes.sets import CaseProbe, build_probes
from causaledit.probes.trained import TrainedPrompts
from causaledit.runs.ability import RunAbility
from causaledit.runs.base_model import BaseAnswers, ask_base, prober_of
from causaledit.runs.folder import RunFolder, RunInfo, locked
from causaledit.runs.post import assemble_post, case_averages
from causaledit.runs.sequence_execution import SequenceExecution
from causaledit.runs.sequence_folder import SequenceFolder
from causaledit.support.files import write_json
from causaledit.support.progress import ProgressSink, SilentProgress
from causaledit.support.seeding import seeded

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from causaledit.models.loading import LoadedModel
    from causaledit.mquake.cases import Case
    from causaledit.mquake.selection import Group
    from causaledit.runs.plan import Plan


logger = logging.getLogger(__name__)


# ---- progress --------------------------------------------------------------------------------------
class RunSink(Protocol):
    """Receives a run's progress. `stages` is what the method reports to while it edits."""

    stages: ProgressSink

    def begin(self, plan: Plan, done: int) -> None:
        """The model is loaded; `done` cases were finished before."""

    def case_done(self, case_id: int | str, running: Mapping[str, Any]) -> None:
        """A case is on disk; `running` are the averages so far."""


class SilentRun:
    """Shows nothing."""

    stages: ProgressSink = SilentProgress()

    def begin(self, plan: Plan, done: int) -> None:
        """See `RunSink.begin`."""

    def case_done(self, case_id: int | str, running: Mapping[str, Any]) -> None:
        """See `RunSink.case_done`."""


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
) -> RunSummary:
    """Run a plan to its end, resuming where an earlier call stopped.

    Args:
        plan: From `make_plan`.
        sink: Where progress goes.
        model: A loaded model with its `tokenizer`, instead of loading the hparams' one; restored bit for bit.
        tokenizer: See `model`.
        load: Loads the model that hyper-parameters name, where there is a case to run and no `model`.

    Raises:
        CausalEditError: The run cannot continue; finished cases are on disk. A case that cannot be edited does not
            end the run: it is in the summary, and in metrics.json with `error` instead of `post`.
    """
    folder = open_folder(plan)
    with locked(plan.folder):
        info = RunInfo(plan)
        info.measure_memory()
        write_json(plan.folder / "meta" / "run_args.json", dict(plan.run_args))
        requests = [edit.to_request(case.case_id) for case in plan.cases for edit in case.edits]
        write_json(plan.folder / "requests.json", requests)
        folder.assemble()
        status, reason = "failed", None
        try:
            if isinstance(folder, SequenceFolder):
                if not folder.complete:
                    if model is None:
                        model, tokenizer = load(plan.hparams)
                    _run_sequence(plan, folder, sink or SilentRun(), info, model, tokenizer)
            elif todo := folder.unfinished():
                base = ask_base(plan, todo, load) if plan.arguments.base is not None else None
                if model is None:
                    model, tokenizer = load(plan.hparams)
                _Execution(plan, folder, sink or SilentRun(), info, model, tokenizer, base).run(todo)
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
        return RunSummary(plan.folder, folder.averages(), folder.failed, info.costs(folder))


def open_folder(plan: Plan) -> RunFolder | SequenceFolder:
    """The files of a planned run, with what is already in them."""
    return RunFolder(plan.folder, plan.cases) if plan.sequence is None else SequenceFolder(plan.folder, plan.sequence)


def _run_sequence(plan: Plan, folder: SequenceFolder, sink: RunSink, info: RunInfo, model: Any, tokenizer: Any) -> None:
    assert plan.sequence is not None
    prober = prober_of(plan, tokenizer)
    SequenceExecution(plan, plan.sequence, folder, sink, info, model, tokenizer, prober).run()


class _Execution:
    """One process's part of a run: the loaded model, and the loop over groups.

    Args:
        base: What the unedited model of `--base` said.
    """

    def __init__(
        self, plan: Plan, folder: RunFolder, sink: RunSink, info: RunInfo, model: Any, tokenizer: Any,
        base: BaseAnswers | None = None,
    ) -> None:  # fmt: skip
        self.plan, self.folder, self.sink, self.info = plan, folder, sink, info
        self.model, self.tokenizer = model, tokenizer
        self.prober = prober_of(plan, tokenizer)
        self.base = base
        self.ability: RunAbility | None = base.ability if base else None
        self.method = plan.method
        self.weights_total = sum(parameter.numel() for parameter in model.parameters())

    def run(self, todo: Sequence[Case]) -> None:
        """All groups with a case to run."""
        kinds = self.plan.arguments.probes
        prompts = [probe.prompt + probe.prefix for case in todo for probe in build_probes(case, kinds)]
        self.prober.check_window(self.model, prompts)
        self.info.measure_machine(self.model, self.tokenizer)
        self.info.write("running", self.folder)
        self.sink.begin(self.plan, len(self.plan.cases) - len(todo))
        if self.plan.ability is not None and self.ability is None:
            self.ability = RunAbility(self.plan.folder, self.plan.ability, self.model, self.tokenizer)
        if self.base is not None and self.base.ability is not None:
            self.base.ability.measure(0, self.model, again=False)
        untouched = fingerprint(self.model)
        wanted = {case.case_id for case in todo}
        for number, group in enumerate(self.plan.groups):
            cases = [case for case in group.cases if case.case_id in wanted]
            if not cases:
                continue
            with seeded(
                self.plan.arguments.shuffle_seed
            ):  # independent of what ran before: a resumed run edits in the same way
                self._group(number, group, cases)
            if self.method is not None and fingerprint(self.model) != untouched:
                raise EditFailedError(
                    f"{self.plan.arguments.editing_method} did not restore the model's weights after case "
                    f"{cases[-1].case_id}: the run stops, as later cases would be wrong. Finished cases are kept."
                )

    def _group(self, number: int, group: Group, cases: Sequence[Case]) -> None:
        probes = {case.case_id: build_probes(case, self.plan.arguments.probes) for case in cases}
        before: dict[int | str, dict[str, str]] = {case.case_id: {} for case in cases}
        if self.method is None:
            for case in cases:
                known = self.base.locality if self.base else None
                self._case(number, case, self.model, probes[case.case_id], known, {"group": number})
            return
        for case in cases:
            prompts = [probe.prompt for probe in probes[case.case_id] if probe.kind == "locality"]
            before[case.case_id] = dict(zip(prompts, self.prober.ask(self.model, prompts), strict=True))
        requests = [edit.to_request(_owner(group, edit)) for edit in group.edits]
        report = self.method.load_report()()
        began = time.perf_counter()
        try:
            edited = edit_all(
                self.method, self.model, self.tokenizer, requests, self.plan.hparams,
                progress=self.sink.stages, report=report,
            )  # fmt: skip
        except (EditFailedError, RequestError, RuntimeError, MemoryError) as error:
            if not isinstance(error, CausalEditError) and not is_out_of_memory(error):
                raise
            self._failed(number, cases, error)
            return
        seconds = time.perf_counter() - began
        cost: dict[str, Any] = {"group": number, "edit_seconds": seconds, "edits": len(group.edits)}
        try:
            cost |= {"weights_changed": edited.parameters_changed(), "weights_total": self.weights_total}
            for case in cases:
                self._case(
                    number, case, edited.model, probes[case.case_id], before[case.case_id], cost,
                    trained=TrainedPrompts(report.trained_prompts), compact=not edited.own_generate,
                )  # fmt: skip
            if self.ability is not None:
                self.ability.measure(number, edited.model)
        finally:
            self.model = edited.undo()

    def _case(
        self, number: int, case: Case, model: Any, probes: Sequence[CaseProbe], before: Mapping[str, str] | None,
        cost: Mapping[str, Any], *, trained: TrainedPrompts | None = None, compact: bool = True,
    ) -> None:  # fmt: skip
        asked, spent = self.prober.count.generated, self.prober.seconds
        predictions = self.prober.ask(
            model, [probe.prompt for probe in probes], prefixes=[probe.prefix for probe in probes], compact=compact
        )
        if before is None:  # the model is the unedited one: its answers are those before
            before = {probe.prompt: text for probe, text in zip(probes, predictions, strict=True)}
        share = cost.get("edit_seconds", 0.0) / max(cost.get("edits", 0), 1) * len(case.edits)
        item: dict[str, Any] = {
            "case_id": case.case_id,
            "requested_rewrite": [dict(edit.data) for edit in case.edits],
            "time": share,
        }
        if self.plan.arguments.batch_edit is not None:
            item["batch"] = number
        item["post"] = assemble_post(case, probes, predictions, before, trained or TrainedPrompts())
        if "likelihood" in self.plan.arguments.probes:
            requests = [edit.request for edit in case.edits]
            item["post"]["likelihood_probe"] = ask_likelihoods(model, self.tokenizer, requests)
        probing = {
            "probe_seconds": self.prober.seconds - spent,
            "probe_tokens": self.prober.count.generated - asked,
        }
        self.folder.write(case, item, {**cost, **probing})
        self._report(case, item)

    def _failed(self, number: int, cases: Sequence[Case], error: BaseException) -> None:
        """Note the error in each of the cases; `post` is left out, so that nothing counts them as wrong."""
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        for case in cases:
            item: dict[str, Any] = {
                "case_id": case.case_id,
                "requested_rewrite": [dict(edit.data) for edit in case.edits],
                "time": 0.0,
                "error": f"{type(error).__name__}: {reason}",
            }
            logger.warning("case %s failed: %s", case.case_id, reason)
            self.folder.write(case, item, {"group": number})
            self._report(case, item)

    def _report(self, case: Case, item: Mapping[str, Any]) -> None:
        self.sink.case_done(case.case_id, self.folder.averages())
        known = {name: value for name, value in case_averages(item).items() if value is not None}
        logger.debug("case %s: %s, %.0f s", case.case_id, known, item["time"])


def _owner(group: Group, edit: Any) -> int | str:
    """The first of the group's cases that an edit belongs to; -1 for one whose case is in no batch."""
    return next((case.case_id for case in group.cases if any(e.key == edit.key for e in case.edits)), -1)
