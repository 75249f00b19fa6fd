"""CausalEdit as a host calls it: request → narrative → bootstrap → internalise → merged model."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from causaledit.methods.call import host_call
from causaledit.methods.causal_edit import METHOD
from causaledit.methods.causal_edit.bootstrap import TraceReport, collect_traces, run_bootstrap, training_pairs
from causaledit.methods.causal_edit.internalise import TEACHER_ADAPTER, add_teacher_snapshot, run_internalisation
from causaledit.methods.causal_edit.preservation import build_preservation, read_questions
from causaledit.methods.causal_edit.prompts import check_context_window
from causaledit.methods.causal_edit.teacher import choose_teacher
from causaledit.methods.method import MethodReport
from causaledit.models.adapters import add_adapter, check_adapter
from causaledit.models.chat import prepare_tokenizer, supports_system_role
from causaledit.models.edited import deliver_adapter
from causaledit.narratives.resolve import load_narratives, resolve_edits

if TYPE_CHECKING:
    from collections.abc import Callable

    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from causaledit.facts.requests import EditRequest
    from causaledit.methods.call import Call
    from causaledit.methods.causal_edit.hparams import CausalEditHyperParams
    from causaledit.models.edited import Edited
    from causaledit.support.progress import ProgressSink

logger = logging.getLogger(__name__)


@dataclass
class EditReport(MethodReport):
    """As every method's report, with the edits' old answers and narratives filled in.

    Attributes:
        narrative_source: Per edit: request, file, model, template or none.
        teacher: The resolved teacher (`base`, `bootstrapped`, or `none` without stage 2).
        teacher_accuracy: Share of right answers of the open-book base model, where `auto` measured it.
        traces: Per edit, what sampling gave.
    """

    narrative_source: list[str] = field(default_factory=list)
    teacher: str = "none"
    teacher_accuracy: float | None = None
    traces: list[TraceReport] = field(default_factory=list)

    def card(self, hparams: Any, metrics: list[dict[str, Any]]) -> dict[str, Any]:
        """As every method's card, with narrative sources, teacher and traces."""
        return {
            **super().card(hparams, metrics),
            "narrative_source": self.narrative_source,
            "teacher": self.teacher,
            "teacher_accuracy": self.teacher_accuracy,
            "traces": [vars(trace) for trace in self.traces],
        }


def edit(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    edits: list[EditRequest],
    hparams: CausalEditHyperParams,
    call: Call,
) -> Edited:
    """Both stages of CODE (arXiv 2605.28303) on an adapter, which is then merged.

    A callable `after_bootstrap` in the call's further arguments gets the adapted model between the stages, to look at
    what stage 1 gave.
    """
    check_adapter(model, hparams, merged=hparams.merge_adapter or call.sequence is not None)
    tokenizer = prepare_tokenizer(tokenizer, hparams.chat_template_kwargs)
    check_context_window(model, tokenizer, edits, hparams)
    if hparams.narrative_file and hparams.editing_mode == "causal":
        load_narratives(hparams.narrative_file)
    if hparams.preserve_weight and hparams.preserve_file:
        read_questions(hparams.preserve_file)
    after_bootstrap = call.extra.get("after_bootstrap")
    peft_model = _train(model, tokenizer, edits, hparams, call.progress, call.report, after_bootstrap)
    with call.report.tally.timed("merge"):
        return deliver_adapter(peft_model, model, merge=hparams.merge_adapter)


apply_causal_edit_to_model = host_call(METHOD)


def _train(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    edits: list[EditRequest],
    hparams: CausalEditHyperParams,
    progress: ProgressSink,
    report: EditReport,
    after_bootstrap: Callable[[PeftModel], None] | None,
) -> PeftModel:
    """Both stages on a fresh adapter around the model."""
    tally = report.tally
    role = hparams.context_role
    if role == "system" and not supports_system_role(tokenizer):
        logger.warning(
            "the chat template takes no system message: the privileged context goes before the user's prompt"
        )
        role = "user"
    with tally.timed("narrative"):
        resolved = resolve_edits(
            model,
            tokenizer,
            edits,
            causal=hparams.editing_mode == "causal",
            narrative_file=hparams.narrative_file,
            max_new_tokens=hparams.narrative_max_new_tokens,
            count=tally.tokens,
        )
    report.requests = [item.request for item in resolved]
    report.narrative_source = [item.narrative_source for item in resolved]
    with tally.timed("preserve"):
        preservation = build_preservation(model, tokenizer, report.requests, hparams, count=tally.tokens)
    if 2 in hparams.stages:
        with tally.timed("teacher"):
            choice = choose_teacher(model, tokenizer, report.requests, hparams, context_role=role, count=tally.tokens)
        report.teacher, report.teacher_accuracy = choice
    pairs = _traces(model, tokenizer, hparams, role, progress, report) if _needs_stage_1(hparams, report) else []

    peft_model = add_adapter(model, hparams)
    if pairs:
        with tally.timed("bootstrap"):
            report.losses["bootstrap"] = run_bootstrap(
                peft_model, tokenizer, pairs, len(edits), hparams,
                preservation=preservation, progress=progress, count=tally.tokens,
            )  # fmt: skip
        if after_bootstrap is not None:
            after_bootstrap(peft_model)
    if 2 in hparams.stages:
        if report.teacher == "bootstrapped":
            add_teacher_snapshot(peft_model)
        if pairs and not hparams.student_use_sft:
            peft_model = _fresh_student(peft_model, hparams)
        with tally.timed("internalise"):
            report.losses["internalise"] = run_internalisation(
                peft_model, tokenizer, report.requests, hparams,
                teacher=report.teacher, context_role=role,
                preservation=preservation, progress=progress, count=tally.tokens,
            )  # fmt: skip
        if TEACHER_ADAPTER in peft_model.peft_config:
            peft_model.delete_adapter(TEACHER_ADAPTER)
    return peft_model


def _needs_stage_1(hparams: CausalEditHyperParams, report: EditReport) -> bool:
    return 1 in hparams.stages and (
        2 not in hparams.stages or hparams.student_use_sft or report.teacher == "bootstrapped"
    )


def _traces(
    model: Any,
    tokenizer: Any,
    hparams: CausalEditHyperParams,
    role: str,
    progress: ProgressSink,
    report: EditReport,
) -> list[tuple[str, str]]:
    pairs: list[tuple[str, str]] = []
    progress.start("stage 1: traces", None)
    with report.tally.timed("traces"):
        for request in report.requests:
            traces, trace_report = collect_traces(
                model,
                tokenizer,
                request,
                hparams,
                context_role=role,
                progress=progress,
                count=report.tally.tokens,
            )
            report.traces.append(trace_report)
            pairs += training_pairs(request, traces, hparams)
    progress.finish()
    return pairs


def _fresh_student(peft_model: PeftModel, hparams: CausalEditHyperParams) -> PeftModel:
    """Restart the student from the base model (`student_use_sft: false`): its B matrices go back to zero."""
    torch.manual_seed(hparams.seed)
    for module in peft_model.modules():
        if hasattr(module, "reset_lora_parameters") and "default" in getattr(module, "lora_A", {}):
            module.reset_lora_parameters("default", init_lora_weights=True)
    return peft_model
