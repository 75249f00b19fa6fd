"""Forward passes over rows in which only the end changes.

Optimising a value changes one hidden state per row, at the token where the fact is looked up. In a causal model
nothing before that token depends on it, in any layer, and nothing below the edited layer at all. So the tokens
before it are read once, into a key-value cache, those that rows of different edits share (a context) once for all,
and the layers below are run once and their output is replayed.
Both give the full computation's result up to rounding.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import torch

from causaledit.models.batches import keys_and_values, pad_right, sees_everything, takes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from transformers import DynamicCache

    from causaledit.methods.shared.locate_edit.subjects import TokenRow

_ATTENTION = ("eager", "sdpa")  # other implementations treat a mask with gaps differently
# What a pass costs beside its tokens, in tokens: little on a CPU, much on a GPU, which reads all weights for it.
_PASS_TOKENS = {"cpu": 12}
_PASS_TOKENS_ELSEWHERE = 512
# Rows whose beginnings agree in fewer tokens are read apart.
_LEAST_SHARED = 6


class FrozenRows:
    """Rows of tokens, with everything before each row's look-up token read only once.

    Attributes:
        at: For each row, the column of its look-up token in the inputs that `inputs()` gives.
        shift: For each row, the number of tokens before its column 0.
        lengths: For each row, its number of columns without padding.
    """

    def __init__(self, model: Any, rows: Sequence[TokenRow], *, share: bool = True) -> None:
        """Read the rows' beginnings.

        Args:
            model: A causal LM.
            rows: Token ids with the look-up index.
            share: False reads every row whole at each pass (also where the model cannot do otherwise).
        """
        self._device = model.device
        self._prefix: DynamicCache | None = None
        self._prefix_mask = torch.zeros(len(rows), 0, dtype=torch.long, device=self._device)
        starts = [row.at for row in rows]
        if share and max(starts) > 0 and _can_continue(model):
            self._read([row.ids[: row.at] for row in rows], model, max(len(row.ids) - row.at for row in rows))
        if self._prefix is None:
            starts = [0] * len(rows)
        self.shift = torch.tensor(starts, device=self._device)
        self.at = torch.tensor([row.at for row in rows], device=self._device) - self.shift
        self._ids, self._mask = pad_right([row.ids[s:] for row, s in zip(rows, starts, strict=True)], self._device)
        self.lengths = self._mask.sum(1)
        columns = torch.arange(self._ids.shape[1], device=self._device)
        self._positions = self.shift[:, None] + columns[None] if takes(model, "position_ids") else None

    def _read(self, prefixes: list[list[int]], model: Any, behind: int) -> None:
        """Read what precedes the look-up tokens: first what rows of one context share, then each row's own."""
        cache = keys_and_values(model)
        if cache is None:
            return
        heads, owners = _shared_beginnings(prefixes)
        begun = [len(heads[owner]) if owner is not None else 0 for owner in owners]
        width = max(map(len, heads), default=0) + max(len(p) - b for p, b in zip(prefixes, begun, strict=True))
        # gaps between a row's beginning and end would shift a sliding window that is narrower than the row
        if not sees_everything(cache, width + behind):
            if not heads or not sees_everything(cache, max(map(len, prefixes)) + behind):
                return
            heads, owners, begun = [], [None] * len(prefixes), [0] * len(prefixes)
        mask = self._prefix_mask
        if heads:
            index = torch.tensor([owner or 0 for owner in owners], device=self._device)
            mask = self._continue(model, cache, heads, mask[: len(heads)])[index]
            mask[torch.tensor([owner is None for owner in owners], device=self._device)] = 0
            cache.batch_select_indices(index)
        own = [prefix[b:] for prefix, b in zip(prefixes, begun, strict=True)]
        self._prefix, self._prefix_mask = cache, self._continue(model, cache, own, mask)

    def _continue(self, model: Any, cache: DynamicCache, rows: list[list[int]], before: torch.Tensor) -> torch.Tensor:
        """Read rows behind what the cache holds, of which `before` says what is theirs; return the longer mask."""
        ids, own = pad_right(rows, self._device)
        mask = torch.cat([before, own], dim=1)
        if not ids.shape[1]:
            return mask
        # a row without beginning reads padding, which no later token sees: a row of nothing has no softmax
        readable = torch.where(mask.sum(1, keepdim=True) > 0, mask, torch.ones_like(mask))
        positions = before.sum(1, keepdim=True) + torch.arange(ids.shape[1], device=self._device)
        with torch.no_grad():
            model(
                input_ids=ids, attention_mask=readable, position_ids=positions, past_key_values=cache, use_cache=True,
                logits_to_keep=1,
            )  # fmt: skip
        return mask

    def inputs(self) -> dict[str, Any]:
        """Arguments of one forward pass; each call gives a cache of its own."""
        mask = torch.cat([self._prefix_mask, self._mask], dim=1)
        given: dict[str, Any] = {"input_ids": self._ids, "attention_mask": mask, "use_cache": False}
        if self._positions is not None:
            given["position_ids"] = self._positions
        if self._prefix is not None:
            given["past_key_values"] = _shallow(self._prefix)
        return given

    def select(self, rows: Sequence[int]) -> FrozenRows:
        """The same for some of the rows, no wider than the longest of them."""
        chosen = copy.copy(self)
        index = torch.tensor(list(rows), device=self._device)
        for name in ("shift", "at", "lengths", "_prefix_mask"):
            setattr(chosen, name, getattr(self, name)[index])
        width = int(chosen.lengths.max())
        chosen._ids, chosen._mask = self._ids[index, :width], self._mask[index, :width]
        if self._positions is not None:
            chosen._positions = self._positions[index, :width]
        if self._prefix is not None:
            chosen._prefix = _shallow(self._prefix)
            chosen._prefix.batch_select_indices(index)
        return chosen


