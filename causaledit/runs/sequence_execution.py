"""A sequence executed: edits are made and kept step by step, all of them are asked at each checkpoint, and the model
is put back in the end. Resumes after any stop from the edits that are on disk.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any

from causaledit.errors import CausalEditError, EditFailedError, RequestError
from causaledit.methods.in_turn import edit_all
from causaledit.methods.method import EditSequence
from causaledit.models.batches import is_out_of_memory
from causaledit.models.weights import fingerprint
from causaledit.probes.likelihood import ask_likelihoods
from causaledit.probes.sets import build_probes
from causaledit.probes.trained import TrainedPrompts
from causaledit.runs.ability import RunAbility
from causaledit.runs.losses import write_losses
from causaledit.runs.post import assemble_post
from causaledit.runs.probing import start_engine
from causaledit.runs.sequence_state import LARGEST_GROWTH, KeptEdits, StateFolder
from causaledit.support.seeding import seeded

if TYPE_CHECKING:
    from causaledit.mquake.cases import Case
    from causaledit.mquake.selection import Group
    from causaledit.probes.asking import Prober
    from causaledit.runs.execution import RunSink
    from causaledit.runs.folder import RunInfo
    from causaledit.runs.plan import Plan
    from causaledit.runs.sequence import SequenceEdit, SequencePlan
    from causaledit.runs.sequence_folder import SequenceFolder

logger = logging.getLogger(__name__)


class SequenceExecution:
    """One process's part of a run over a sequence.

    Args:
        plan: With a `sequence`.
        sequence: That.
        folder: Its files.
        sink: Where progress goes.
        info: The run's run_info.json.
        model: The unedited network; put back bit for bit.
        tokenizer: Its tokenizer.
        prober: Asks it.
    """

    def __init__(
        self, plan: Plan, sequence: SequencePlan, folder: SequenceFolder, sink: RunSink, info: RunInfo, model: Any,
        tokenizer: Any, prober: Prober,
    ) -> None:  # fmt: skip
        self.plan, self.sequence, self.folder, self.sink, self.info = plan, sequence, folder, sink, info
        self.model, self.tokenizer, self.prober = model, tokenizer, prober
        self.states = StateFolder(folder.inside)
        self.weights_total = sum(parameter.numel() for parameter in model.parameters())
        self.ability: RunAbility | None = None
        self._known: dict[tuple[str, str], str] = {}  # the unedited model's answers do not change

    def run(self) -> None:
        """All steps and checkpoints that are left.

        Raises:
            CausalEditError: The run cannot continue; what is done is on disk, and the model is as it was.
        """
        probes = [p for e in self.sequence.edits for p in build_probes(e.case, self.plan.arguments.probes)]
        self.prober.check_window(self.model, [probe.prompt + probe.prefix for probe in probes])
        start_engine(self.plan, self.prober, self.model)
        self.info.measure_machine(self.model, self.tokenizer)
        self.info.write("running", self.folder)
        locality = list(dict.fromkeys(probe.prompt for probe in probes if probe.kind == "locality"))
        if any(prompt not in self.folder.before for prompt in locality):
            self.folder.write_before(dict(zip(locality, self.prober.ask(self.model, locality), strict=True)))
        if self.plan.ability is not None:
            self.ability = RunAbility(self.plan.folder, self.plan.ability, self.model, self.tokenizer)
        untouched = fingerprint(self.model)
        kept, memories = KeptEdits(self.model), EditSequence()
        self.prober.rest()
        try:
            done = self.states.read(kept, memories, untouched)
            self.sink.begin(self.plan, sum(edit.step <= done for edit in self.sequence.edits))
            for step, group in enumerate(self.plan.groups, start=1):
                if step > done and not self._given_up(step):
                    self._step(step, group, kept, memories, untouched)
                self._ask_after(step, kept)
        finally:
            kept.undo()
            self.prober.rest()
        if fingerprint(self.model) != untouched:
            raise EditFailedError(
                f"{self.plan.arguments.editing_method} did not restore the model's weights at the end of the sequence. "
                "Its answers are kept."
            )

    # ---- edits ---------------------------------------------------------------------------------------
    def _given_up(self, step: int) -> bool:
        """Whether a step failed and was asked about since: made now, it would contradict these answers."""
        last = max(edit.number for edit in self.sequence.edits if edit.step == step)
        return "error" in self.folder.steps.get(step, {}) and any(n >= last for n in self.folder.checkpoints)

    def _step(
        self, step: int, group: Group, kept: KeptEdits, memories: EditSequence, untouched: tuple[int, ...]
    ) -> None:
        """Make the edits of a step and keep them; a step that fails leaves the model as it was before it."""
        method = self.plan.method
        if method is None:
            self.folder.write_step(step, {"edits": len(group.edits)})
            self._report(group)
            return
        report = method.load_report()()
        requests = [edit.to_request(case.case_id) for edit, case in zip(group.edits, group.cases, strict=True)]
        self.prober.rest()
        began = time.perf_counter()
        record: dict[str, Any] = {"edits": len(group.edits), "weights_total": self.weights_total}
        try:
            with seeded(self.plan.arguments.shuffle_seed):  # a resumed run edits in the same way
                edited = edit_all(
                    method, kept.model, self.tokenizer, requests, self.plan.hparams,
                    progress=self.sink.stages, report=report, sequence=memories,
                )  # fmt: skip
        except (EditFailedError, RequestError, RuntimeError, MemoryError) as error:
            if not isinstance(error, CausalEditError) and not is_out_of_memory(error):
                raise
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            logger.warning("step %d (%s) failed, the sequence goes on: %s", step, _named(group), reason)
            self.folder.write_step(step, {"edits": len(group.edits), "error": f"{type(error).__name__}: {reason}"})
            self._report(group)
            return
        kept.keep(edited)
        record["edit_seconds"] = time.perf_counter() - began
        record["weights_changed"] = kept.changed()
        record["trained_prompts"] = list(report.trained_prompts)
        if growth := kept.growth():
            record["growth"], record["growth_of"] = growth
            self._warn(step, group, growth)
        write_losses(self.folder.path, step, len(group.edits), report.losses)
        self.folder.write_step(step, record)
        self.states.write(step, kept, memories, untouched)
        self._report(group)

    def _warn(self, step: int, group: Group, growth: tuple[float, str]) -> None:
        """Say at which edit a weight's norm grew out of bounds: once."""
        ratio, name = growth
        earlier = [
            float(record["growth"]) for s, record in self.folder.steps.items() if s < step and "growth" in record
        ]
        if ratio < LARGEST_GROWTH or any(not r < LARGEST_GROWTH for r in earlier):
            return
        logger.warning(
            "after step %d (%s) the norm of %s is %.3g times what it was: the model is likely to be damaged from here "
            "on", step, _named(group), name, ratio,
        )  # fmt: skip

    def _report(self, group: Group) -> None:
        averages = self.folder.averages()
        for case in group.cases:
            self.sink.case_done(case.case_id, averages)

    # ---- checkpoints -----------------------------------------------------------------------------------
    def _ask_after(self, step: int, kept: KeptEdits) -> None:
        """Ask the checkpoint at the end of a step, where there is one and it is not asked yet."""
        made = max(edit.number for edit in self.sequence.edits if edit.step == step)
        if made not in self.sequence.checkpoints or made in self.folder.checkpoints:
            return
        asked, spent = self.prober.count.generated, self.prober.seconds
        trained = TrainedPrompts(self.folder.trained(step))
        failed = {number for number, record in self.folder.steps.items() if "error" in record}
        asked_now = self.sequence.asked(made, failed)
        items = [self._item(e, self.sequence.case_at(e, made, failed), made, kept, trained) for e in asked_now]
        if self.ability is not None and self.plan.method is not None:
            self.ability.measure(made, kept.asked)
        cost = {
            "group": f"checkpoint {made}",
            "probe_seconds": self.prober.seconds - spent,
            "probe_tokens": self.prober.count.generated - asked,
        }
        self.folder.write_checkpoint(made, items, cost)
        self.info.write("running", self.folder)

    def _item(
        self, edit: SequenceEdit, case: Case, made: int, kept: KeptEdits, trained: TrainedPrompts
    ) -> dict[str, Any]:
        record = self.folder.steps.get(edit.step, {})
        item: dict[str, Any] = {
            "case_id": case.case_id,
            "requested_rewrite": [dict(edit.edit.data)],
            "time": record.get("edit_seconds", 0.0) / max(record.get("edits", 1), 1),
            "sequence": edit.place(made),
        }
        if "error" in record:  # it is not in the model
            return {**item, "error": record["error"]}
        probes = build_probes(case, self.plan.arguments.probes)
        wanted = [(probe.prompt, probe.prefix) for probe in probes]
        open_ones = [turn for turn in wanted if turn not in self._known]
        texts = self.prober.ask(
            kept.asked, [prompt for prompt, _ in open_ones], prefixes=[prefix for _, prefix in open_ones],
            compact=not kept.own_generate,
        )  # fmt: skip
        answers = {**self._known, **dict(zip(open_ones, texts, strict=True))}
        if self.plan.method is None:
            self._known = answers
        predictions = [answers[turn] for turn in wanted]
        item["post"] = assemble_post(case, probes, predictions, self.folder.before, trained)
        if "likelihood" in self.plan.arguments.probes:
            item["post"]["likelihood_probe"] = ask_likelihoods(kept.asked, self.tokenizer, [edit.edit.request])
        return item


def _named(group: Group) -> str:
    """The edits of a step in a few words."""
    first, *others = group.edits
    named = f"{first.request.cloze} → {first.request.target_new}"
    return f"{named}, and {len(others)} more" if others else named
