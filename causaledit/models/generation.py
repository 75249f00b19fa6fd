"""Batched generation and scoring that read a shared prompt once.

CODE samples many continuations of one prompt and scores many completions behind one context. Both are
run here on a key-value cache of the shared part, filled by one row and then repeated.
"""

from __future__ import annotations

import copy
import itertools
import logging
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from transformers import DynamicCache, GenerationConfig

from causaledit.models.batches import (
    MIN_SHARED_PREFIX,
    BatchLimit,
    eos_ids,
    is_out_of_memory,
    pad_left,
    shared_prefix_length,
)
from causaledit.models.network import context_window, device_of, is_network

if TYPE_CHECKING:
    from collections.abc import Sequence

    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from causaledit.support.costs import TokenCount

logger = logging.getLogger(__name__)

# After so many tokens rows that have ended are dropped from a batch.
COMPACT_EVERY = 8


def _config(
    model: Any, tokenizer: Any, prompt_length: int, max_new_tokens: int, temperature: float | None, top_p: float
) -> Any:
    window = context_window(model)
    if window:  # a model with absolute positions fails beyond it
        max_new_tokens = max(1, min(max_new_tokens, window - prompt_length))
    sampling = (
        {"do_sample": False}
        if temperature is None
        else {"do_sample": True, "temperature": temperature, "top_p": top_p, "top_k": 0}
    )
    return GenerationConfig(
        max_new_tokens=max_new_tokens,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=eos_ids(model, tokenizer),
        use_cache=True,
        **sampling,
    )


@torch.no_grad()
def generate_texts(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    *,
    max_new_tokens: int,
    temperature: float | None = None,
    top_p: float = 1.0,
    batch_size: int = 32,
    limit: BatchLimit | None = None,
    compact: bool = False,
    count: TokenCount | None = None,
) -> list[str]:
    """Generate one continuation for each rendered prompt.

    Prompts are batched by length; a batch that does not fit in memory is halved and tried again. A model that is no
    network of transformers itself (a router around one, as WISE's, may decide once per batch) is asked a row at a time.

    Args:
        prompts: Texts that already carry the chat format.
        max_new_tokens: Longest continuation, in tokens.
        temperature: `None` for greedy decoding.
        batch_size: Prompts per batch at first.
        limit: Instead of `batch_size`: a limit that is kept, so that it stays small for later calls.
        compact: Greedy only: read what all prompts of a batch begin with once, and drop rows that have ended.
            Equal to plain generation up to rounding, for models of transformers whose `generate` is their own;
            models with another kind of cache (Mamba) are asked plainly.
        count: Receives the number of generated tokens.

    Returns:
        The continuations without special tokens, in the order of `prompts`.
    """
    encoded = [tokenizer(p, add_special_tokens=False)["input_ids"] for p in prompts]
    order = sorted(range(len(prompts)), key=lambda i: len(encoded[i]))
    results: list[str] = [""] * len(prompts)
    limit = (limit or BatchLimit(rows=batch_size)) if is_network(model) else BatchLimit(rows=1)
    device = device_of(model)
    compact = compact and _takes_shared_prefix(model)
    start = 0
    while start < len(order):
        size = limit.take([len(encoded[i]) for i in order[start:]], max_new_tokens)
        rows = order[start : start + size]
        ids, mask = pad_left([encoded[i] for i in rows], tokenizer.pad_token_id, device)
        new = None
        try:
            config = _config(model, tokenizer, ids.shape[1], max_new_tokens, temperature, top_p)
            if compact:
                new = _generate_compactly(model, [encoded[i] for i in rows], config)
            else:
                output = model.generate(input_ids=ids, attention_mask=mask, generation_config=config)
                new = output[:, ids.shape[1] :]
        except (RuntimeError, MemoryError) as error:
            if len(rows) == 1 or not is_out_of_memory(error):
                raise
        if new is None:  # out of the handler: its traceback no longer holds the tensors of the failed batch
            limit.halve(len(rows), ids.shape[1] + max_new_tokens)
            torch.cuda.empty_cache()
            logger.warning("out of memory while generating: batch size reduced to %d", limit.rows)
            continue
        if count is not None:
            count.generated += int((new != tokenizer.pad_token_id).sum())
        for i, text in zip(rows, tokenizer.batch_decode(new, skip_special_tokens=True), strict=True):
            results[i] = text
        start += len(rows)
    return results