def in_passes(lengths: Sequence[int], device: Any, *, most: int | None = None) -> list[list[int]]:
    """Groups of rows that are read in one forward pass: padding that costs more than a pass is not computed.

    Args:
        lengths: Of the rows, in tokens.
        device: Where they are read.
        most: At most so many rows in a pass.
    """
    allowed = _PASS_TOKENS.get(torch.device(device).type, _PASS_TOKENS_ELSEWHERE)
    groups: list[list[int]] = []
    for i in sorted(range(len(lengths)), key=lambda i: lengths[i]):
        last = groups[-1] if groups else []
        if last and len(last) != most and len(last) * (lengths[i] - lengths[last[-1]]) <= allowed:
            last.append(i)
        else:
            groups.append([i])
    return groups


def _shared_beginnings(rows: Sequence[list[int]]) -> tuple[list[list[int]], list[int | None]]:
    """Beginnings that several rows share, and for each row which one is its own."""
    heads: list[list[int]] = []
    owners: list[int | None] = [None] * len(rows)
    order = sorted(range(len(rows)), key=lambda i: rows[i])
    while order:
        first, *others = order
        group, shared = [first], len(rows[first])
        for i in others:
            common = _common(rows[first][:shared], rows[i])
            if common < _LEAST_SHARED:
                break
            group.append(i)
            shared = common
        if len(group) > 1:
            for i in group:
                owners[i] = len(heads)
            heads.append(rows[first][:shared])
        order = order[len(group) :]
    return heads, owners


def _common(a: Sequence[int], b: Sequence[int]) -> int:
    return next((n for n, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def _can_continue(model: Any) -> bool:
    wanted = ("position_ids", "past_key_values", "logits_to_keep")
    attention = getattr(model.config, "_attn_implementation", None)
    return attention in _ATTENTION and all(takes(model, name) for name in wanted)


def _shallow(cache: DynamicCache) -> DynamicCache:
    """A cache that grows independently; its layers replace their tensors and never write into them."""
    twin = copy.copy(cache)
    twin.layers = [copy.copy(layer) for layer in cache.layers]
    return twin
