"""Short texts that a model writes by itself, from openings that say nothing: what it takes plain text to look like."""

from __future__ import annotations

from typing import TYPE_CHECKING

from causaledit.models.generation import generate_texts
from causaledit.support.seeding import seeded

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from causaledit.support.costs import TokenCount

OPENINGS = ("The", "In", "A", "It is", "When", "One of the", "He was", "People", "During", "This")


def own_texts(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    n: int,
    *,
    max_new_tokens: int,
    seed: int,
    count: TokenCount | None = None,
) -> list[str]:
    """Sample `n` texts at temperature 1, each begun as a document is.

    Args:
        model: Writes.
        tokenizer: Its tokenizer.
        n: How many.
        max_new_tokens: Their maximum length behind the opening, in tokens.
        seed: Of the sampling; the caller's random state stays as it was.
        count: Where generated tokens are counted.

    Returns:
        Texts with their openings, without the beginning-of-text token.
    """
    prompts = [OPENINGS[i % len(OPENINGS)] for i in range(n)]
    begun = [f"{tokenizer.bos_token or ''}{prompt}" for prompt in prompts]  # as at the start of a document
    with seeded(seed):
        texts = generate_texts(model, tokenizer, begun, max_new_tokens=max_new_tokens, temperature=1.0, count=count)
    return [prompt + text for prompt, text in zip(prompts, texts, strict=True)]