def _generate_compactly(model: Any, rows: Sequence[Sequence[int]], config: GenerationConfig) -> torch.Tensor:
    """Greedy continuations of token rows: their common beginning is read once, rows that ended are dropped.

    Returns:
        `(rows, new tokens)`, padded on the right.
    """
    pad_id = config.pad_token_id
    ends = torch.tensor(config.eos_token_id, dtype=torch.long, device=model.device)
    ids, mask, cache = _read_shared_prefix(model, rows, pad_id)
    total, width = config.max_new_tokens, ids.shape[1]
    new = torch.full((len(rows), total), pad_id, dtype=torch.long, device=model.device)
    alive, done = torch.arange(len(rows), device=model.device), 0
    step = copy.deepcopy(config)
    step.return_dict_in_generate = True
    while done < total and len(alive):
        step.max_new_tokens = min(COMPACT_EVERY, total - done)
        output = model.generate(input_ids=ids, attention_mask=mask, past_key_values=cache, generation_config=step)
        ids, cache = output.sequences, output.past_key_values
        made = ids.shape[1] - width - done
        new[alive, done : done + made] = ids[:, width + done :]
        done += made
        going = ~torch.isin(ids[:, width:], ends).any(dim=1)
        if not going.all():
            kept = going.nonzero()[:, 0]
            alive, ids, mask = alive[kept], ids[kept], mask[kept]
            if len(kept):
                cache.batch_select_indices(kept)
        mask = torch.cat([mask, mask.new_ones(len(mask), made)], dim=1)
    return new[:, :done]


def _read_shared_prefix(
    model: Any, rows: Sequence[Sequence[int]], pad_id: int
) -> tuple[torch.Tensor, torch.Tensor, DynamicCache]:
    """Inputs of `generate` for token rows, with a cache that holds what they all begin with, where that is long."""
    shared = min(shared_prefix_length(rows), min(len(row) for row in rows) - 1)
    cache = DynamicCache(config=model.config)
    if len(rows) < 2 or shared < MIN_SHARED_PREFIX:
        return *pad_left(rows, pad_id, model.device), cache
    prefix = torch.tensor([list(rows[0][:shared])], device=model.device)
    model(input_ids=prefix, past_key_values=cache, use_cache=True, logits_to_keep=1)
    cache.batch_repeat_interleave(len(rows))
    # the padding stands between the common beginning and the rest; positions are counted from the mask
    rest, rest_mask = pad_left([row[shared:] for row in rows], pad_id, model.device)
    ids = torch.cat([prefix.expand(len(rows), -1), rest], dim=1)
    mask = torch.cat([torch.ones_like(ids[:, :shared]), rest_mask], dim=1)
    return ids, mask, cache


def _takes_shared_prefix(model: Any) -> bool:
    """Whether the model's own `generate` goes on from a cache of keys and values (Mamba's does not)."""
    return getattr(model, "_supports_default_dynamic_cache", lambda: False)()


class GreedyAnswer(NamedTuple):
    """A greedy answer with the distributions it was chosen from.

    `tokens` are n ids; `top` and `ids` are `(n, k)`: each position's k highest log-probabilities and their tokens.
    """

    tokens: list[int]
    top: torch.Tensor
    ids: torch.Tensor


