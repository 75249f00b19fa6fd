"""MEMIT as a host calls it (arXiv 2210.07229)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from causaledit.methods.shared.locate_edit.editor import locate_edit

if TYPE_CHECKING:
    from collections.abc import Mapping

    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from causaledit.facts.requests import EditRequest
    from causaledit.methods.memit.hparams import MEMITHyperParams
    from causaledit.methods.method import EditSequence
    from causaledit.methods.shared.locate_edit.editor import LocateEditReport
    from causaledit.support.progress import ProgressSink


def apply_memit_to_model(
    model: PreTrainedModel,
    tok: PreTrainedTokenizerBase,
    requests: list[Mapping[str, Any] | EditRequest],
    hparams: MEMITHyperParams,
    copy: bool = False,
    return_orig_weights: bool = False,
    keep_original_weight: bool = False,
    *,
    progress: ProgressSink | None = None,
    report: LocateEditReport | None = None,
    sequence: EditSequence | None = None,
    **kwargs: Any,
) -> tuple[Any, dict[str, torch.Tensor]]:
    """Write facts together, spread over several layers, weighed against what the layers know.

    Args:
        model: The network to edit. Changed in place unless `copy`.
        tok: Its tokenizer; left as it is.
        requests: EasyEdit dicts, MQuAKE rewrites or `EditRequest`s; left as they are.
        hparams: The configuration.
        copy: Edit a copy and leave `model` alone.
        return_orig_weights: Return the original tensors of the weights that changed, by name.
        keep_original_weight: Part of the host's call; weights are only kept where asked for.
        progress: Where progress goes; by default rich bars in a terminal.
        report: Filled in with what was done.
        sequence: Given by the host where this edit goes on top of earlier ones.
        **kwargs: Further arguments of a host's call (`train_ds`, …), not used here.

    Returns:
        The edited model, and the original tensors by parameter name where asked for.

    Raises:
        RequestError, ModelError: Bad input, before any compute.
        EditFailedError: The optimisation diverged or the statistics are singular. After any exception `model` is as
            it was, bit for bit.
    """
    with locate_edit(model, tok, requests, hparams, copy=copy, progress=progress, report=report, sequence=sequence) as (
        editor,
        edits,
        originals,
    ):
        editor.prepare_spaces()
        editor.spread(
            edits,
            lambda layer, keys, residuals: least_squares_change(
                keys.double(), editor.solve(layer, keys), residuals.double(), hparams.mom2_update_weight
            ),
        )
    return editor.model, originals if return_orig_weights else {}


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
