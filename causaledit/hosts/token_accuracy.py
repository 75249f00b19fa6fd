"""EasyEdit's token-accuracy metrics, computed by ourselves for the embedded host.

Teacher forcing: the share of the target's tokens that are the model's first choice, given the prompt and
the target's tokens before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from causaledit.models.batches import left_padded
from causaledit.models.chat import render_for, user, with_context

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def as_list(value: Any) -> list[Any]:
    """A text stands for a list of one."""
    return [value] if isinstance(value, str) else list(value)


@torch.no_grad()
def predicted_tokens(
    model: PreTrainedModel,
    tok: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    targets: Sequence[str],
    *,
    use_chat_template: bool = False,
) -> list[tuple[list[int], list[int]]]:
    """For each prompt: the model's first choices at the target's positions, and the target's tokens.

    Args:
        prompts: Plain texts; rendered as a user message with `use_chat_template`.
        targets: Texts that follow after one space.
    """
    if use_chat_template:
        prompts = [render_for(model, tok, user(prompt)) for prompt in prompts]
    else:
        prompts = [with_context(model, prompt) for prompt in prompts]
    heads = [tok(prompt)["input_ids"] for prompt in prompts]
    rows = [tok(f"{prompt} {target}")["input_ids"] for prompt, target in zip(prompts, targets, strict=True)]
    pad_id = tok.pad_token_id if tok.pad_token_id is not None else tok.eos_token_id
    first = model(**left_padded(model, rows, pad_id or 0, model.device), use_cache=False).logits.argmax(-1).tolist()
    pairs = []
    for choice, row, head in zip(first, rows, heads, strict=True):
        n = max(len(row) - len(head), 1)
        pairs.append((choice[-n - 1 : -1], row[-n:]))
    return pairs


def token_accuracy(pairs: Sequence[tuple[Sequence[int], Sequence[int]]]) -> list[float]:
    """Share of equal tokens, per pair."""
    return [sum(a == b for a, b in zip(x, y, strict=True)) / len(y) for x, y in pairs]


def edit_quality(
    model: PreTrainedModel,
    tok: PreTrainedTokenizerBase,
    request: Mapping[str, Any],
    *,
    use_chat_template: bool,
) -> dict[str, Any]:
    """`rewrite_acc`, `rephrase_acc`, locality outputs and portability accuracies of one request."""

    def accuracy(prompts: Any, targets: Any, chat: bool = use_chat_template) -> list[float]:
        prompts, targets = as_list(prompts), as_list(targets)
        if len(targets) == 1 < len(prompts):
            targets = targets * len(prompts)
        return token_accuracy(predicted_tokens(model, tok, prompts, targets, use_chat_template=chat))

    result: dict[str, Any] = {
        "rewrite_acc": accuracy(request["prompt"], request["target_new"]),
        "locality": {},
        "portability": {},
    }
    if request.get("rephrase_prompt") is not None:
        result["rephrase_acc"] = accuracy(request["rephrase_prompt"], request["target_new"])
    for key, probe in (request.get("locality") or {}).items():
        pairs = predicted_tokens(model, tok, as_list(probe["prompt"]), as_list(probe["ground_truth"]))
        result["locality"][f"{key}_output"] = [choice for choice, _ in pairs]
    for key, probe in (request.get("portability") or {}).items():
        result["portability"][f"{key}_acc"] = accuracy(probe["prompt"], probe["ground_truth"])
    return result


def finish_locality(metrics: dict[str, Any]) -> None:
    """Replace the post-edit locality outputs by `<key>_acc`: agreement with the pre-edit outputs."""
    for key in [name.removesuffix("_output") for name in metrics["pre"]["locality"]]:
        before = metrics["pre"]["locality"].pop(f"{key}_output")
        after = metrics["post"]["locality"].pop(f"{key}_output")
        metrics["post"]["locality"][f"{key}_acc"] = token_accuracy(list(zip(after, before, strict=True)))
