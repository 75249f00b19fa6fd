"""EasyEdit's token-accuracy metrics, computed by ourselves for the embedded host.

Teacher forcing: the share of the target's tokens that are the model's first choice, given the prompt and
the target's tokens before. A model whose greedy continuation of the prompt is the target has 1.0: the prompt is
tokenised as for generation, and the target's tokens are those that go on from there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from causaledit.models.batches import PAD, left_padded
from causaledit.models.chat import render_for, user, with_context

if TYPE_CHECKING:
    from collections.abc import Sequence

    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from causaledit.facts.request_probes import QuestionAnswer
    from causaledit.hosts.reading import HostRequest


# ---- a prompt and its target as tokens -------------------------------------------------------------
class Row(NamedTuple):
    """Token ids of a prompt, and of the target that is to follow."""

    prompt: list[int]
    target: list[int]


def target_row(
    model: PreTrainedModel,
    tok: PreTrainedTokenizerBase,
    prompt: str,
    target: str,
    *,
    use_chat_template: bool = False,
) -> Row:
    """Tokenise a prompt as for generation, and a target as its continuation.

    Args:
        model: Its in-context facts, where it carries any, go before the prompt.
        tok: With a chat template where one is used.
        prompt: A plain text; a user's message with `use_chat_template`.
        target: It follows a plain prompt after one space, and the opening of an assistant's turn as the chat template
            has it.
    """
    if use_chat_template:
        head = render_for(model, tok, user(prompt))
        ids = tok(head, add_special_tokens=False)["input_ids"]
        return Row(ids, _continuation(tok, head, ids, _gap(tok, head, target), target))
    head = with_context(model, prompt)
    ids = tok(head, add_special_tokens=False)["input_ids"]
    opening = _opening(tok, head, ids)
    return Row(opening + ids, _continuation(tok, head, ids, " ", target))


def _opening(tok: Any, text: str, ids: list[int]) -> list[int]:
    """What the tokenizer puts before a text by itself (BOS), unless the text begins with it already."""
    full = tok(text)["input_ids"]
    for start in range(len(full) - len(ids) + 1):
        if full[start : start + len(ids)] == ids:
            return full[:start] if ids[:start] != full[:start] else []
    return []


def _gap(tok: Any, head: str, target: str) -> str:
    """What the chat template puts between the opening of the assistant's turn and what it says."""
    marker = "conversation-marker"
    try:
        turns = [*user(marker), {"role": "assistant", "content": target}]
        opening = tok.apply_chat_template(turns[:1], tokenize=False, add_generation_prompt=True)
        whole = tok.apply_chat_template(turns, tokenize=False)
    except Exception:  # jinja raises whatever the template's author chose
        opening = whole = ""
    if opening and whole.startswith(opening):
        gap, found, _ = whole[len(opening) :].partition(target)
        if found and not gap.strip():  # a template that opens with more (empty thoughts) does so only in the past
            return gap
    return " " if head[-1:].isalnum() or head.endswith(":") else ""


def _continuation(tok: Any, head: str, ids: list[int], gap: str, target: str) -> list[int]:
    """The tokens with which a model that has read `ids` says the target."""

    def encode(text: str) -> list[int]:
        return tok(text, add_special_tokens=False)["input_ids"]

    # where a token would reach across the border, the model cannot give it: then as at the start of a line
    for before, known in ((head, ids), ("\n", encode("\n"))):
        whole = encode(f"{before}{gap}{target}")
        if len(whole) > len(known) and whole[: len(known)] == known:
            return whole[len(known) :]
    return encode(f"{gap}{target}")


# ---- first choices ---------------------------------------------------------------------------------
@torch.no_grad()
def target_logits(model: PreTrainedModel, rows: Sequence[Row]) -> list[torch.Tensor]:
    """For each row the `(len(target), vocabulary)` logits that predict its target."""
    inputs = left_padded(model, [row.prompt + row.target for row in rows], PAD, model.device)
    logits = model(**inputs, use_cache=False).logits
    return [logits[i, -len(row.target) - 1 : -1] for i, row in enumerate(rows)]


