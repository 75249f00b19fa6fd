"""AlphaEdit as a host calls it (arXiv 2410.02355)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from causaledit.methods.alphaedit import METHOD
from causaledit.methods.alphaedit.null_space import prepare_projections
from causaledit.methods.call import host_call
from causaledit.methods.shared.locate_edit.editor import locate_edit
from causaledit.models.edited import WeightsEdit

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from causaledit.facts.requests import EditRequest
    from causaledit.methods.alphaedit.hparams import AlphaEditHyperParams
    from causaledit.methods.call import Call
    from causaledit.models.edited import Edited


def edit(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    edits: list[EditRequest],
    hparams: AlphaEditHyperParams,
    call: Call,
) -> Edited:
    """Write facts together, spread over several layers, in directions not used by what must stay.

    In a sequence the keys of earlier edits are kept, and this edit's are added once it has succeeded. Without one the
    edit is independent.
    """
    editor, originals = locate_edit(model, tokenizer, edits, hparams, call)
    prepare_projections(editor, hparams)
    memory = editor.memory

    def change(layer: int, keys: torch.Tensor, residuals: torch.Tensor) -> torch.Tensor:
        return projected_change(
            keys.double(), residuals.double(), memory.projections[layer], memory.earlier_keys.get(layer), hparams.L2
        )

    editor.spread(edits, change)
    if call.sequence is not None:  # as in the edited model: later edits must leave these alone
        fresh = {layer: editor.keys(edits, layer, by_group=True).double() for layer in hparams.layers}
        for layer, keys in fresh.items():
            earlier = memory.earlier_keys.get(layer)
            memory.earlier_keys[layer] = keys if earlier is None else torch.cat([earlier.to(keys), keys], dim=1)
    return WeightsEdit(model, originals)


apply_alphaedit_to_model = host_call(METHOD)


def projected_change(
    keys: torch.Tensor, residuals: torch.Tensor, projection: torch.Tensor, earlier: torch.Tensor | None, l2: float
) -> torch.Tensor:
    """Δ P = R K₁ᵀ P (K_p K_pᵀ P + K₁ K₁ᵀ P + λI)⁻¹ (AlphaEdit section 3.3, there with λ = 1).

    It minimises ‖ΔP K₁ − R‖² + ‖ΔP K_p‖² + λ‖ΔP‖². With K = [K₁ K_p] and G = Kᵀ P K the solution is
    [R 0] (G + λI)⁻¹ Kᵀ P, so that only an n×n system is left.

    Args:
        keys: K₁, `(features, n)`: the edits' keys.
        residuals: R, `(hidden, n)`.
        projection: P, `(features, features)`.
        earlier: K_p, `(features, m)`: keys of earlier edits of the sequence.
        l2: λ.

    Returns:
        `(hidden, features)`.
    """
    every = keys if earlier is None else torch.cat([keys, earlier.to(keys)], dim=1)
    projected = (projection.to(every.device) @ every.to(projection.dtype)).to(every.dtype)
    gram = every.T @ projected
    gram = (gram + gram.T) / 2 + l2 * torch.eye(every.shape[1], dtype=every.dtype, device=every.device)
    missing = torch.zeros(residuals.shape[0], every.shape[1], dtype=every.dtype, device=every.device)
    missing[:, : keys.shape[1]] = residuals
    return missing @ torch.linalg.solve(gram, projected.T)
