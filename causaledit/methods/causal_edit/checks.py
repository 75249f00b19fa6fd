"""What is refused, or pointed out, before any compute is spent."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from causaledit.errors import HparamsError
from causaledit.methods.causal_edit.prompts import cake_questions, check_context_window
from causaledit.methods.causal_edit.questions import check_questions
from causaledit.methods.causal_edit.sampling import check_sampling, engine_settings
from causaledit.methods.shared.checks import check_training
from causaledit.methods.shared.processes import check_sharded
from causaledit.methods.shared.rollouts import check_vllm
from causaledit.narratives.resolve import load_narratives, with_narratives
from causaledit.support.launch import launched

if TYPE_CHECKING:
    from collections.abc import Sequence

    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from causaledit.facts.requests import EditRequest
    from causaledit.methods.causal_edit.hparams import CausalEditHyperParams

logger = logging.getLogger(__name__)


def check_before_compute(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    edits: Sequence[EditRequest],
    hparams: CausalEditHyperParams,
    *,
    merged: bool,
) -> None:
    """Refuse what this model, these edits and these hyper-parameters cannot do together.

    Args:
        tokenizer: As from `prepare_tokenizer`.
        merged: Whether the adapter will be merged into the weights.

    Raises:
        HparamsError: A file of the hyper-parameters cannot be read, or vLLM's processes do not divide ours.
        MissingExtraError: vLLM is to generate and is not installed.
        ModelError: The adapter does not fit the model, DeepSpeed's ZeRO stage 3 is configured, the adapter would be
            merged into sharded weights, or vLLM cannot be given the model.
        RequestError: A narrative does not fit into the model's context window, no narrative can be looked up, or
            `question_file` lacks an edit.
    """
    check_sharded(model, merged=merged)
    check_training(model, hparams, merged=merged)
    if hparams.editing_mode == "causal":  # nothing else reads a narrative
        known = load_narratives(hparams.narrative_file) if hparams.narrative_file else {}
        told = [request for request, _ in with_narratives(edits, known)]
        check_context_window(model, tokenizer, told, hparams)
        edits = told
    check_questions(model, tokenizer, edits, hparams)
    if 2 in hparams.stages and hparams.distill_use_vllm:
        _check_processes(hparams)
        check_vllm(model, engine_settings(hparams, "distill_use_vllm"))
    check_sampling(model, hparams)
    _say_what_cake_data_lacks(edits, hparams)


def _check_processes(hparams: CausalEditHyperParams) -> None:
    """Refuse a colocated engine that cannot be spread over whole groups of our processes."""
    if hparams.distill_vllm_mode != "colocate":
        return
    processes, size = launched(), hparams.distill_vllm_tensor_parallel_size
    if processes % size:
        raise HparamsError(
            f"`distill_vllm_tensor_parallel_size` ({size}) must divide the number of processes ({processes}): "
            "lower it, or set `distill_vllm_mode: server`."
        )


def _say_what_cake_data_lacks(edits: Sequence[EditRequest], hparams: CausalEditHyperParams) -> None:
    if not hparams.distill_cake_data or 2 not in hparams.stages:
        return
    without = [edit.subject for edit in edits if not cake_questions(edit)]
    if without:
        logger.warning(
            "`distill_cake_data: true`, but %d of %d requests have no `learning_prompt` (%s): "
            "they are trained without CAKE data",
            len(without), len(edits), ", ".join(repr(subject) for subject in without[:3]),
        )  # fmt: skip
