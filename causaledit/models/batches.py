"""Rows of token ids as batches: padding, positions, beginnings read once, a size that fits the memory."""

from __future__ import annotations

import gc
import inspect
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from transformers import DynamicCache, cache_utils
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from causaledit.models.network import is_network, network_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from transformers import PreTrainedModel, PreTrainedTokenizerBase


T = TypeVar("T")

PAD = 0  # padding is masked: any id inside the embeddings serves


# A shared prefix shorter than this is cheaper to read again than to cache.
MIN_SHARED_PREFIX = 24


# ---- the model -------------------------------------------------------------------------------------
def unwrapped(model: Any) -> Any:
    """The model itself: wrappers, for several processes and peft's, hide its signature."""
    inner = getattr(model, "module", model)
    return inner.get_base_model() if hasattr(inner, "get_base_model") else inner


def takes(model: Any, argument: str) -> bool:
    """Whether the model's forward pass has an argument of that name; assumed where it has none to look at."""
    forward = getattr(type(unwrapped(model)), "forward", None)
    return forward is None or argument in inspect.signature(forward).parameters


def context_window(model: Any) -> int | None:
    """Most tokens the model reads, prompt and answer together; None where its configuration sets no limit."""
    network = network_of(model)
    if not is_network(network):
        return None
    config = network.config.get_text_config()
    limits = [getattr(config, name, None) for name in ("max_position_embeddings", "max_seq_len")]
    return next((limit for limit in limits if isinstance(limit, int) and limit > 0), None)


def vocabulary_rows(model: Any) -> int | None:
    """How many token ids the model has embeddings for; None where it does not say."""
    embeddings = getattr(model, "get_input_embeddings", lambda: None)()
    return None if embeddings is None else embeddings.weight.shape[0]


