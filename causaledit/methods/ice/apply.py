"""ICE as a host calls it: sample in context, train without it, within ±ε of where the weights were."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from causaledit.methods.call import host_call
from causaledit.methods.ice import METHOD
from causaledit.methods.ice.contexts import edit_contexts
from causaledit.methods.ice.losses import consistency_loss, sampled_consistency_loss
from causaledit.methods.shared.finetune.descent import train
from causaledit.methods.shared.finetune.rows import (
    TargetRow,
    check_window,
    prompt_texts,
    row_logits,
    target_batches,
    target_rows,
)
from causaledit.models.batches import eos_ids
from causaledit.models.chat import prepare_tokenizer
from causaledit.models.edited import WeightsEdit
from causaledit.models.generation import sample_tokens
from causaledit.models.layout import select_weights
from causaledit.models.scoring import completion_logits

if TYPE_CHECKING:
    from collections.abc import Callable

    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from causaledit.facts.requests import EditRequest
    from causaledit.methods.call import Call
    from causaledit.methods.ice.hparams import ICEHyperParams
    from causaledit.models.edited import Edited


@dataclass(frozen=True)
class _Prompt:
    """One way to ask for one fact: without a context, and behind each of the edit's contexts."""

    closed: TargetRow
    in_context: list[TargetRow]


def edit(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    edits: list[EditRequest],
    hparams: ICEHyperParams,
    call: Call,
) -> Edited:
    """Consistent in-context editing (arXiv 2406.11194, section 3).

    Each step s samples continuations x_c ~ p_θs(· | [c, q, x*]) of the context c, the query q and the target
    x*, and takes one step on L = L_ft + λ·L_ICE with

        L_ft  = KL(δ_x* ‖ p_θ(· | q)) = −log p_θ(x* | q),
        L_ICE = E_{x_c} Σ_t KL(p_θs(· | [c, q, x*, x_c,<t]) ‖ p_θ(· | [q, x*, x_c,<t])),

    after which every weight is clipped to ±ε around its start. The target distribution is the model's own
    and moves with it, which keeps the step from collapsing onto the target tokens. Means over tokens
    stand for the sums, so that λ does not depend on lengths.
    """
    names = select_weights(model, hparams.layers, hparams.modules)
    tokenizer = prepare_tokenizer(tokenizer, hparams.chat_template_kwargs, model=model)
    prompts = [_prompts(tokenizer, request, hparams) for request in edits]
    every = [row for group in prompts for p in group for row in (p.closed, *p.in_context)]
    check_window(model, every, further=hparams.sample_max_new_tokens)
    call.report.trained_prompts = prompt_texts(edits, hparams.prompt_forms)
    originals, tally = call.rewriting(model, names), call.report.tally
    closed = [p.closed for group in prompts for p in group]

    def losses(step: int) -> list[Callable[[], torch.Tensor]]:
        parts = target_batches(model, closed, hparams.micro_batch_size, tally.tokens)
        if hparams.context_weight:
            for group in prompts:  # prompts and contexts take turns
                prompt = group[step % len(group)]
                behind = prompt.in_context[(step // len(group)) % len(prompt.in_context)]
                parts.append(
                    _context_part(model, tokenizer, prompt.closed, behind, hparams, len(prompts), tally.tokens)
                )
        return parts

    with tally.timed("train"):
        train(
            [model.get_parameter(name) for name in names],
            losses,
            hparams,
            call,
            norm_constraint=hparams.norm_constraint,
        )
    return WeightsEdit(model, originals)


apply_ice_to_model = host_call(METHOD)


def _prompts(tokenizer: Any, edit: EditRequest, hparams: ICEHyperParams) -> list[_Prompt]:
    contexts = edit_contexts(edit, hparams.contexts)
    behind = [target_rows(tokenizer, edit, hparams.prompt_forms, context=c, **hparams.answers) for c in contexts]
    return [
        _Prompt(row, [rows[i] for rows in behind])
        for i, row in enumerate(target_rows(tokenizer, edit, hparams.prompt_forms, **hparams.answers))
    ]


def _context_part(
    model: Any,
    tokenizer: Any,
    closed: TargetRow,
    behind: TargetRow,
    hparams: ICEHyperParams,
    edits: int,
    count: Any,
) -> Callable[[], torch.Tensor]:
    """λ·L_ICE of one edit, sampled from the model as it is now; its share of the mean over the edits."""
    ends = set(eos_ids(model, tokenizer))

    def open_ended(row: TargetRow) -> list[int]:
        """Prompt and target without the end of the turn, so that the model may go on."""
        target = row.target[:-1] if len(row.target) > 1 and row.target[-1] in ends else row.target
        return row.prompt + target

    def part() -> torch.Tensor:
        continuations = sample_tokens(
            model,
            tokenizer,
            open_ended(behind),
            hparams.samples,
            max_new_tokens=hparams.sample_max_new_tokens,
            temperature=hparams.sample_temperature,
            top_p=hparams.sample_top_p,
            count=count,
        )
        student = torch.cat(row_logits(model, [TargetRow(open_ended(closed), row) for row in continuations]))
        count.trained += len(student)
        if hparams.context_loss == "full":
            teacher = torch.cat(completion_logits(model, [open_ended(behind)] * len(continuations), continuations))
            loss = consistency_loss(student, teacher)
        else:
            tokens = [token for row in continuations for token in row]
            loss = sampled_consistency_loss(student, torch.tensor(tokens, device=student.device))
        return loss * hparams.context_weight / edits

    return part
