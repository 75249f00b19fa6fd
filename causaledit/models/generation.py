"""Batched generation and scoring that read a shared prompt once.

CODE samples many continuations of one prompt and scores many completions behind one context. Both are
run here on a key-value cache of the shared part, filled by one row and then repeated.
"""

from __future__ import annotations

import copy
import inspect
import itertools
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from transformers import DynamicCache, GenerationConfig

from causaledit.models.hooks import narrowed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from causaledit.models.tally import TokenCount

logger = logging.getLogger(__name__)

PAD = 0  # any id: padding is masked
# A shared prefix shorter than this is cheaper to read again than to cache.
MIN_SHARED_PREFIX = 24
# More tokens than this are not packed into one row: its attention grows with their square.
MAX_PACKED = 2048
# After so many tokens rows that have ended are dropped from a batch.
COMPACT_EVERY = 8


def eos_ids(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Every token that ends a turn: the model's, and the tokenizer's."""
    declared = model.generation_config.eos_token_id
    ids = [declared] if isinstance(declared, int) else list(declared or [])
    if tokenizer.eos_token_id is not None and tokenizer.eos_token_id not in ids:
        ids.append(tokenizer.eos_token_id)
    return ids


def _config(
    model: Any, tokenizer: Any, prompt_length: int, max_new_tokens: int, temperature: float | None, top_p: float
) -> Any:
    window = getattr(model.config.get_text_config(), "max_position_embeddings", None)
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


# how CUDA, MPS and the CPU's allocator say it
_OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "not enough memory")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory, the device's or the host's, has run out."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error).lower() for words in _OUT_OF_MEMORY)


@dataclass
class BatchLimit:
    """How much goes into one batch. It shrinks when memory runs out, and stays so for whoever keeps it.

    Attributes:
        rows: Most prompts.
        tokens: Most tokens, padding and new ones included; None means any number.
    """

    rows: int = 32
    tokens: int | None = None

    def take(self, lengths: Sequence[int], max_new_tokens: int) -> int:
        """How many of these rows, shortest first, make the next batch: at least one."""
        rows = lengths[: self.rows]
        if self.tokens is None:
            return len(rows)
        fit = [n for n, length in enumerate(rows, start=1) if n * (length + max_new_tokens) <= self.tokens]
        return max(fit, default=1)

    def halve(self, rows: int, width: int) -> None:
        """After a batch of so many rows of so many tokens did not fit."""
        self.rows = max(1, rows // 2)
        if self.tokens is not None:
            self.tokens = min(self.tokens, self.rows * width)


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

    Prompts are batched by length; a batch that does not fit in memory is halved and tried again.

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
    limit = limit or BatchLimit(rows=batch_size)
    compact = compact and _takes_shared_prefix(model)
    start = 0
    while start < len(order):
        size = limit.take([len(encoded[i]) for i in order[start:]], max_new_tokens)
        rows = order[start : start + size]
        ids, mask = pad_left([encoded[i] for i in rows], tokenizer.pad_token_id, model.device)
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


def pad_left(rows: Sequence[Sequence[int]], pad_id: int, device: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Left-pad token rows to one `(batch, length)` tensor, with its attention mask."""
    length = max(len(r) for r in rows)
    ids = torch.tensor([[pad_id] * (length - len(r)) + list(r) for r in rows], device=device)
    mask = torch.tensor([[0] * (length - len(r)) + [1] * len(r) for r in rows], device=device)
    return ids, mask


def unpadded(tokens: torch.Tensor, mask: torch.Tensor) -> list[list[int]]:
    """The rows of a padded `(batch, length)` tensor without what the mask leaves out."""
    return [row[valid].tolist() for row, valid in zip(tokens, mask.bool(), strict=True)]


def left_padded(model: Any, rows: Sequence[Sequence[int]], pad_id: int, device: Any) -> dict[str, torch.Tensor]:
    """Inputs of a plain forward over left-padded rows, with positions counted from each row's first token.

    `generate` does that itself; without it a model with absolute positions (GPT-2) reads shifted ones.
    """
    ids, mask = pad_left(rows, pad_id, device)
    inputs = {"input_ids": ids, "attention_mask": mask}
    return {**inputs, **positions_for(model, mask)}


def positions_for(model: Any, mask: torch.Tensor) -> dict[str, torch.Tensor]:
    """`position_ids` for a left-padded mask, where the model takes them."""
    return {"position_ids": (mask.cumsum(-1) - 1).clamp(min=0)} if _takes_positions(_unwrapped(model)) else {}


def _unwrapped(model: Any) -> Any:
    """The model itself: wrappers, for several processes and peft's, hide its signature."""
    inner = getattr(model, "module", model)
    return inner.get_base_model() if hasattr(inner, "get_base_model") else inner


def _takes_positions(plain: Any) -> bool:
    return "position_ids" in inspect.signature(type(plain).forward).parameters


def shared_prefix_length(rows: Sequence[Sequence[int]]) -> int:
    """Number of leading tokens that all rows share."""
    first, last = min(rows), max(rows)  # the lexicographic extremes differ first where any two do
    length = 0
    for a, b in zip(first, last, strict=False):
        if a != b:
            break
        length += 1
    return length


def _groups_by_prefix(rows: Sequence[Sequence[int]]) -> list[list[int]]:
    """Group rows so that each group shares at least a third of its shortest row, adjacent in sorted order."""
    groups: list[list[int]] = []
    for i in sorted(range(len(rows)), key=lambda j: rows[j]):
        if groups:
            candidate = [*groups[-1], i]
            shared = shared_prefix_length([rows[j] for j in candidate])
            if shared >= MIN_SHARED_PREFIX and 3 * shared >= min(len(rows[j]) for j in candidate):
                groups[-1] = candidate
                continue
        groups.append([i])
    return groups


@torch.no_grad()
def completion_logits(
    model: PreTrainedModel, contexts: Sequence[Sequence[int]], completions: Sequence[Sequence[int]]
) -> list[torch.Tensor]:
    """Logits at every completion token, each context's shared part read once.

    Equal to a plain forward over context + completion (up to rounding).

    Args:
        contexts: Token ids before each completion, no padding.
        completions: Token ids to score, no padding, at least one each.

    Returns:
        For each row a `(len(completion), vocabulary)` tensor on the model's device: row t is the
        distribution that predicts completion token t.
    """
    out: dict[int, torch.Tensor] = {}
    for group in _groups_by_prefix(contexts):
        logits = logits_in_one_pass(model, [contexts[i] for i in group], [completions[i] for i in group])
        out.update(zip(group, logits, strict=True))
    return [out[i] for i in range(len(contexts))]


def logits_in_one_pass(
    model: PreTrainedModel,
    contexts: Sequence[Sequence[int]],
    completions: Sequence[Sequence[int]],
    *,
    share: bool = True,
) -> list[torch.Tensor]:
    """As `completion_logits`, with gradients, and for rows that go through the model together.

    What all contexts begin with (a chat template's opening, which is half of a short question) is read once, so that
    its gradient is that of all rows. Short rows stand behind it as one row that needs no padding; where they are many
    tokens, or the model's attention does not go by a mask alone, its keys and values are repeated instead.

    Args:
        contexts, completions: As for `completion_logits`.
        share: False reads every row whole, in one forward pass: for a model that is wrapped for several processes.
    """
    full = [[*context, *completion] for context, completion in zip(contexts, completions, strict=True)]
    lengths = [len(completion) for completion in completions]
    # at least one context token stays in the second pass: it predicts the first completion token
    shared = min(shared_prefix_length(contexts), min(len(context) for context in contexts) - 1)
    if not share or len(full) < 2 or shared < MIN_SHARED_PREFIX:
        inputs = left_padded(model, full, PAD, next(model.parameters()).device)
        logits = model(**inputs, logits_to_keep=max(lengths) + 1, use_cache=False).logits
        return [logits[row, -n - 1 : -1].float() for row, n in enumerate(lengths)]
    rest = [row[shared:] for row in full]
    total = shared + sum(map(len, rest))
    if total <= MAX_PACKED and _takes_packed_rows(model):
        return _packed_logits(model, full[0][:shared], rest, lengths)
    cache = DynamicCache(config=model.config)
    prefix = torch.tensor([full[0][:shared]], device=model.device)
    model(input_ids=prefix, past_key_values=cache, use_cache=True, logits_to_keep=1)
    cache.batch_repeat_interleave(len(full))
    # right padding: positions then follow the cache without gaps
    longest = max(len(row) for row in rest)
    ids = torch.tensor([row + [PAD] * (longest - len(row)) for row in rest], device=model.device)
    mask = torch.tensor([[1] * (shared + len(row)) + [0] * (longest - len(row)) for row in rest], device=model.device)
    # rows end at different places: the output layer, a large part of a small model, sees the wanted positions alone
    wanted = [
        torch.arange(len(row) - n - 1, len(row) - 1) + i * longest
        for i, (row, n) in enumerate(zip(rest, lengths, strict=True))
    ]
    places = torch.cat(wanted).to(model.device)
    with narrowed(model.get_output_embeddings(), lambda states: states.flatten(0, 1)[places.to(states.device)][None]):
        logits = model(input_ids=ids, attention_mask=mask, past_key_values=cache, use_cache=True).logits[0]
    return list(logits.float().split(lengths))


def _takes_packed_rows(model: Any) -> bool:
    """Whether every layer attends as a mask we give says, at positions we give."""
    plain = _unwrapped(model)
    config = plain.config.get_text_config()
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    return (
        getattr(plain, "_supports_attention_backend", False)  # its attention takes masks as they come
        and config._attn_implementation in ("sdpa", "eager")
        and kinds == {"full_attention"}
        and not getattr(config, "sliding_window", None)
        and not getattr(config, "alibi", False)
        and _takes_positions(plain)
    )


def _packed_logits(
    model: Any, prefix: Sequence[int], rest: Sequence[Sequence[int]], lengths: Sequence[int]
) -> list[torch.Tensor]:
    """Logits at each row's last `lengths` tokens: the common beginning and the rows' rests as one row, no padding."""
    begins = list(itertools.accumulate(map(len, rest), initial=len(prefix)))
    total = begins.pop()
    owner = torch.tensor([0] * len(prefix) + [row for row, tokens in enumerate(rest, start=1) for _ in tokens])
    seen = (owner[:, None] == owner) | (owner == 0)  # its own tokens and the common beginning …
    seen &= torch.ones(total, total, dtype=torch.bool).tril()  # … as far as they come before it
    dtype, device = next(model.parameters()).dtype, model.device
    mask = torch.zeros(total, total, dtype=dtype).masked_fill(~seen, torch.finfo(dtype).min)
    positions = [*range(len(prefix)), *(len(prefix) + i for tokens in rest for i in range(len(tokens)))]
    places = torch.cat(
        [
            torch.arange(begin + len(tokens) - n - 1, begin + len(tokens) - 1)
            for begin, tokens, n in zip(begins, rest, lengths, strict=True)
        ]
    )
    ids = [*prefix, *itertools.chain.from_iterable(rest)]
    with narrowed(model.get_output_embeddings(), lambda states: states[:, places.to(states.device)]):
        logits = model(
            input_ids=torch.tensor([ids], device=device),
            attention_mask=mask[None, None].to(device),
            position_ids=torch.tensor([positions], device=device),
            use_cache=False,
        ).logits[0]
    return list(logits.float().split(list(lengths)))


def mean_log_probability(logits: torch.Tensor, completion: Sequence[int]) -> float:
    """Mean log-probability of a completion under `(len, vocabulary)` logits."""
    targets = torch.tensor(list(completion), device=logits.device)
    return float(logits.log_softmax(-1).gather(-1, targets[:, None]).mean())
