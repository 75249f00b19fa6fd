"""Gradient descent on an edit's target tokens: what FT, LoRA and ICE share.

Rows of (prompt tokens, target tokens), the selection of weights by layer and module, and an optimiser that
keeps every weight within ε of where it started.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from causaledit.errors import RequestError
from causaledit.models.batches import context_window
from causaledit.models.chat import answer_gap, render, user
from causaledit.models.scoring import logits_in_one_pass

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from causaledit.facts.requests import EditRequest
    from causaledit.support.costs import TokenCount


# ---- rows ------------------------------------------------------------------------------------------
class TargetRow(NamedTuple):
    """Token ids of a prompt and of the answer that is to follow."""

    prompt: list[int]
    target: list[int]


def target_rows(
    tokenizer: PreTrainedTokenizerBase, edit: EditRequest, forms: Sequence[str], *, context: str = ""
) -> list[TargetRow]:
    """The prompts an edit is trained on, each with the new answer.

    Args:
        tokenizer: With a chat template.
        forms: `plain` (the cloze as bare text), `cloze` and `question` (as a user's message; the answer then
            ends the turn).
        context: A text put before the prompt.
    """
    rows = []
    for form in forms:
        if form == "plain":
            head = f"{context}\n{edit.cloze}" if context else edit.cloze
            rows.append(_split(tokenizer, head, f"{head} {edit.target_new}", special=True))
            continue
        asked = edit.cloze if form == "cloze" else edit.question_form
        head = render(tokenizer, user(f"{context}\n\n{asked}" if context else asked))
        row = _split(tokenizer, head, head + answer_gap(tokenizer) + edit.target_new, special=False)
        end = [tokenizer.eos_token_id] if tokenizer.eos_token_id is not None else []
        rows.append(TargetRow(row.prompt, row.target + end))
    return rows


def _split(tokenizer: Any, head: str, full: str, *, special: bool) -> TargetRow:
    """Tokens of the whole text, cut where those of its beginning end (or where the two part)."""
    first = tokenizer(head, add_special_tokens=special)["input_ids"]
    row = tokenizer(full, add_special_tokens=special)["input_ids"]
    cut = 0
    for a, b in zip(first, row, strict=False):
        if a != b:
            break
        cut += 1
    cut = min(cut, len(row) - 1)
    return TargetRow(row[:cut], row[cut:])


def check_window(model: PreTrainedModel, rows: Sequence[TargetRow], further: int = 0) -> None:
    """Refuse rows that do not fit into the model's context window.

    Raises:
        RequestError: A row is too long; nothing is ever cut.
    """
    window = context_window(model)
    need = max(len(row.prompt) + len(row.target) for row in rows) + further
    if window and need > window:
        raise RequestError(
            f"A prompt with its answer has {need} tokens, and the model's context window is {window}: shorten it."
        )


def row_logits(model: PreTrainedModel, rows: Sequence[TargetRow]) -> list[torch.Tensor]:
    """For each row the `(len(target), vocabulary)` logits that predict its target, with gradients."""
    return logits_in_one_pass(model, [row.prompt for row in rows], [row.target for row in rows], share=False)


def target_loss(logits: torch.Tensor, target: Sequence[int]) -> torch.Tensor:
    """Mean negative log-probability of a target: KL(δ_target ‖ p), the fine-tuning loss.

    Args:
        logits: `(n, vocabulary)`.
        target: n token ids.
    """
    ids = torch.tensor(list(target), device=logits.device)
    return torch.nn.functional.cross_entropy(logits, ids)


# ---- which weights ---------------------------------------------------------------------------------


# ---- descending ------------------------------------------------------------------------------------


def target_batches(
    model: PreTrainedModel, rows: Sequence[TargetRow], size: int, count: TokenCount
) -> list[Callable[[], torch.Tensor]]:
    """The mean target loss over rows as micro-batches of `size` rows, for `descend`."""

    def part(batch: Sequence[TargetRow]) -> torch.Tensor:
        logits = row_logits(model, batch)
        count.trained += sum(len(row.target) for row in batch)
        return torch.stack([target_loss(x, r.target) for x, r in zip(logits, batch, strict=True)]).sum() / len(rows)

    batches = [rows[i : i + size] for i in range(0, len(rows), size)]
    return [lambda batch=batch: part(batch) for batch in batches]
