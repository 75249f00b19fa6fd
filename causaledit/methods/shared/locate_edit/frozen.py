"""Forward passes over rows in which only the end changes.

Optimising a value changes one hidden state per row, at the token where the fact is looked up. In a causal model
nothing before that token depends on it, in any layer, and nothing below the edited layer at all. So the tokens
before it are read once, into a key-value cache, and the layers below are run once and their output is replayed.
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


class FrozenRows:
    """Rows of tokens, with everything before each row's look-up token read only once.

    Attributes:
        at: For each row, the column of its look-up token in the inputs that `inputs()` gives.
        shift: For each row, the number of tokens before its column 0.
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
            longest = max(starts) + max(len(row.ids) - row.at for row in rows)
            self._read([row.ids[: row.at] for row in rows], model, longest)
        if self._prefix is None:
            starts = [0] * len(rows)
        self.shift = torch.tensor(starts, device=self._device)
        self.at = torch.tensor([row.at for row in rows], device=self._device) - self.shift
        self._ids, self._mask = pad_right([row.ids[s:] for row, s in zip(rows, starts, strict=True)], self._device)
        columns = torch.arange(self._ids.shape[1], device=self._device)
        self._positions = self.shift[:, None] + columns[None] if takes(model, "position_ids") else None

    def _read(self, prefixes: list[list[int]], model: Any, longest: int) -> None:
        cache = keys_and_values(model)
        # gaps between a row's beginning and end would shift a sliding window that is narrower than the row
        if cache is None or not sees_everything(cache, longest):
            return
        ids, mask = pad_right(prefixes, self._device)
        # a row without beginning reads padding, which no later token sees: a row of nothing has no softmax
        readable = torch.where(mask.sum(1, keepdim=True) > 0, mask, torch.ones_like(mask))
        with torch.no_grad():
            columns = torch.arange(ids.shape[1], device=self._device).expand_as(ids)
            model(
                input_ids=ids, attention_mask=readable, position_ids=columns, past_key_values=cache, use_cache=True,
                logits_to_keep=1,
            )  # fmt: skip
        self._prefix, self._prefix_mask = cache, mask

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
        """The same for some of the rows."""
        chosen = copy.copy(self)
        index = torch.tensor(list(rows), device=self._device)
        for name in ("shift", "at", "_ids", "_mask", "_prefix_mask"):
            setattr(chosen, name, getattr(self, name)[index])
        if self._positions is not None:
            chosen._positions = self._positions[index]
        if self._prefix is not None:
            chosen._prefix = _shallow(self._prefix)
            chosen._prefix.batch_select_indices(index)
        return chosen


def _can_continue(model: Any) -> bool:
    wanted = ("position_ids", "past_key_values", "logits_to_keep")
    attention = getattr(model.config, "_attn_implementation", None)
    return attention in _ATTENTION and all(takes(model, name) for name in wanted)


def _shallow(cache: DynamicCache) -> DynamicCache:
    """A cache that grows independently; its layers replace their tensors and never write into them."""
    twin = copy.copy(cache)
    twin.layers = [copy.copy(layer) for layer in cache.layers]
    return twin
