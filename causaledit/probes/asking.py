"""Ask a model prompts: greedy, through its chat template, without a system message of ours.

Prompts are batched by length within a token budget; the common beginning of a batch's prompts is read once, rows
that have ended are dropped, and a batch that does not fit in memory is halved (`models/generation.py`).
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from causaledit.errors import ModelError
from causaledit.models.batches import BatchLimit, context_window, pad_id
from causaledit.models.chat import prepare_tokenizer, render, render_for, user
from causaledit.models.generation import generate_texts, neutral_generation
from causaledit.probes.sets import MAX_NEW_TOKENS, TOKEN_BUDGET
from causaledit.support.costs import TokenCount

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from causaledit.models.vllm_engine import VLLMEngine

MOST_ROWS = 256


class Prober:
    """Asks prompts of one tokenizer's models. The batch limit is kept from call to call once memory ran out.

    Args:
        tokenizer: The model's; left as it is.
        max_new_tokens: Maximum length of an answer, in tokens.
        token_budget: Most tokens in one batch, padding and answers included.
        template_kwargs: Further arguments of the chat template (`enable_thinking: false`, …).
        engine: Answers for models whose edit is in their weights; `rest` tells it that these change.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        *,
        max_new_tokens: int = MAX_NEW_TOKENS,
        token_budget: int = TOKEN_BUDGET,
        template_kwargs: dict[str, Any] | None = None,
        engine: VLLMEngine | None = None,
    ) -> None:
        self.tokenizer = prepare_tokenizer(tokenizer, template_kwargs)
        self.max_new_tokens = max_new_tokens
        self.limit = BatchLimit(rows=MOST_ROWS, tokens=token_budget)
        self.engine = engine
        self.count = TokenCount()
        self.seconds = 0.0

    def ask(
        self, model: Any, prompts: Sequence[str], *, prefixes: Sequence[str] | None = None, compact: bool = True
    ) -> list[str]:
        """Answer user messages, each on its own; a prompt that occurs twice is asked once.

        Args:
            model: A model of transformers or a wrapper around one; facts in its context take effect.
            prompts: User messages.
            prefixes: What the assistant's turn opens with, for each prompt; part of the answer.
            compact: See `generate_texts`; False for a model with a `generate` of its own.

        Returns:
            The answers in the order of `prompts`, without surrounding spaces.
        """
        began = time.perf_counter()
        asked = list(zip(prompts, prefixes or [""] * len(prompts), strict=True))
        unique = list(dict.fromkeys(asked))
        served = self.engine is not None and bool(unique) and self.engine.serves(model, own_generate=not compact)
        texts = generate_texts(
            model,
            self.tokenizer,
            [render_for(model, self.tokenizer, user(prompt), prefill=prefix) for prompt, prefix in unique],
            max_new_tokens=self.max_new_tokens,
            limit=self.limit,
            compact=compact,
            count=self.count,
            engine=self.engine if served else None,
        )
        answers = {turn: _whole_turn(turn[1], text) for turn, text in zip(unique, texts, strict=True)}
        self.seconds += time.perf_counter() - began
        return [answers[turn] for turn in asked]

    def start_engine(self, model: PreTrainedModel, turns: Iterable[tuple[str, str]]) -> None:
        """Start the engine, where there is one, unless it was started before.

        Args:
            model: The unedited network.
            turns: Every user message that it will be asked, with what the assistant's turn opens with.
        """
        if self.engine is None:
            return
        texts = [render(self.tokenizer, user(prompt), prefill=prefix) for prompt, prefix in turns]
        rows = self.tokenizer(texts, add_special_tokens=False)["input_ids"]
        self.engine.open(model, self.tokenizer, longest=max(map(len, rows), default=1) + self.max_new_tokens)

    def rest(self) -> None:
        """The model's weights are about to change, or have changed."""
        if self.engine is not None:
            self.engine.rest()

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

    A run's costs are compared with it, so that machines can be compared.
    """
    import torch

    tokenizer = prepare_tokenizer(tokenizer)
    text = render(tokenizer, user("Tell me a long story about a river."))
    ids = torch.tensor([tokenizer(text, add_special_tokens=False)["input_ids"]] * rows, device=model.device)
    options = {"do_sample": False, "pad_token_id": pad_id(model, tokenizer)}
    mask = torch.ones_like(ids)
    with neutral_generation(model):  # which ends no row: it knows of no end token
        model.generate(ids[:1], attention_mask=mask[:1], **options, max_new_tokens=1)
        began = time.perf_counter()
        output = model.generate(ids, attention_mask=mask, **options, max_new_tokens=new_tokens)
    return (output.numel() - ids.numel()) / (time.perf_counter() - began)
