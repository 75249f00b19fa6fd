"""Contexts put before an edit's prompt, so that keys and values hold in more than one sentence.

The papers prepend random texts that the model itself wrote (ROME section 3.1, step 1, and MEMIT section 4.3.2).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from causaledit.models.batches import eos_ids, pad_id, pad_left
from causaledit.models.generation import neutral_generation
from causaledit.support.seeding import seeded

if TYPE_CHECKING:
    from collections.abc import Sequence

Contexts = tuple[tuple[str, ...], ...]

OPENINGS = ("The", "Therefore", "Because", "I", "You")
TOP_K = 5


@torch.no_grad()
def sample_contexts(model: Any, tokenizer: Any, lengths: Sequence[Sequence[int]], seed: int) -> Contexts:
    """The bare prompt, and contexts sampled from the model.

    Args:
        lengths: `[length, number]` pairs: the contexts' length in tokens, openings included, and their number,
            which is spread over the openings, at least one each.
        seed: The same seed gives the same contexts.

    Returns:
        Groups of templates with one `{}` each: `("{}",)` first, then one group per pair.
    """
    from transformers import GenerationConfig

    groups: list[tuple[str, ...]] = [("{}",)]
    padding, ends = pad_id(model, tokenizer), eos_ids(model, tokenizer) or None
    with seeded(seed), neutral_generation(model):
        for length, number in lengths:
            openings = [o for o in OPENINGS for _ in range(max(number // len(OPENINGS), 1))][: max(number, 1)]
            rows = [list(tokenizer(opening)["input_ids"]) for opening in openings]
            ids, mask = pad_left(rows, padding, model.device)
            if length > ids.shape[1]:
                config = GenerationConfig(
                    max_new_tokens=length - ids.shape[1], do_sample=True, top_k=TOP_K, pad_token_id=padding,
                    eos_token_id=ends,
                )  # fmt: skip
                ids = model.generate(input_ids=ids, attention_mask=mask, generation_config=config)
            texts = tokenizer.batch_decode(ids, skip_special_tokens=True)
            groups.append(tuple(as_template(text) for text in texts))
    return tuple(groups)


def as_template(text: str) -> str:
    """A context as a template: one line, no braces of its own, closed by a full stop."""
    return " ".join(text.replace("{", " ").replace("}", " ").split()) + ". {}"


def flat(contexts: Contexts) -> list[str]:
    """All templates, the bare one first."""
    return [template for group in contexts for template in group]


def weights(contexts: Contexts, *, by_group: bool) -> torch.Tensor:
    """How much each template counts in the mean key; sums to 1.

    Args:
        by_group: Groups weigh the same (MEMIT's code: the bare prompt weighs as much as all sampled contexts of one
            length together); otherwise templates do (ROME).
    """
    if not by_group:
        n = len(flat(contexts))
        return torch.full((n,), 1 / n)
    return torch.cat([torch.full((len(group),), 1 / (len(group) * len(contexts))) for group in contexts])