def eos_ids(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Every token that ends a turn: the model's, and the tokenizer's."""
    ids: list[int] = []
    own = getattr(getattr(network_of(model), "generation_config", None), "eos_token_id", None)
    for declared in (own, tokenizer.eos_token_id):
        for token in [declared] if isinstance(declared, int) else list(declared or []):
            if token not in ids:
                ids.append(token)
    return ids


def pad_id(model: Any, tokenizer: PreTrainedTokenizerBase) -> int:
    """The tokenizer's padding token where the model has an embedding for it, `PAD` otherwise."""
    rows, token = vocabulary_rows(model), tokenizer.pad_token_id
    return token if isinstance(token, int) and (rows is None or token < rows) else PAD


# ---- padding ---------------------------------------------------------------------------------------
def pad_left(rows: Sequence[Sequence[int]], pad_id: int, device: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Left-pad token rows to one `(batch, length)` tensor, with its attention mask."""
    length = max(len(r) for r in rows)
    ids = torch.tensor([[pad_id] * (length - len(r)) + list(r) for r in rows], device=device)
    mask = torch.tensor([[0] * (length - len(r)) + [1] * len(r) for r in rows], device=device)
    return ids, mask


def pad_right(
    rows: Sequence[Sequence[int]], device: Any, *, behind: int = 0, pad_id: int = PAD
) -> tuple[torch.Tensor, torch.Tensor]:
    """Right-pad token rows to one `(batch, length)` tensor, with its attention mask.

    No token sees what stands behind it, in no causal model, and positions count from the row's start: a forward
    pass over such rows is that of each row alone.

    Args:
        behind: How many tokens, all of them valid, the rows come after; the mask covers them too.
    """
    length = max(len(r) for r in rows)
    ids = torch.tensor([[*r, *[pad_id] * (length - len(r))] for r in rows], dtype=torch.long, device=device)
    mask = torch.tensor([[1] * (behind + len(r)) + [0] * (length - len(r)) for r in rows], device=device)
    return ids, mask


def context_and_completion(row: Mapping[str, Any]) -> tuple[list[int], list[int]]:
    """A row of trl's SFTTrainer (`input_ids`, `completion_mask`), parted where its completion begins."""
    begin = row["completion_mask"].index(1)
    return row["input_ids"][:begin], row["input_ids"][begin:]


def parted_tokens(
    tokenizer: PreTrainedTokenizerBase, head: str, rest: str, *, special: bool = False
) -> tuple[list[int], list[int]]:
    """Tokens of a text, cut where those of its beginning end (or where the two diverge).

    A tokenizer that opens every text with a space (Llama 2's) gives the rest by itself a token that no generated answer
    begins with, so both are read together.

    Args:
        head: The beginning.
        rest: What follows it, the white space between them included.
        special: With the tokens that the tokenizer puts around a text of its own.

    Returns:
        Both parts; the second has at least one token, where there is a rest.
    """
    first = tokenizer(head, add_special_tokens=special)["input_ids"]
    row = tokenizer(head + rest, add_special_tokens=special)["input_ids"]
    cut = shared_prefix_length([first, row])
    cut = min(cut, len(row) - 1) if rest else cut
    return list(row[:cut]), list(row[cut:])


def unpadded(tokens: torch.Tensor, mask: torch.Tensor) -> list[list[int]]:
    """The rows of a padded `(batch, length)` tensor without what the mask leaves out."""
    return [row[valid].tolist() for row, valid in zip(tokens, mask.bool(), strict=True)]


def left_padded(model: Any, rows: Sequence[Sequence[int]], pad_id: int, device: Any) -> dict[str, torch.Tensor]:
    """Inputs of a plain forward over left-padded rows, with positions counted from each row's first token."""
    ids, mask = pad_left(rows, pad_id, device)
    return {"input_ids": ids, "attention_mask": mask, **positions_for(model, mask)}


def positions_for(model: Any, mask: torch.Tensor) -> dict[str, torch.Tensor]:
    """`position_ids` for a padded mask, where the model takes them.

    `generate` gives them itself; without them a model with absolute positions (GPT-2) reads shifted ones.
    """
    return {"position_ids": (mask.cumsum(-1) - 1).clamp(min=0)} if takes(model, "position_ids") else {}


# ---- beginnings that are read once -----------------------------------------------------------------
def keys_and_values(model: Any) -> DynamicCache | None:
    """An empty cache for a model that carries keys and values, and nothing else, from token to token.

    None for a model with states (state-space models, linear attention, convolutions), or with a cache of its own: a
    state can be neither padded nor cut, so such a model reads rows of one length, each from its start.
    """
    if not is_network(unwrapped(model)) or not takes(model, "past_key_values"):
        return None
    try:
        cache = DynamicCache(config=unwrapped(model).config)
    except (AttributeError, KeyError, TypeError, ValueError):  # a configuration that transformers' cache cannot read
        return None
    return cache if all(type(layer) in _KEYS_AND_VALUES for layer in cache.layers) else None


# stands for a layer that uses another layer's; transformers 5.5 leaves such a layer out of the cache
_DUMMY: type | None = getattr(cache_utils, "DummyLayer", None)
_KEYS_AND_VALUES = (DynamicLayer, DynamicSlidingWindowLayer, _DUMMY)


def sees_everything(cache: DynamicCache, length: int) -> bool:
    """Whether no layer's window is shorter than rows of `length` tokens."""
    return all(length < getattr(layer, "sliding_window", length + 1) for layer in cache.layers)


def read_once(
    model: Any, beginning: Sequence[int], rows: int, *, padding: Sequence[int] = (), longest: int = 0
) -> DynamicCache | None:
    """What `rows` rows begin with, read by the model once: a cache that each of them goes on from.

    Args:
        model: A causal LM; gradients flow where they are enabled.
        beginning: The common tokens.
        padding: For left-padded rows, how many columns of padding stand before each. The beginning moves to the
            right by as much, so that columns lie as in plain left padding, which every architecture understands, and
            what does not fit into `len(beginning)` columns is left to be read with the rest.
        longest: With padding: the columns that the rows have in the end.

    Returns:
        The cache of `len(beginning)` columns, or None where the model cannot go on from one: plain batches then.
    """
    cache = keys_and_values(model)
    if cache is None or (any(padding) and not sees_everything(cache, longest)):
        return None
    tokens = torch.tensor([list(beginning)], device=model.device)
    fewer = {"logits_to_keep": 1} if takes(model, "logits_to_keep") else {}
    model(input_ids=tokens, past_key_values=cache, use_cache=True, **fewer)
    if not all(_holds(layer, len(beginning)) for layer in cache.layers):  # it keeps them elsewhere
        return None
    cache.batch_repeat_interleave(rows)
    if any(padding):
        columns = torch.arange(len(beginning)) - torch.tensor(list(padding))[:, None]
        layer: Any
        for layer in cache.layers:
            if type(layer) is not _DUMMY:
                layer.keys, layer.values = _moved(layer.keys, columns), _moved(layer.values, columns)
    return cache


def _holds(layer: Any, length: int) -> bool:
    if type(layer) is _DUMMY:
        return True
    kept = min(length, getattr(layer, "sliding_window", length + 1) - 1)
    return layer.is_initialized and layer.keys.shape[-2] == kept


def _moved(states: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
    """`(rows, heads, length, size)` states, each row's read from its own columns; masked ones may hold anything."""
    index = columns.clamp(min=0).to(states.device)[:, None, :, None].expand(states.shape)
    return states.gather(2, index)


def shared_prefix_length(rows: Sequence[Sequence[int]]) -> int:
    """Number of leading tokens that all rows share."""
    first, last = min(rows, key=tuple), max(rows, key=tuple)  # the lexicographic extremes differ first where any two do
    length = 0
    for a, b in zip(first, last, strict=False):
        if a != b:
            break
        length += 1
    return length


# ---- sizes -----------------------------------------------------------------------------------------
# how CUDA, MPS and the CPU's allocator say it
_OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "not enough memory")


def free_memory() -> None:
    """Give back what nothing refers to any more, of this process and of its GPU."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


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
        """Shrink after a batch of `rows` rows of `width` tokens that did not fit."""
        self.rows = max(1, rows // 2)
        if self.tokens is not None:
            self.tokens = min(self.tokens, self.rows * width)


def in_batches(
    model: Any,
    rows: Sequence[Sequence[int]],
    call: Callable[[list[Any]], Sequence[T]],
    size: int | None = None,
) -> list[T]:
    """What `call` gives for each row, in the order of `rows`; it gets batches of at most `size` rows, shortest first.

    A model that carries a state gets rows of one length together, as padding before them would enter the state.
    """
    padded, size = keys_and_values(model) is not None, size or len(rows)
    batches: list[list[int]] = []
    for i in sorted(range(len(rows)), key=lambda i: len(rows[i])):
        joins = batches and len(batches[-1]) < size and (padded or len(rows[batches[-1][0]]) == len(rows[i]))
        if joins:
            batches[-1].append(i)
        else:
            batches.append([i])
    results = {i: result for batch in batches for i, result in zip(batch, call([rows[i] for i in batch]), strict=True)}
    return [results[i] for i in range(len(rows))]
