"""Rows of token ids as batches: padding, positions, shared beginnings, a size that fits the memory."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from causaledit.models.network import network_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from transformers import PreTrainedModel, PreTrainedTokenizerBase


PAD = 0  # any id: padding is masked


# A shared prefix shorter than this is cheaper to read again than to cache.
MIN_SHARED_PREFIX = 24


def eos_ids(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Every token that ends a turn: the model's, and the tokenizer's."""
    declared = getattr(getattr(network_of(model), "generation_config", None), "eos_token_id", None)
    ids = [declared] if isinstance(declared, int) else list(declared or [])
    if tokenizer.eos_token_id is not None and tokenizer.eos_token_id not in ids:
        ids.append(tokenizer.eos_token_id)
    return ids


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


def _padded(rows: list[list[int]], device: Any) -> tuple[torch.Tensor, torch.Tensor]:
    length = max(len(row) for row in rows)
    ids = torch.tensor([row + [0] * (length - len(row)) for row in rows], device=device)
    mask = torch.tensor([[1] * len(row) + [0] * (length - len(row)) for row in rows], device=device)
    return ids, mask


def _pad_right(rows: Sequence[Sequence[int]], device: Any) -> tuple[torch.Tensor, torch.Tensor]:
    length = max(len(row) for row in rows)
    ids = torch.tensor([[*row, *[0] * (length - len(row))] for row in rows], device=device)
    mask = torch.tensor([[1] * len(row) + [0] * (length - len(row)) for row in rows], device=device)
    return ids, mask
