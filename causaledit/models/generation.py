"""Batched generation that reads a shared prompt once.

CODE samples many continuations of one prompt, and probes ask many questions behind one opening. Both run on a
key-value cache of the shared part, filled by one row and then repeated, where the model carries nothing else.
"""

from __future__ import annotations

import contextlib
import copy
import logging
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from transformers import DynamicCache, GenerationConfig, GenerationMixin, StoppingCriteria

from causaledit.models.batches import (
    MIN_SHARED_PREFIX,
    BatchLimit,
    context_window,
    eos_ids,
    in_batches,
    is_out_of_memory,
    keys_and_values,
    pad_id,
    pad_left,
    read_once,
    shared_prefix_length,
    unwrapped,
)
from causaledit.models.chat import next_turn
from causaledit.models.hooks import hidden, watched
from causaledit.models.network import device_of, is_network, network_of
from causaledit.models.sharded import is_sharded

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import nn
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from causaledit.models.vllm_engine import VLLMEngine
    from causaledit.support.costs import TokenCount

logger = logging.getLogger(__name__)

# After this many tokens rows that have ended are dropped from a batch.
COMPACT_EVERY = 8


# ---- what `generate` goes by -----------------------------------------------------------------------
@contextlib.contextmanager
def neutral_generation(model: Any) -> Iterator[None]:
    """Let `model.generate` go by the configuration it is given alone.

    `generate` fills up whatever a given configuration leaves open from the model's own `generation_config`: penalties
    for repetition and length, forbidden, forced and biased tokens, n-grams that must not come again, least
    probabilities, watermarks, beams, guidance, stop strings, shortest lengths, limits of time, static caches. Qwen2.5
    and others set some of them. With them "greedy" is not greedy, and what is sampled has not the probabilities it is
    scored with; so for the block a configuration stands there that sets nothing. The model's own is put back as it was.
    """
    missing = object()
    owners = [network_of(unwrapped(model)), *([model] if "generation_config" in vars(model) else [])]
    before = [(owner, vars(owner).get("generation_config", missing)) for owner in owners]
    for owner in owners:
        owner.generation_config = GenerationConfig()
    try:
        yield
    finally:
        for owner, config in before:
            if config is missing:
                del owner.generation_config
            else:
                owner.generation_config = config


def _config(
    model: Any, tokenizer: Any, prompt_length: int, max_new_tokens: int, temperature: float | None, top_p: float
) -> GenerationConfig:
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
        pad_token_id=pad_id(model, tokenizer),
        eos_token_id=eos_ids(model, tokenizer) or None,
        use_cache=True,
        **sampling,
    )


def _generate(model: Any, tokenizer: Any, config: GenerationConfig, **inputs: Any) -> Any:
    marker = next_turn(tokenizer)
    if marker is not None:
        inputs["stopping_criteria"] = [_NextTurn(tokenizer, marker, inputs["input_ids"].shape[1])]
    with neutral_generation(model):
        return model.generate(**inputs, generation_config=config)


class _NextTurn(StoppingCriteria):
    """Ends a row where it opens another turn: without a chat template no token does."""

    def __init__(self, tokenizer: Any, marker: str, prompt_length: int) -> None:
        self._tokenizer, self._marker, self._start = tokenizer, marker, prompt_length

    def __call__(self, input_ids: torch.Tensor, scores: Any, **kwargs: Any) -> torch.Tensor:
        recent = input_ids[:, max(self._start, input_ids.shape[1] - 2 * len(self._marker)) :]
        ended = [self._marker in text for text in self._tokenizer.batch_decode(recent)]
        return torch.tensor(ended, device=input_ids.device)


