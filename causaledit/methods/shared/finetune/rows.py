"""An edit's prompts and target tokens as rows, and the loss over them, in micro-batches."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from causaledit.errors import RequestError
from causaledit.facts.relations import RelationBank
from causaledit.methods.shared.window import check_length
from causaledit.models.batches import parted_tokens
from causaledit.models.chat import answer_gap, render, user
from causaledit.models.scoring import logits_in_one_pass

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from causaledit.facts.requests import EditRequest
    from causaledit.support.costs import TokenCount


# The most of them that stand for the form `paraphrases`.
PARAPHRASES = 8


class TargetRow(NamedTuple):
    """Token ids of a prompt and of the answer that is to follow."""

    prompt: list[int]
    target: list[int]


def target_rows(
    tokenizer: PreTrainedTokenizerBase,
    edit: EditRequest,
    forms: Sequence[str],
    *,
    context: str = "",
    sentence: bool = False,
    ends: bool = True,
) -> list[TargetRow]:
    """The prompts an edit is trained on, each with the new answer; at least one.

    Args:
        tokenizer: With a chat template.
        forms: `plain` (the cloze as bare text), `cloze` and `question` (as a user's message; the answer then
            ends the turn), `paraphrases` (those of the relation bank, likewise).
        context: A text put before the prompt.
        sentence: Whether a user's message is answered with the fact's sentence.
        ends: Whether an answer to a user's message has the token that ends the turn.

    Raises:
        RequestError: The forms are `paraphrases` alone, and there is none.
    """
    rows, answer = [], RelationBank.bundled().stated(edit) if sentence else edit.target_new
    end = [tokenizer.eos_token_id] if ends and tokenizer.eos_token_id is not None else []
    for form, asked in [(name, text) for name in forms for text in prompts_of(edit, name)]:
        if form == "plain":
            head = f"{context}\n{asked}" if context else asked
            rows.append(TargetRow(*parted_tokens(tokenizer, head, f" {edit.target_new}", special=True)))
            continue
        head = render(tokenizer, user(f"{context}\n\n{asked}" if context else asked))
        prompt, target = parted_tokens(tokenizer, head, answer_gap(tokenizer) + answer)
        rows.append(TargetRow(prompt, target + end))
    if not rows:
        raise RequestError(
            f"`prompt_forms: [{', '.join(forms)}]` leaves {edit.cloze!r} without a prompt: the bundled relations have "
            "no paraphrase of it that is not a probe. Add `question` or `cloze` to `prompt_forms`."
        )
    return rows


def prompts_of(edit: EditRequest, form: str) -> list[str]:
    """What is asked in one of `target_rows`' forms, without context or template."""
    if form == "paraphrases":
        return RelationBank.bundled().paraphrases(edit, PARAPHRASES)
    return [edit.question_form if form == "question" else edit.cloze]


def texts_of(edit: EditRequest, forms: Sequence[str]) -> list[str]:
    """What is asked in each of `target_rows`."""
    return [text for form in forms for text in prompts_of(edit, form)]


def prompt_texts(edits: Sequence[EditRequest], forms: Sequence[str]) -> list[str]:
    """What some edits are trained on, each text once: a report's `trained_prompts`."""
    return list(dict.fromkeys(text for edit in edits for text in texts_of(edit, forms)))


def check_window(model: PreTrainedModel, rows: Sequence[TargetRow], further: int = 0) -> None:
    """Refuse rows that do not fit into the model's context window.

    Raises:
        RequestError: A row is too long; nothing is ever cut.
    """
    longest = max(len(row.prompt) + len(row.target) for row in rows)
    check_length(model, longest + further, "A prompt with its answer")


def row_logits(model: Any, rows: Sequence[TargetRow]) -> list[torch.Tensor]:
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


def target_losses(model: PreTrainedModel | PeftModel, rows: Sequence[TargetRow]) -> list[torch.Tensor]:
    """For each row the mean loss over its target tokens, each predicted from those before it."""
    return [target_loss(logits, row.target) for logits, row in zip(row_logits(model, rows), rows, strict=True)]


def target_batches(
    model: PreTrainedModel | PeftModel,
    rows: Sequence[TargetRow],
    size: int,
    count: TokenCount,
    losses: Callable[[Any, Sequence[TargetRow]], list[torch.Tensor]] = target_losses,
) -> list[Callable[[], torch.Tensor]]:
    """The mean loss over rows as micro-batches of `size` rows, for `descend`.

    Args:
        losses: The loss of each of some rows.
    """

    def part(batch: Sequence[TargetRow]) -> torch.Tensor:
        count.trained += sum(len(row.target) for row in batch)
        return torch.stack(losses(model, batch)).sum() / len(rows)

    batches = [rows[i : i + size] for i in range(0, len(rows), size)]
    return [functools.partial(part, batch) for batch in batches]
