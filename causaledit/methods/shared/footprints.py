"""What stages that several methods have in common need in memory (`methods.footprint`): the same code, without data."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from causaledit.methods.footprint import Remedy, StageFootprint, bytes_of
from causaledit.methods.shared.contrast import (
    OTHERS_READ,
    ROWS_TOGETHER,
    adapted_layers,
    first_gradients,
    other_inputs,
)
from causaledit.methods.shared.preservation import TEXT_TOKENS, TEXTS_PER_STEP, bucketed_kl
from causaledit.models.footprint import Peak, generation_peak, larger
from causaledit.models.layout import select_weights
from causaledit.models.scoring import completion_cross_entropy, logits_in_one_pass

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from causaledit.methods.footprint import Planner
    from causaledit.models.footprint import PlannedModel
    from causaledit.support.lengths import Lengths

GREEDY_TOGETHER = 64  # `greedy_answers`
TEXTS_TOGETHER = 32  # `generate_texts`


def prompts_of(lengths: Lengths, length: int, rows: int, group: int = 1) -> list[list[int]]:
    """Prompts of a length that begin with the chat template's opening; those of a group are equal."""
    opening = min(lengths.opening, length // 2)
    return [[0] * opening + [row // group + 1] * (length - opening) for row in range(rows)]


# ---- adapters --------------------------------------------------------------------------------------
def preserve_stages(plain: PlannedModel, planner: Planner) -> list[StageFootprint]:
    """The unedited model's answers to the preserved questions; nothing where there are none."""
    hparams = planner.hparams
    if not hparams.preserve_weight:
        return []
    new = hparams.preserve_max_new_tokens
    peak = generation_peak(
        plain, rows=min(GREEDY_TOGETHER, hparams.preserve_prompts), prompt=planner.lengths.prompt, new=new,
        shared=False, sampled=False, kept=new,
    )  # fmt: skip
    generated = hparams.preserve_prompts * new + hparams.preserve_texts * TEXT_TOKENS
    return [StageFootprint("preserve", peak, generated=generated)]


def question_stages(plain: PlannedModel, planner: Planner) -> list[StageFootprint]:
    """The questions that the unedited model writes; nothing where it writes none."""
    if not planner.hparams.writes_questions:
        return []
    new = planner.hparams.question_max_new_tokens
    peak = generation_peak(plain, rows=1, prompt=planner.lengths.context, new=new, shared=True)
    return [StageFootprint("questions", peak, generated=new)]


def preserving_peak(adapted: PlannedModel, planner: Planner) -> Peak:
    """The preservation term, which has a backward pass of its own."""
    hparams = planner.hparams
    if not hparams.preserve_weight:
        return Peak()
    rows, new = min(hparams.preserve_batch_size, hparams.preserve_prompts), hparams.preserve_max_new_tokens
    rows += hparams.preserve_batch_size if hparams.rehearse_edits else 0
    width = min(hparams.preserve_top_k, adapted.vocabulary)
    prompts = prompts_of(planner.lengths, planner.lengths.prompt, rows)
    with adapted.tracked(training=True) as tracker:
        logits = logits_in_one_pass(adapted.model, prompts, [[0] * new] * rows, share=shares(hparams))
        if hparams.preserve_texts:
            answers = [[0] * TEXT_TOKENS] * TEXTS_PER_STEP
            logits += logits_in_one_pass(adapted.model, [[0]] * TEXTS_PER_STEP, answers, share=shares(hparams))
        together = torch.cat(logits)
        top = torch.zeros(len(together), width)
        bucketed_kl(top, torch.zeros(len(together), width, dtype=torch.long), together).mean().backward()
    return tracker.peak


def contrast_peak(adapted: PlannedModel, planner: Planner) -> Peak:
    """What points the adapter before its first step (`lora_init: contrast`)."""
    hparams = planner.hparams
    if hparams.lora_init != "contrast":
        return Peak()
    layers, lengths = adapted_layers(adapted.model), planner.lengths
    prompts = prompts_of(lengths, lengths.prompt, ROWS_TOGETHER)
    with adapted.tracked(training=True) as tracker:
        first_gradients(adapted.model, layers, [(prompt, [0] * lengths.answer) for prompt in prompts], hparams.seed)
    others = prompts_of(lengths, lengths.prompt + lengths.answer, 2 * OTHERS_READ)
    with adapted.tracked(training=False) as watched:
        other_inputs(adapted.model, layers, others)
    return larger(tracker.peak, watched.peak)


def shares(hparams: Any) -> bool:
    """Whether prompts that begin alike are read together (`StageMixin.shares_prefix`)."""
    return not getattr(hparams, "gradient_checkpointing", False)


def supervised_peak(
    adapted: PlannedModel,
    planner: Planner,
    contexts: Sequence[Sequence[int]],
    completions: Sequence[list[int]],
    loss: Any = completion_cross_entropy,
) -> Peak:
    """A micro-batch of a supervised stage, forward and backward.

    Args:
        contexts, completions: Its rows.
        loss: Of one row's logits and completion.
    """
    with adapted.tracked(training=True) as tracker:
        logits = logits_in_one_pass(adapted.model, contexts, completions, share=shares(planner.hparams))
        total = torch.stack([loss(one, tokens) for one, tokens in zip(logits, completions, strict=True)])
        del logits
        (total.sum() / sum(map(len, completions))).backward()
    return tracker.peak


def adapter_remedies(hparams: Any, *, trained: tuple[str, ...], micro: str | None = None) -> Iterator[Remedy]:
    """What makes the training of an adapter smaller, mildest first.

    Args:
        trained: The stages that train.
        micro: The hyper-parameter that bounds the tokens of one pass.
    """
    if not hparams.gradient_checkpointing:
        yield Remedy({"gradient_checkpointing": True}, "the same losses, one more forward pass", trained)
    for tokens in (2048, 1024, 512):
        if micro is not None and tokens < getattr(hparams, micro):
            yield Remedy({micro: tokens}, "the same losses, fewer rows at a time", trained)
    yield from quantising_remedies(hparams)


def quantising_remedies(hparams: Any) -> Iterator[Remedy]:
    """Fewer bits for the base model's matrices."""
    if hparams.quantization == "none":
        for kind in ("8bit", "4bit"):
            yield Remedy({"quantization": kind, "merge_adapter": False}, "a quantised base: the adapter is kept apart")


# ---- weights ---------------------------------------------------------------------------------------
def descent_bytes(parameters: Sequence[torch.Tensor], *, bounded: bool = False) -> int:
    """Gradients, and what `ConstrainedAdam` keeps: moments, starts, and float32 copies of what is not float32."""
    numbers = sum(parameter.numel() for parameter in parameters)
    copied = sum(parameter.numel() for parameter in parameters if parameter.dtype != torch.float32)
    return bytes_of(parameters) + (12 if bounded else 8) * numbers + 8 * copied


def step_peak(parameters: Sequence[torch.Tensor]) -> Peak:
    """What an optimiser step allocates besides: two float32 tensors of the largest matrix."""
    largest = 8 * max(parameter.numel() for parameter in parameters)
    return Peak(largest, {"logits": 0, "cache": 0, "activations": largest})


def with_trained_weights(network: Any, hparams: Any) -> Any:
    """Let the weights require gradients that FT and ICE train."""
    for name in select_weights(network, hparams.layers, hparams.modules):
        network.get_parameter(name).requires_grad_(True)
    return network