def _turns(tokenizer: Any, new: Sequence[list[int]], ends: Sequence[int], count: TokenCount | None) -> list[list[int]]:
    """Rows of new tokens up to the token that ended each, that token included."""
    marker, turns = next_turn(tokenizer), []
    for row in new:
        turn = row[: next((i + 1 for i, token in enumerate(row) if token in ends), len(row))]
        if marker is not None:
            text = tokenizer.decode(turn)
            if marker in text:
                whole = len(text[: text.index(marker)])
                turn = turn[: max(n for n in range(len(turn) + 1) if len(tokenizer.decode(turn[:n])) <= whole)]
        if count is not None:
            count.generated += len(turn)
        turns.append(turn)
    return turns


# ---- texts -----------------------------------------------------------------------------------------
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
    engine: VLLMEngine | None = None,
) -> list[str]:
    """Generate one continuation for each rendered prompt.

    Prompts are batched by length; a batch that does not fit in memory is halved and tried again. A model that carries
    a state reads rows of one length together, as padding would enter the state. A model that is no network of
    transformers itself (a router around one, as WISE's, may decide once per batch) is asked a row at a time.

    Args:
        prompts: Texts that already carry the chat format.
        max_new_tokens: Longest continuation, in tokens.
        temperature: `None` for greedy decoding, whatever the model's own generation configuration says.
        batch_size: Prompts per batch at first.
        limit: Instead of `batch_size`: a limit that is kept, so that it stays small for later calls.
        compact: Greedy only: read what all prompts of a batch begin with once, and drop rows that have ended.
            Equal to plain generation up to rounding, for models of transformers whose `generate` is their own;
            models that carry more than keys and values (Mamba) are asked plainly.
        count: Receives the number of generated tokens.
        engine: Generates in this process's stead, with the model's weights; it makes batches of its own.

    Returns:
        The continuations without special tokens, in the order of `prompts`.
    """
    encoded = [tokenizer(p, add_special_tokens=False)["input_ids"] for p in prompts]
    if engine is not None and encoded:
        config = _config(model, tokenizer, max(map(len, encoded)), max_new_tokens, temperature, top_p)
        continued = engine.generate(model, tokenizer, encoded, config)
        turns = _turns(tokenizer, continued, config.eos_token_id or [], count)
        return tokenizer.batch_decode(turns, skip_special_tokens=True)
    order = sorted(range(len(prompts)), key=lambda i: len(encoded[i]))
    results: list[str] = [""] * len(prompts)
    limit = (limit or BatchLimit(rows=batch_size)) if is_network(model) else BatchLimit(rows=1)
    device = device_of(model)
    padded = keys_and_values(model) is not None
    compact = compact and _runs_compactly(model)
    start = 0
    while start < len(order):
        size = limit.take([len(encoded[i]) for i in order[start:]], max_new_tokens)
        rows = order[start : start + size]
        if not padded:
            rows = [i for i in rows if len(encoded[i]) == len(encoded[rows[0]])]
        batch, new = [encoded[i] for i in rows], None
        width = len(batch[-1])
        config = _config(model, tokenizer, width, max_new_tokens, temperature, top_p)
        try:
            if compact:
                new = _generate_compactly(model, tokenizer, batch, config)
            else:
                ids, mask = pad_left(batch, config.pad_token_id, device)
                new = _generate(model, tokenizer, config, input_ids=ids, attention_mask=mask)[:, width:]
        except (RuntimeError, MemoryError) as error:
            # the processes of a sharded model go on together or not at all
            if len(rows) == 1 or not is_out_of_memory(error) or is_sharded(model):
                raise
        if new is None:  # out of the handler: its traceback no longer holds the tensors of the failed batch
            limit.halve(len(rows), width + max_new_tokens)
            torch.cuda.empty_cache()
            logger.warning("out of memory while generating: batch size reduced to %d", limit.rows)
            continue
        turns = _turns(tokenizer, new.tolist(), config.eos_token_id or [], count)
        for i, text in zip(rows, tokenizer.batch_decode(turns, skip_special_tokens=True), strict=True):
            results[i] = text
        start += len(rows)
    return results


