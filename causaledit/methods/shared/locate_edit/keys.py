"""Keys: what the rewritten projection receives at the token where the fact is looked up."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from causaledit.methods.shared.locate_edit.contexts import Contexts, flat, weights
from causaledit.methods.shared.locate_edit.frozen import FrozenRows, in_passes
from causaledit.methods.shared.locate_edit.subjects import TokenRow, locate
from causaledit.models.hooks import hidden, run_until
from causaledit.models.layout import by_token

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import nn

    from causaledit.facts.requests import EditRequest

ROWS_AT_A_TIME = 128


@torch.no_grad()
def states_at(
    model: Any, module: nn.Module, rows: Sequence[TokenRow], *, rows_at_a_time: int = ROWS_AT_A_TIME
) -> tuple[torch.Tensor, torch.Tensor]:
    """A module's input and output at each row's look-up token.

    The model is run no further than the module, over no token beyond the look-up.

    Returns:
        Two `(rows, features)` tensors.
    """
    received: dict[int, torch.Tensor] = {}
    given: dict[int, torch.Tensor] = {}
    for group in in_passes([row.at for row in rows], model.device, most=rows_at_a_time):
        part = [TokenRow(rows[i].ids[: rows[i].at + 1], rows[i].at) for i in group]
        frozen = FrozenRows(model, part, share=False)
        inputs = frozen.inputs()
        inside, outside = run_until(model, module, **inputs)
        for states, out in ((inside, received), (hidden(outside), given)):
            every = by_token(states, *inputs["input_ids"].shape)
            found = every[torch.arange(len(part), device=states.device), frozen.at.to(states.device)]
            out.update(zip(group, found, strict=True))
    numbers = range(len(rows))
    return torch.stack([received[i] for i in numbers]), torch.stack([given[i] for i in numbers])


def mean_keys(
    model: Any,
    tokenizer: Any,
    module: nn.Module,
    edits: Sequence[EditRequest],
    contexts: Contexts,
    *,
    fact_token: str,
    by_group: bool,
) -> torch.Tensor:
    """k* of each edit: the mean over contexts of the projection's input at the look-up token.

    ROME eq. 3: k* = 1/N Σ_j k(x_j + s). MEMIT eq. 19 is the same per layer.

    Args:
        by_group: See `contexts.weights`.

    Returns:
        An `(edits, features)` tensor in float32 or wider.
    """
    rows = [locate(tokenizer, template, edit, fact_token) for edit in edits for template in flat(contexts)]
    keys, _ = states_at(model, module, rows)
    keys = keys.to(torch.promote_types(keys.dtype, torch.float32))
    share = weights(contexts, by_group=by_group).to(keys)
    return torch.einsum("t,etf->ef", share, keys.view(len(edits), len(share), -1))
