"""Ask a model prompts: greedy, through its chat template, without a system message of ours.

Prompts are batched by length within a token budget; what all prompts of a batch begin with is read once, rows
that have ended are dropped, and a batch that does not fit in memory is halved (`models/generation.py`).
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from causaledit.errors import ModelError
from causaledit.models.batches import BatchLimit
from causaledit.models.chat import prepare_tokenizer, render, render_for, user
from causaledit.models.generation import generate_texts
from causaledit.models.network import context_window
from causaledit.probes.sets import MAX_NEW_TOKENS, TOKEN_BUDGET
from causaledit.support.costs import TokenCount

if TYPE_CHECKING:
    from collections.abc import Sequence

    from transformers import PreTrainedModel, PreTrainedTokenizerBase

MOST_ROWS = 256


class Prober:
    """Asks prompts of one tokenizer's models. The batch limit is kept from call to call once memory ran out.

    Args:
        tokenizer: The model's; left as it is.
        max_new_tokens: Longest answer.
        token_budget: Most tokens in one batch, padding and answers included.
        template_kwargs: Further arguments of the chat template (`enable_thinking: false`, …).
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        *,
        max_new_tokens: int = MAX_NEW_TOKENS,
        token_budget: int = TOKEN_BUDGET,
        template_kwargs: dict[str, Any] | None = None,
    ) -> None:
        self.tokenizer = prepare_tokenizer(tokenizer, template_kwargs)
        self.max_new_tokens = max_new_tokens
        self.limit = BatchLimit(rows=MOST_ROWS, tokens=token_budget)
        self.count = TokenCount()
        self.seconds = 0.0

    def ask(
        self, model: Any, prompts: Sequence[str], *, prefixes: Sequence[str] | None = None, compact: bool = True
    ) -> list[str]:
        """Answer user messages, each on its own; a prompt that occurs twice is asked once.

        Args:
            model: A model of transformers or a wrapper around one; what it carries in its context is heard.
            prompts: User messages.
            prefixes: What the assistant's turn opens with, for each prompt; part of the answer.
            compact: See `generate_texts`; False for a model with a `generate` of its own.

        Returns:
            The answers in the order of `prompts`, without surrounding spaces.
        """
        began = time.perf_counter()
        asked = list(zip(prompts, prefixes or [""] * len(prompts), strict=True))
        unique = list(dict.fromkeys(asked))
        texts = generate_texts(
            model,
            self.tokenizer,
            [render_for(model, self.tokenizer, user(prompt), prefill=prefix) for prompt, prefix in unique],
            max_new_tokens=self.max_new_tokens,
            limit=self.limit,
            compact=compact,
            count=self.count,
        )
        answers = {turn: _whole_turn(turn[1], text) for turn, text in zip(unique, texts, strict=True)}
        self.seconds += time.perf_counter() - began
        return [answers[turn] for turn in asked]

    def check_window(self, model: PreTrainedModel, prompts: Sequence[str]) -> None:
        """Refuse prompts that leave no room for an answer in the model's context window.

        Raises:
            ModelError: The longest prompt and `max_new_tokens` exceed the window.
        """
        window = context_window(model)
        if not window or not prompts:
            return
        longest = render(self.tokenizer, user(max(prompts, key=len)))
        length = len(self.tokenizer(longest, add_special_tokens=False)["input_ids"])
        if length + self.max_new_tokens > window:
            raise ModelError(
                f"--max_new_tokens {self.max_new_tokens}: the longest probe has {length} tokens, and the model's "
                f"context window is {window}: give at most {max(window - length, 0)}, or leave out open_book."
            )


def _whole_turn(prefix: str, continuation: str) -> str:
    """The answer with what it was made to open with; some tokenizers decode a continuation without its space."""
    gap = " " if prefix and continuation[:1].isalnum() else ""
    return f"{prefix}{gap}{continuation}".strip()


def plain_rate(model: Any, tokenizer: Any, *, rows: int = 32, new_tokens: int = 24) -> float:
    """Tokens per second of plain batched `generate`: short prompts, greedy, no row ends early.

    What a run's costs are set beside, so that machines compare.
    """
    import torch

    tokenizer = prepare_tokenizer(tokenizer)
    text = render(tokenizer, user("Tell me a long story about a river."))
    ids = torch.tensor([tokenizer(text, add_special_tokens=False)["input_ids"]] * rows, device=model.device)
    options = {"attention_mask": torch.ones_like(ids), "do_sample": False, "pad_token_id": tokenizer.pad_token_id}
    model.generate(ids[:1], **{**options, "attention_mask": options["attention_mask"][:1]}, max_new_tokens=1)
    began = time.perf_counter()
    output = model.generate(ids, **options, max_new_tokens=new_tokens, min_new_tokens=new_tokens)
    return (output.numel() - ids.numel()) / (time.perf_counter() - began)
