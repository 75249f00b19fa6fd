"""MEMIT as a host calls it (arXiv 2210.07229)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from causaledit.methods.call import host_call
from causaledit.methods.memit import METHOD
from causaledit.methods.shared.locate_edit.editor import locate_edit
from causaledit.models.edited import WeightsEdit

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from causaledit.facts.requests import EditRequest
    from causaledit.methods.call import Call
    from causaledit.methods.memit.hparams import MEMITHyperParams
    from causaledit.models.edited import Edited


def edit(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    edits: list[EditRequest],
    hparams: MEMITHyperParams,
    call: Call,
) -> Edited:
    """Write facts together, spread over several layers, weighed against what the layers know."""
    editor, originals = locate_edit(model, tokenizer, edits, hparams, call)
    editor.prepare_spaces()
    editor.spread(
        edits,
        lambda layer, keys, residuals: least_squares_change(
            keys.double(), editor.solve(layer, keys), residuals.double(), hparams.mom2_update_weight
        ),
    )
    return WeightsEdit(model, originals)


apply_memit_to_model = host_call(METHOD)


def least_squares_change(
    keys: torch.Tensor, solved: torch.Tensor, residuals: torch.Tensor, weight: float
) -> torch.Tensor:
    """Δ = R Kᵀ (λC + K Kᵀ)⁻¹ (MEMIT eq. 14, with C₀ = λC of eq. 15).

    By the matrix inversion lemma Δ = R (λI + Kᵀ C⁻¹ K)⁻¹ (C⁻¹ K)ᵀ, so that only an n×n system is left.

    Args:
        keys: K, `(features, n)`.
        solved: C⁻¹ K.
        residuals: R, `(hidden, n)`.
        weight: λ.

    Returns:
        `(hidden, features)`.
    """
    inner = weight * torch.eye(keys.shape[1], dtype=keys.dtype, device=keys.device) + keys.T @ solved
    return residuals @ torch.linalg.solve(inner, solved.T)