def _runs_compactly(model: Any) -> bool:
    """Whether a model's rows can be taken out of a batch: it carries keys and values alone, and generates as usual."""
    return keys_and_values(model) is not None and isinstance(unwrapped(model), GenerationMixin)


def _generate_compactly(
    model: Any, tokenizer: Any, rows: Sequence[Sequence[int]], config: GenerationConfig
) -> torch.Tensor:
    """Continuations of token rows: their common beginning is read once, rows that ended are dropped.

    Returns:
        `(rows, new tokens)`, padded on the right.
    """
    total, marker = config.max_new_tokens, next_turn(tokenizer)
    ids, mask, cache = _begun(model, rows, config)
    cache = keys_and_values(model) if cache is None else cache
    width = ids.shape[1]
    ends = torch.tensor(config.eos_token_id or [], dtype=torch.long, device=model.device)
    new = torch.full((len(rows), total), config.pad_token_id, dtype=torch.long, device=model.device)
    alive, done = torch.arange(len(rows), device=model.device), 0
    step = copy.deepcopy(config)
    step.return_dict_in_generate = True
    while done < total and len(alive):
        step.max_new_tokens = min(COMPACT_EVERY, total - done)
        output = _generate(model, tokenizer, step, input_ids=ids, attention_mask=mask, past_key_values=cache)
        ids, cache = output.sequences, output.past_key_values
        made = ids.shape[1] - width - done
        new[alive, done : done + made] = ids[:, width + done :]
        done += made
        going = ~torch.isin(ids[:, width:], ends).any(dim=1)
        if marker is not None:
            opened = [marker in text for text in tokenizer.batch_decode(ids[:, width:])]
            going &= ~torch.tensor(opened, device=going.device)
        if not going.all():
            kept = going.nonzero()[:, 0]
            alive, ids, mask = alive[kept], ids[kept], mask[kept]
            if len(kept):
                cache.batch_select_indices(kept)
        mask = torch.cat([mask, mask.new_ones(len(mask), made)], dim=1)
    return new[:, :done]


def _begun(
    model: Any, rows: Sequence[Sequence[int]], config: GenerationConfig
) -> tuple[torch.Tensor, torch.Tensor, DynamicCache | None]:
    """Left-padded inputs of `generate`, with a cache of what the rows begin with, where that is long and serves."""
    ids, mask = pad_left(rows, config.pad_token_id, model.device)
    shortest, width = min(len(row) for row in rows), ids.shape[1]
    # `generate` reads at least the last prompt token itself, to get the first distribution
    shared = min(shared_prefix_length(rows), shortest - 1)
    cache = None
    if len(rows) > 1 and shared >= MIN_SHARED_PREFIX:
        padding = [width - len(row) for row in rows]
        cache = read_once(model, rows[0][:shared], len(rows), padding=padding, longest=width + config.max_new_tokens)
    return ids, mask, cache


