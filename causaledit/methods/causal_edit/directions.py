"""Where a subject-keyed adapter listens: directions in which the edited subjects' tokens stand out.

Not in the paper. A LoRA update ΔW = s·B·A reads its input through A alone. With `lora_init: subject` the rows of A
are not drawn at random and trained, but computed once and kept: for each edit the directions a that hold the most of
the input at its subject's tokens for what they hold of the input elsewhere,

    a = argmax  E_subject[(a·x)²] / (E_other[(a·x)²] + ε‖a‖²),

the leading generalised eigenvectors of the two second moments (with one direction: C⁻¹k, the key that ROME writes
to, arXiv 2202.05262 eq. 2). Training B then decides what the model says behind the subject's name, and text about
others hardly passes through the adapter, whatever B becomes.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import torch

from causaledit.methods.causal_edit import traces as T
from causaledit.methods.causal_edit.bootstrap import all_prompts
from causaledit.methods.causal_edit.preservation import neighbour_questions
from causaledit.methods.causal_edit.relations import RelationBank
from causaledit.methods.locate_edit.subjects import tokens_of
from causaledit.models.chat import render, user
from causaledit.models.generation import left_padded
from causaledit.models.hooks import inputs_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from peft import PeftModel
    from transformers import PreTrainedTokenizerBase

    from causaledit.methods.causal_edit.hparams import CausalEditHyperParams
    from causaledit.requests import EditRequest

BATCH = 16  # texts read at a time


def leading_directions(keys: torch.Tensor, other: torch.Tensor, *, rank: int, ridge: float) -> torch.Tensor:
    """The directions that hold the most of `keys` for what they hold of `other`.

    With C = other·otherᵀ/N + ε·I the leading eigenvectors of keys·keysᵀ against C are C⁻¹·keys·u, u those of the
    small matrix keysᵀ·C⁻¹·keys; where there are fewer tokens than features C⁻¹ is applied in their span.

    Args:
        keys: `(n, features)` inputs at a subject's tokens.
        other: `(N, features)` inputs at other tokens.
        rank: How many directions; no more are given than `keys` spans.
        ridge: ε, as a share of C's mean diagonal.

    Returns:
        `(at most rank, features)`, strongest first; each has a mean square of 1 over `keys`.
    """
    keys, other = keys.double(), other.double()
    tokens, features = other.shape
    epsilon = ridge * float(other.square().sum()) / (tokens * features)
    if tokens < features:
        gram = other @ other.T / tokens
        gram.diagonal().add_(epsilon)
        solved = (
            keys - (torch.cholesky_solve(other @ keys.T, torch.linalg.cholesky(gram)).T @ other) / tokens
        ) / epsilon
    else:
        moment = other.T @ other / tokens
        moment.diagonal().add_(epsilon)
        solved = torch.cholesky_solve(keys.T, torch.linalg.cholesky(moment)).T
    energy, vectors = torch.linalg.eigh((keys @ solved.T + solved @ keys.T) / 2)
    energy, vectors = energy.flip(0)[:rank], vectors.flip(1)[:, :rank]
    kept = energy > energy[0] * 1e-6
    directions = vectors[:, kept].T @ solved
    return directions * (len(keys) ** 0.5 / energy[kept])[:, None]


@torch.no_grad()
def listen_at_subjects(
    model: PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    requests: Sequence[EditRequest],
    hparams: CausalEditHyperParams,
) -> None:
    """Set the A matrices of a fresh adapter to the subjects' directions, `lora_rank` for each edit, and fix them.

    Args:
        model: The model with an adapter of rank `lora_rank` × edits whose B matrices are zero.
        tokenizer: As from `prepare_tokenizer`.
        requests: The edits, in the order of the adapter's ranks.
    """
    layers = adapted_layers(model)
    subject_rows, other_rows = _texts(tokenizer, requests, hparams)
    read = _inputs(model, list(layers.values()), [row for row, _ in subject_rows] + other_rows, tokenizer)
    for layer, inputs in zip(layers.values(), read, strict=True):
        keys: list[list[torch.Tensor]] = [[] for _ in requests]
        other = list(inputs[len(subject_rows) :])
        for (_, places), states in zip(subject_rows, inputs, strict=False):
            for edit, at in enumerate(places):
                keys[edit].append(states[at])
            plain = torch.ones(len(states), dtype=torch.bool)
            plain[[i for at in places for i in at]] = False
            other.append(states[plain])
        background = torch.cat(other)
        weight = layer.lora_A["default"].weight
        weight.zero_()
        for edit, states in enumerate(keys):
            found = leading_directions(
                torch.cat(states), background, rank=hparams.lora_rank, ridge=hparams.subject_ridge
            )
            weight[edit * hparams.lora_rank :][: len(found)] = found.to(weight)
        weight.requires_grad_(False)


def adapted_layers(model: PeftModel) -> dict[str, Any]:
    """The layers that carry the adapter, by name."""
    return {name: module for name, module in model.named_modules() if "default" in getattr(module, "lora_A", {})}


def _texts(
    tokenizer: PreTrainedTokenizerBase, requests: Sequence[EditRequest], hparams: CausalEditHyperParams
) -> tuple[list[tuple[list[int], list[list[int]]]], list[list[int]]]:
    """Token rows about the subjects, with each edit's subject's places in them, and rows about others."""
    about = [
        render(tokenizer, user(prompt.text)) + T.direct_answer(request)
        for request in requests
        for prompt in all_prompts(request, hparams)
    ]
    subject_rows = []
    for text in about:
        places = [tokens_of(tokenizer, text, request.subject) for request in requests]
        subject_rows.append((places[0].ids, [place.at for place in places]))
    rng = random.Random(hparams.seed)
    share = max(8, hparams.subject_background // len(requests))
    others = [
        question
        for request in requests
        for question in neighbour_questions(request, share, bank=RelationBank.bundled(), rng=rng)
        if not any(r.subject in question for r in requests)
    ]
    other_rows = [
        tokenizer(render(tokenizer, user(question)), add_special_tokens=False)["input_ids"]
        for question in dict.fromkeys(others)
    ]
    return subject_rows, other_rows


def _inputs(model: Any, layers: list[Any], rows: list[list[int]], tokenizer: Any) -> list[list[torch.Tensor]]:
    """What each layer receives for each row of tokens, `(tokens, features)` in host memory."""
    read: list[list[torch.Tensor]] = [[] for _ in layers]
    for start in range(0, len(rows), BATCH):
        batch = rows[start : start + BATCH]
        inputs = left_padded(model, batch, tokenizer.pad_token_id, model.device)
        for kept, states in zip(read, inputs_of(model, layers, **inputs, use_cache=False), strict=True):
            kept += [states[i, -len(row) :].float().cpu() for i, row in enumerate(batch)]
    return read