@torch.no_grad()
def greedy_answers(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    top_k: int,
    batch_size: int = 64,
    count: TokenCount | None = None,
) -> list[GreedyAnswer]:
    """Answer tokenised prompts greedily and keep each position's top-k log-probabilities, in one pass.

    Args:
        prompts: Token ids, no padding.
        top_k: How many tokens of each distribution are kept (capped at the vocabulary).

    Returns:
        One answer per prompt, the end-of-turn token left out.
    """
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    answers: dict[int, GreedyAnswer] = {}
    ends = set(eos_ids(model, tokenizer))
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        inputs: dict[str, Any] = {}
        if _takes_shared_prefix(model):
            ids, mask, inputs["past_key_values"] = _read_shared_prefix(
                model, [prompts[i] for i in rows], tokenizer.pad_token_id
            )
        else:
            ids, mask = pad_left([prompts[i] for i in rows], tokenizer.pad_token_id, model.device)
        config = _config(model, tokenizer, ids.shape[1], max_new_tokens, None, 1.0)
        config.output_logits = config.return_dict_in_generate = True
        output = model.generate(input_ids=ids, attention_mask=mask, generation_config=config, **inputs)
        new = output.sequences[:, ids.shape[1] :].tolist()
        kept = [step.float().log_softmax(-1).topk(min(top_k, step.shape[-1]), dim=-1) for step in output.logits]
        for row, i in enumerate(rows):
            tokens = list(itertools.takewhile(lambda token: token not in ends, new[row]))
            n = len(tokens)
            if count is not None:
                count.generated += n
            if n:
                top = torch.stack([kept[t].values[row] for t in range(n)])
                ids_ = torch.stack([kept[t].indices[row] for t in range(n)])
                answers[i] = GreedyAnswer(tokens, top, ids_)
            else:
                answers[i] = GreedyAnswer([], torch.empty(0, 0), torch.empty(0, 0, dtype=torch.long))
    return [answers[i] for i in range(len(prompts))]


def sample_continuations(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompt: str,
    n: int,
    *,
    max_new_tokens: int,
    temperature: float,
    top_p: float,
    count: TokenCount | None = None,
) -> list[str]:
    """Sample `n` continuations of one rendered prompt, which is read once.

    Returns:
        `n` texts without special tokens.
    """
    ids = tokenizer(prompt, add_special_tokens=False)["input_ids"]
    new = _sample(model, tokenizer, ids, n, max_new_tokens, temperature, top_p, count)
    return tokenizer.batch_decode(new, skip_special_tokens=True)


def sample_tokens(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompt: Sequence[int],
    n: int,
    *,
    max_new_tokens: int,
    temperature: float,
    top_p: float,
    count: TokenCount | None = None,
) -> list[list[int]]:
    """As `sample_continuations`, for token ids: each row ends with the token that ends the turn, if it came."""
    ends = set(eos_ids(model, tokenizer))
    rows = _sample(model, tokenizer, list(prompt), n, max_new_tokens, temperature, top_p, count).tolist()
    return [row[: next((i + 1 for i, token in enumerate(row) if token in ends), len(row))] for row in rows]


@torch.no_grad()
def _sample(
    model: Any,
    tokenizer: Any,
    prompt: list[int],
    n: int,
    max_new_tokens: int,
    temperature: float,
    top_p: float,
    count: TokenCount | None,
) -> torch.Tensor:
    """The `(n, length)` new tokens of a prompt, padded on the right."""
    ids = torch.tensor([prompt], device=model.device)
    inputs: dict[str, Any] = {"input_ids": ids.repeat(n, 1)}
    inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
    if ids.shape[1] > MIN_SHARED_PREFIX and n > 1:
        cache = DynamicCache(config=model.config)
        # `generate` reads the last prompt token itself, to get the first distribution.
        model(input_ids=ids[:, :-1], past_key_values=cache, use_cache=True, logits_to_keep=1)
        cache.batch_repeat_interleave(n)
        inputs["past_key_values"] = cache
    config = _config(model, tokenizer, ids.shape[1], max_new_tokens, temperature, top_p)
    output = model.generate(**inputs, generation_config=config)
    new = output[:, ids.shape[1] :]
    if count is not None:
        count.generated += int((new != tokenizer.pad_token_id).sum())
    return new