# ---- tokens ----------------------------------------------------------------------------------------
class GreedyAnswer(NamedTuple):
    """A greedy answer with the distributions it was chosen from.

    `tokens` are n ids; `top` and `ids` are `(n, k)`: each position's k highest log-probabilities and their tokens.
    `states` are `(tokens, hidden)`: what left the module that was looked at, for the prompt and the answer but for its
    last token, which nothing follows; None without such a module.
    """

    tokens: list[int]
    top: torch.Tensor
    ids: torch.Tensor
    states: torch.Tensor | None = None


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
    look_at: nn.Module | None = None,
) -> list[GreedyAnswer]:
    """Answer tokenised prompts greedily and keep each position's top-k log-probabilities, in one pass.

    Args:
        prompts: Token ids, no padding.
        top_k: How many tokens of each distribution are kept (capped at the vocabulary).
        look_at: A decoder layer of the model, whose output is kept too.

    Returns:
        One answer per prompt, the end-of-turn token left out.
    """
    ends = eos_ids(model, tokenizer)

    def answer(rows: list[Sequence[int]]) -> list[GreedyAnswer]:
        config = _config(model, tokenizer, max(map(len, rows)), max_new_tokens, None, 1.0)
        config.output_logits = config.return_dict_in_generate = True
        passes: list[torch.Tensor] = []
        with (
            contextlib.nullcontext()
            if look_at is None
            else watched(look_at, lambda _, output: passes.append(hidden(output)))
        ):
            ids, mask, cache = _begun(model, rows, config)
            begun = {} if cache is None else {"past_key_values": cache}
            if cache is None:
                passes.clear()  # a beginning that did not serve
            output = _generate(model, tokenizer, config, input_ids=ids, attention_mask=mask, **begun)
        turns = _turns(tokenizer, output.sequences[:, ids.shape[1] :].tolist(), ends, None)
        kept = [step.float().log_softmax(-1).topk(min(top_k, step.shape[-1]), dim=-1) for step in output.logits]
        answers = []
        for row, turn in enumerate(turns):
            tokens = turn[:-1] if turn and turn[-1] in ends else turn
            n = len(tokens)
            if count is not None:
                count.generated += n
            if n:
                top = torch.stack([kept[t].values[row] for t in range(n)])
                ids_ = torch.stack([kept[t].indices[row] for t in range(n)])
                padding = ids.shape[1] - len(rows[row])
                states = _states_of(passes, row, padding, n, begun=cache is not None) if passes else None
                answers.append(GreedyAnswer(tokens, top, ids_, states))
            else:
                answers.append(GreedyAnswer([], torch.empty(0, 0), torch.empty(0, 0, dtype=torch.long)))
        return answers

    return in_batches(model, prompts, answer, batch_size)


def _states_of(passes: Sequence[torch.Tensor], row: int, padding: int, answer: int, *, begun: bool) -> torch.Tensor:
    """A left-padded row's states out of a batch's passes: its prompt's, and its answer's but for the last token.

    Args:
        passes: What a layer returned: for the rows' common beginning, if it was `begun`, for what was left of the
            prompts, and for each new token.
        padding: Columns before the row.
        answer: Tokens of its answer.
    """
    opening, (prompts, *steps) = (passes[0][0], passes[1:]) if begun else (passes[0][0][:0], passes)
    # the columns of the beginning hold its first tokens; padding moved the others on, to be read again
    parts = [opening[: max(0, len(opening) - padding)], prompts[row, max(0, padding - len(opening)) :]]
    return torch.cat([*parts, *(step[row] for step in steps[: answer - 1])])


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
    engine: VLLMEngine | None = None,
) -> list[str]:
    """Sample `n` continuations of one rendered prompt, which is read once.

    Args:
        engine: As in `generate_texts`.

    Returns:
        `n` texts without special tokens.
    """
    ids = tokenizer(prompt, add_special_tokens=False)["input_ids"]
    turns = sample_tokens(
        model, tokenizer, ids, n,
        max_new_tokens=max_new_tokens, temperature=temperature, top_p=top_p, count=count, engine=engine,
    )  # fmt: skip
    return tokenizer.batch_decode(turns, skip_special_tokens=True)


@torch.no_grad()
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
    engine: VLLMEngine | None = None,
) -> list[list[int]]:
    """As `sample_continuations`, for token ids: each row ends with the token that ends the turn, if it came."""
    config = _config(model, tokenizer, len(prompt), max_new_tokens, temperature, top_p)
    rows = [list(prompt)] * n
    if engine is not None:
        new = engine.generate(model, tokenizer, rows, config)
    elif _runs_compactly(model):
        new = _generate_compactly(model, tokenizer, rows, config).tolist()
    else:
        ids, mask = pad_left(rows, config.pad_token_id, model.device)
        new = _generate(model, tokenizer, config, input_ids=ids, attention_mask=mask)[:, len(prompt) :].tolist()
    return _turns(tokenizer, new, config.eos_token_id or [], count)