def predicted_tokens(
    model: PreTrainedModel,
    tok: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    targets: Sequence[str],
    *,
    use_chat_template: bool = False,
) -> list[tuple[list[int], list[int]]]:
    """For each prompt: the model's first choices at the target's positions, and the target's tokens."""
    rows = [
        target_row(model, tok, prompt, target, use_chat_template=use_chat_template)
        for prompt, target in zip(prompts, targets, strict=True)
    ]
    chosen = [logits.argmax(-1).tolist() for logits in target_logits(model, rows)]
    return [(choice, row.target) for choice, row in zip(chosen, rows, strict=True)]


def token_accuracy(pairs: Sequence[tuple[Sequence[int], Sequence[int]]]) -> list[float]:
    """Share of equal tokens, per pair."""
    return [sum(a == b for a, b in zip(x, y, strict=True)) / len(y) for x, y in pairs]


# ---- probes ----------------------------------------------------------------------------------------
def _by_probe(probes: Sequence[QuestionAnswer], values: Sequence[Any]) -> list[list[Any]]:
    """One value per answer and alias, in a list per probe."""
    left = iter(values)
    return [[next(left) for _ in probe.answers] for probe in probes]


def _first_choices(
    model: Any, tok: Any, probes: Sequence[QuestionAnswer], *, use_chat_template: bool
) -> list[tuple[list[int], list[int]]]:
    asked = [(probe.question, answer) for probe in probes for answer in probe.answers]
    prompts, targets = [prompt for prompt, _ in asked], [answer for _, answer in asked]
    return predicted_tokens(model, tok, prompts, targets, use_chat_template=use_chat_template)


def answer_accuracy(
    model: PreTrainedModel,
    tok: PreTrainedTokenizerBase,
    probes: Sequence[QuestionAnswer],
    *,
    use_chat_template: bool,
) -> list[float]:
    """Per probe the token accuracy of its answer, or of the alias that has the highest."""
    if not probes:
        return []
    pairs = _first_choices(model, tok, probes, use_chat_template=use_chat_template)
    return [max(values) for values in _by_probe(probes, token_accuracy(pairs))]


def perplexity(model: PreTrainedModel, tok: PreTrainedTokenizerBase, probes: Sequence[QuestionAnswer]) -> float:
    """exp of the mean negative log-probability of the answers' tokens behind their bare prompts."""
    rows = [target_row(model, tok, probe.question, probe.answer) for probe in probes]
    targets = torch.tensor([token for row in rows for token in row.target], device=model.device)
    return float(torch.nn.functional.cross_entropy(torch.cat(target_logits(model, rows)).float(), targets).exp())


def edit_quality(
    model: PreTrainedModel, tok: PreTrainedTokenizerBase, request: HostRequest, *, use_chat_template: bool
) -> dict[str, Any]:
    """`rewrite_acc`, `rephrase_acc`, locality outputs and portability accuracies of one request."""
    result: dict[str, Any] = {
        "rewrite_acc": answer_accuracy(model, tok, request.rewrite, use_chat_template=use_chat_template),
        "locality": {},
        "portability": {},
    }
    if request.rephrase:
        result["rephrase_acc"] = answer_accuracy(model, tok, request.rephrase, use_chat_template=use_chat_template)
    for key, probes in request.locality.items():
        if probes:  # as in EasyEdit, without the chat template
            pairs = _first_choices(model, tok, probes, use_chat_template=False)
            result["locality"][f"{key}_output"] = _by_probe(probes, [choice for choice, _ in pairs])
    for key, probes in request.portability.items():
        if probes:
            result["portability"][f"{key}_acc"] = answer_accuracy(
                model, tok, probes, use_chat_template=use_chat_template
            )
    return result


def finish_locality(metrics: dict[str, Any]) -> None:
    """Replace the post-edit locality outputs by `<key>_acc`: agreement with the pre-edit outputs, of the best alias."""
    for key in [name.removesuffix("_output") for name in metrics["pre"]["locality"]]:
        before = metrics["pre"]["locality"].pop(f"{key}_output")
        after = metrics["post"]["locality"].pop(f"{key}_output")
        metrics["post"]["locality"][f"{key}_acc"] = [
            max(token_accuracy(list(zip(new, old, strict=True)))) for new, old in zip(after, before, strict=True)
        ]
