"""A group of edits on one loaded model: edit, ask the cases' probes, undo exactly. Where results go is the caller's."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any

from causaledit.errors import CausalEditError, EditFailedError, RequestError
from causaledit.methods.in_turn import edit_all
from causaledit.models.batches import is_out_of_memory
from causaledit.models.weights import fingerprint
from causaledit.probes.likelihood import ask_likelihoods
from causaledit.probes.sets import CaseProbe, build_probes
from causaledit.probes.trained import TrainedPrompts
from causaledit.runs.post import assemble_post
from causaledit.runs.probing import prober_of
from causaledit.support.seeding import seeded

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from causaledit.models.vllm_engine import VLLMEngine
    from causaledit.mquake.cases import Case
    from causaledit.mquake.selection import Group
    from causaledit.runs.ability import RunAbility
    from causaledit.runs.plan import Plan
    from causaledit.support.progress import ProgressSink

logger = logging.getLogger(__name__)


def groups_to_do(plan: Plan, todo: Sequence[Case]) -> Iterator[tuple[int, list[Case]]]:
    """The plan's groups that have a case to run, by number, each with those cases."""
    wanted = {case.case_id for case in todo}
    for number, group in enumerate(plan.groups):
        cases = [case for case in group.cases if case.case_id in wanted]
        if cases:
            yield number, cases


class GroupRunner:
    """What a run does with a loaded model.

    Args:
        plan: The run's.
        model, tokenizer: The loaded model.
        record: Takes a case, its entry of metrics.json and what it cost, as soon as it is done; with the first case of
            a group what its training reported, as `losses` of the cost.
        stages: Where the method reports to.
        engine: Answers the probes, where the model's weights are all that it needs.

    Attributes:
        known: What an unedited model beside this one answers to the locality questions, where there is one.
        ability: Where the ability of each edited model is measured; None where it is not.
    """

    def __init__(
        self,
        plan: Plan,
        model: Any,
        tokenizer: Any,
        record: Callable[[Case, dict[str, Any], dict[str, Any]], None],
        stages: ProgressSink,
        engine: VLLMEngine | None = None,
    ) -> None:
        self.plan, self.model, self.tokenizer = plan, model, tokenizer
        self.record, self.stages = record, stages
        self.known: Mapping[str, str] | None = None
        self.ability: RunAbility | None = None
        self.prober = prober_of(plan, tokenizer, engine)
        self.weights_total = sum(parameter.numel() for parameter in model.parameters())
        self.untouched = fingerprint(model)

    def check_window(self, cases: Sequence[Case]) -> None:
        """Refuse probes that do not fit into the model's context window."""
        kinds = self.plan.arguments.probes
        prompts = [probe.prompt + probe.prefix for case in cases for probe in build_probes(case, kinds)]
        self.prober.check_window(self.model, prompts)

    def run(self, number: int, cases: Sequence[Case]) -> None:
        """One group, of which these cases are probed.

        Raises:
            EditFailedError: The method did not restore the model.
        """
        # independent of what ran before: a resumed run edits in the same way
        with seeded(self.plan.arguments.shuffle_seed):
            self._group(number, self.plan.groups[number], cases)
        if self.plan.method is not None and fingerprint(self.model) != self.untouched:
            raise EditFailedError(
                f"{self.plan.arguments.editing_method} did not restore the model's weights after case "
                f"{cases[-1].case_id}: the run stops, as later cases would be wrong. Finished cases are kept."
            )

    def _group(self, number: int, group: Group, cases: Sequence[Case]) -> None:
        probes = {case.case_id: build_probes(case, self.plan.arguments.probes) for case in cases}
        before: dict[int | str, dict[str, str]] = {case.case_id: {} for case in cases}
        method = self.plan.method
        if method is None:
            for case in cases:
                self._case(number, case, self.model, probes[case.case_id], self.known, {"group": number})
            return
        for case in cases:
            prompts = [probe.prompt for probe in probes[case.case_id] if probe.kind == "locality"]
            before[case.case_id] = dict(zip(prompts, self.prober.ask(self.model, prompts), strict=True))
        requests = [edit.to_request(_owner(group, edit)) for edit in group.edits]
        report = method.load_report()()
        self.prober.rest()
        began = time.perf_counter()
        try:
            edited = edit_all(
                method, self.model, self.tokenizer, requests, self.plan.hparams, progress=self.stages, report=report
            )
        except (EditFailedError, RequestError, RuntimeError, MemoryError) as error:
            if not isinstance(error, CausalEditError) and not is_out_of_memory(error):
                raise
            for case in cases:
                self.record(case, failed_item(case, error), {"group": number})
            return
        seconds = time.perf_counter() - began
        cost: dict[str, Any] = {"group": number, "edit_seconds": seconds, "edits": len(group.edits)}
        try:
            cost |= {"weights_changed": edited.parameters_changed(), "weights_total": self.weights_total}
            if self.ability is not None:  # before a case is recorded: a resumed run does not edit for it again
                self.ability.measure(number, edited.model)
            once = {"losses": report.losses}  # of the whole group: the first of its cases carries them
            for case in cases:
                self._case(
                    number, case, edited.model, probes[case.case_id], before[case.case_id], cost | once,
                    trained=TrainedPrompts(report.trained_prompts), compact=not edited.own_generate,
                )  # fmt: skip
                once = {}
        finally:
            self.model = edited.undo()
            self.prober.rest()

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
        self.record(case, item, {**cost, **probing})


def failed_item(case: Case, error: BaseException) -> dict[str, Any]:
    """The entry of a case that could not be edited; `post` is left out, so that nothing counts it as wrong."""
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    logger.warning("case %s failed: %s", case.case_id, reason)
    return {
        "case_id": case.case_id,
        "requested_rewrite": [dict(edit.data) for edit in case.edits],
        "time": 0.0,
        "error": f"{type(error).__name__}: {reason}",
    }


def _owner(group: Group, edit: Any) -> int | str:
    """The first of the group's cases that an edit belongs to; -1 for one whose case is in no batch."""
    return next((case.case_id for case in group.cases if any(e.key == edit.key for e in case.edits)), -1)
