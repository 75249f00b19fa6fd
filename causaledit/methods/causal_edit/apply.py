"""CausalEdit as a host calls it: request → narrative → bootstrap → internalise → merged model."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from causaledit.methods.call import editing, ready_edits
from causaledit.methods.causal_edit.bootstrap import TraceReport, collect_traces, run_bootstrap, training_pairs
from causaledit.methods.causal_edit.internalise import TEACHER_ADAPTER, add_teacher_snapshot, run_internalisation
from causaledit.methods.causal_edit.preservation import build_preservation, read_questions
from causaledit.methods.causal_edit.prompts import check_context_window
from causaledit.methods.causal_edit.teacher import choose_teacher
from causaledit.methods.method import MethodReport
from causaledit.models.adapters import add_adapter, deliver_adapter, forget_adapter, lora_config
from causaledit.models.chat import prepare_tokenizer, supports_system_role
from causaledit.narratives.resolve import load_narratives, resolve_edits

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from causaledit.facts.requests import EditRequest
    from causaledit.methods.causal_edit.hparams import CausalEditHyperParams
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


def apply_causal_edit_to_model(
    model: PreTrainedModel,
    tok: PreTrainedTokenizerBase,
    requests: list[Mapping[str, Any] | EditRequest],
    hparams: CausalEditHyperParams,
    copy: bool = False,
    return_orig_weights: bool = False,
    keep_original_weight: bool = False,
    *,
    progress: ProgressSink | None = None,
    report: EditReport | None = None,
    after_bootstrap: Callable[[PeftModel], None] | None = None,
    **kwargs: Any,
) -> tuple[Any, dict[str, torch.Tensor]]:
    """Apply edits together (arXiv 2605.28303, both stages).

    Args:
        model: The network to edit. Changed in place unless `copy`.
        tok: Its tokenizer; left as it is.
        requests: EasyEdit dicts, MQuAKE rewrites or `EditRequest`s; left as they are.
        hparams: The configuration.
        copy: Edit a copy and leave `model` alone.
        return_orig_weights: Return the original tensors of the weights that changed, by name.
        keep_original_weight: Part of the host's call; weights are only kept where asked for.
        progress: Where progress goes; by default rich bars in a terminal.
        report: Filled in with what was done.
        after_bootstrap: Called with the adapted model between the stages, to look at what stage 1 gave.
        **kwargs: Further arguments of a host's call (`train_ds`, …), not used here.

    Returns:
        The edited model (a `PeftModel` with `merge_adapter: false`), and the original tensors by parameter
        name, empty where nothing in the base weights changed or none were asked for.

    Raises:
        RequestError, ModelError: Bad input, before any compute.
        EditFailedError: Training diverged. After any exception `model` is as it was, bit for bit.
    """
    report = report if report is not None else EditReport()
    edits = ready_edits(model, requests)
    lora_config(model, hparams)  # refuses targets and layers the model does not have
    tokenizer = prepare_tokenizer(tok, hparams.chat_template_kwargs, model=model)
    check_context_window(model, tokenizer, edits, hparams)
    if hparams.narrative_file and hparams.editing_mode == "causal":
        load_narratives(hparams.narrative_file)
    if hparams.preserve_weight and hparams.preserve_file:
        read_questions(hparams.preserve_file)

    with editing(model, copy=copy, seed=hparams.seed, progress=progress) as (target, sink):
        peft_model = _train(target, tokenizer, edits, hparams, sink, report, after_bootstrap)
    with report.tally.timed("merge"):
        edited, originals = deliver_adapter(peft_model, target, merge=hparams.merge_adapter)
    return edited, originals if return_orig_weights else {}


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
    peft_model: PeftModel | None = None
    try:
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
                choice = choose_teacher(
                    model, tokenizer, report.requests, hparams, context_role=role, count=tally.tokens
                )
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
    except BaseException:  # Ctrl-C too: the base weights were never written, the adapter comes off
        if peft_model is not None:
            peft_model.unload()
        forget_adapter(model)
        raise
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
