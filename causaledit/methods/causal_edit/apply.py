"""CausalEdit as a host calls it: request → narrative → bootstrap → internalise → merged model."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from causaledit.methods.call import host_call
from causaledit.methods.causal_edit import METHOD
from causaledit.methods.causal_edit.checks import check_before_compute
from causaledit.methods.causal_edit.stages import train_adapter
from causaledit.methods.method import MethodReport
from causaledit.methods.shared.delivery import deliver
from causaledit.methods.shared.rehearsal import remember
from causaledit.models.chat import prepare_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from causaledit.facts.requests import EditRequest
    from causaledit.methods.call import Call
    from causaledit.methods.causal_edit.bootstrap import TraceReport
    from causaledit.methods.causal_edit.hparams import CausalEditHyperParams
    from causaledit.methods.causal_edit.leads import Leads
    from causaledit.methods.causal_edit.stages import TrainedEdit
    from causaledit.methods.shared.questions import QuestionReport
    from causaledit.models.edited import Edited


@dataclass
class EditReport(MethodReport):
    """The report of every method, with the edits' old answers and narratives filled in.

    Attributes:
        narrative_source: Per edit: request, file, model, template or none.
        teacher: The resolved teacher (`base`, `bootstrapped`, or `none` without stage 2).
        teacher_accuracy: Share of right answers of the open-book base model, where `auto` measured it.
        traces: Per edit, what sampling gave.
        questions: Per edit, how many questions that need the fact stage 2 asks, and what was dropped.
        leads: On how many prompts of stage 2 a teacher leads, with `distill_prompts: leads`.
        taken_back: How many steps of stage 2 the trust region took back; None without one.
    """

    narrative_source: list[str] = field(default_factory=list)
    teacher: str = "none"
    teacher_accuracy: float | None = None
    traces: list[TraceReport] = field(default_factory=list)
    questions: list[QuestionReport] = field(default_factory=list)
    leads: Leads | None = None
    taken_back: int | None = None

    def record(self, trained: TrainedEdit) -> None:
        """Record how an adapter came about."""
        self.requests = trained.requests
        self.narrative_source = trained.narrative_source
        self.teacher, self.teacher_accuracy = trained.teacher
        self.traces, self.questions = trained.traces, trained.questions
        self.leads, self.taken_back = trained.leads, trained.taken_back
        self.losses.update(trained.losses)
        self.trained_prompts = trained.trained_prompts

    def card(self, hparams: Any, metrics: list[dict[str, Any]]) -> dict[str, Any]:
        """The card of every method, plus narrative sources, teacher and traces."""
        return {
            **super().card(hparams, metrics),
            "narrative_source": self.narrative_source,
            "teacher": self.teacher,
            "teacher_accuracy": self.teacher_accuracy,
            "traces": [vars(trace) for trace in self.traces],
            "questions": [vars(item) for item in self.questions],
            "leads": self.leads and vars(self.leads),
            "steps_taken_back": self.taken_back,
        }


def edit(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    edits: list[EditRequest],
    hparams: CausalEditHyperParams,
    call: Call,
) -> Edited:
    """Both stages of CODE (arXiv 2605.28303) on an adapter, which is then merged.

    A callable `after_stage_1` in the call's further arguments gets the adapted model between the stages, to inspect
    the result of stage 1.
    """
    tokenizer = prepare_tokenizer(tokenizer, hparams.chat_template_kwargs, model=model)
    check_before_compute(model, tokenizer, edits, hparams, merged=hparams.merge_adapter or call.sequence is not None)
    trained = train_adapter(
        model, tokenizer, edits, hparams,
        progress=call.progress, tally=call.report.tally, after_stage_1=call.extra.get("after_stage_1"),
        sequence=call.sequence,
    )  # fmt: skip
    call.report.record(trained)
    edited = deliver(trained.peft_model, model, tokenizer, edits, hparams, call)
    remember(call.sequence, hparams, trained.requests, trained.rows)
    return edited


apply_causal_edit_to_model = host_call(METHOD)
