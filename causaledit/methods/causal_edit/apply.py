"""CausalEdit as a host calls it: request → narrative → bootstrap → internalise → merged model."""

from __future__ import annotations

import contextlib
import copy as copying
import logging
import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from peft.tuners.tuners_utils import BaseTunerLayer

from causaledit.errors import ModelError, RequestError
from causaledit.methods.causal_edit.bootstrap import (
    TraceReport,
    collect_traces,
    run_bootstrap,
    training_pairs,
)
from causaledit.methods.causal_edit.internalise import (
    TEACHER_ADAPTER,
    add_teacher_snapshot,
    run_internalisation,
)
from causaledit.methods.causal_edit.preservation import build_preservation, read_questions
from causaledit.methods.causal_edit.teacher import choose_teacher
from causaledit.methods.causal_edit.training import add_adapter, lora_config
from causaledit.models.chat import prepare_tokenizer, supports_system_role
from causaledit.models.weights import forget_adapter, preserved_state, restore, snapshot_adapted
from causaledit.narratives import check_context_window, load_narratives, resolve_edits
from causaledit.progress import EditTally, ProgressSink, terminal_progress
from causaledit.requests import EditRequest, requests_from_data

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from causaledit.methods.causal_edit.hparams import CausalEditHyperParams

logger = logging.getLogger(__name__)


@dataclass
class EditReport:
    """What one call did, for the model card and the tables.

    Attributes:
        requests: The edits, with old answers and narratives filled in.
        narrative_source: Per edit: request, file, model, template or none.
        teacher: The resolved teacher (`base`, `bootstrapped`, or `none` without stage 2).
        teacher_accuracy: Share of right answers of the open-book base model, where `auto` measured it.
        traces: Per edit, what sampling gave.
        losses: Per stage, the loss of each optimiser step.
        tally: Seconds per stage and tokens.
    """

    requests: list[EditRequest] = field(default_factory=list)
    narrative_source: list[str] = field(default_factory=list)
    teacher: str = "none"
    teacher_accuracy: float | None = None
    traces: list[TraceReport] = field(default_factory=list)
    losses: dict[str, list[float]] = field(default_factory=dict)
    tally: EditTally = field(default_factory=EditTally)


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
    edits = requests_from_data(list(requests))
    if hasattr(model, "peft_config") or any(isinstance(module, BaseTunerLayer) for module in model.modules()):
        raise ModelError(
            "The model already carries a PEFT adapter: merge it (`model.merge_and_unload()`) before another edit."
        )
    lora_config(model, hparams)  # refuses targets and layers the model does not have
    tokenizer = prepare_tokenizer(tok, hparams.chat_template_kwargs)
    check_context_window(model, tokenizer, edits, hparams)
    if hparams.narrative_file and hparams.editing_mode == "causal":
        load_narratives(hparams.narrative_file)
    if hparams.preserve_weight and hparams.preserve_file:
        read_questions(hparams.preserve_file)
    if len({(e.subject, e.prompt) for e in edits}) != len(edits):
        raise RequestError("Two requests of one batch change the same fact (same subject and prompt): keep one.")

    target = copying.deepcopy(model) if copy else model
    with contextlib.ExitStack() as stack:
        stack.enter_context(_seeded(hparams.seed))
        sink = progress if progress is not None else stack.enter_context(terminal_progress())
        return _edit(target, tokenizer, edits, hparams, return_orig_weights, sink, report, after_bootstrap)


def _edit(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    edits: list[EditRequest],
    hparams: CausalEditHyperParams,
    return_orig_weights: bool,
    progress: ProgressSink,
    report: EditReport,
    after_bootstrap: Callable[[PeftModel], None] | None,
) -> tuple[Any, dict[str, torch.Tensor]]:
    tally = report.tally
    role = hparams.context_role
    if role == "system" and not supports_system_role(tokenizer):
        logger.warning(
            "the chat template takes no system message: the privileged context goes before the user's prompt"
        )
        role = "user"
    peft_model: PeftModel | None = None
    with preserved_state(model):
        try:
            model.eval()
            model.requires_grad_(False)
            with tally.timed("narrative"):
                resolved = resolve_edits(model, tokenizer, edits, hparams, count=tally.tokens)
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
            pairs = (
                _traces(model, tokenizer, hparams, role, progress, report) if _needs_stage_1(hparams, report) else []
            )

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
    with tally.timed("merge"):
        return _deliver(peft_model, model, hparams, return_orig_weights)


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


def _deliver(
    peft_model: PeftModel, model: PreTrainedModel, hparams: CausalEditHyperParams, return_orig_weights: bool
) -> tuple[Any, dict[str, torch.Tensor]]:
    """Merge the adapter into the weights (or hand the adapter over), with the originals by name."""
    if not hparams.merge_adapter:
        for name in ("forward", "_original_forward"):  # accelerate's mixed-precision wrapper
            vars(peft_model).pop(name, None)
        return peft_model.eval(), {}
    originals = snapshot_adapted(peft_model)
    try:
        merged = peft_model.merge_and_unload()
    except BaseException:
        peft_model.unload()
        forget_adapter(model)
        restore(model, originals)
        raise
    forget_adapter(model)
    return merged, originals if return_orig_weights else {}


@contextlib.contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seed all generators for the block and put the caller's states back."""
    states = random.getstate(), np.random.get_state(), torch.random.get_rng_state()
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.random.set_rng_state(states[2])
        if cuda:
            torch.cuda.set_rng_state_all(cuda)
