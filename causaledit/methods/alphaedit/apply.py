"""AlphaEdit as a host calls it (arXiv 2410.02355)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from causaledit.methods.alphaedit.null_space import prepare_projections
from causaledit.methods.shared.locate_edit.editor import locate_edit

if TYPE_CHECKING:
    from collections.abc import Mapping

    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from causaledit.facts.requests import EditRequest
    from causaledit.methods.alphaedit.hparams import AlphaEditHyperParams
    from causaledit.methods.method import EditSequence
    from causaledit.methods.shared.locate_edit.editor import LocateEditReport
    from causaledit.support.progress import ProgressSink


def apply_alphaedit_to_model(
    model: PreTrainedModel,
    tok: PreTrainedTokenizerBase,
    requests: list[Mapping[str, Any] | EditRequest],
    hparams: AlphaEditHyperParams,
    copy: bool = False,
    return_orig_weights: bool = False,
    keep_original_weight: bool = False,
    *,
    progress: ProgressSink | None = None,
    report: LocateEditReport | None = None,
    sequence: EditSequence | None = None,
    **kwargs: Any,
) -> tuple[Any, dict[str, torch.Tensor]]:
    """Write facts together, spread over several layers, in directions that what is to stay does not use.

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
        sequence: Given by the host where this edit goes on top of earlier ones: their keys are kept then, and this
            edit's are added once it has succeeded. Without it the edit knows of no other.
        **kwargs: Further arguments of a host's call (`train_ds`, …), not used here.

    Returns:
        The edited model, and the original tensors by parameter name where asked for.

    Raises:
        RequestError, ModelError: Bad input, before any compute.
        EditFailedError: The optimisation diverged or there is no null space. After any exception `model` and
            `sequence` are as they were.
    """
    with locate_edit(model, tok, requests, hparams, copy=copy, progress=progress, report=report, sequence=sequence) as (
        editor,
        edits,
        originals,
    ):
        prepare_projections(editor, hparams)
        memory = editor.memory

        def change(layer: int, keys: torch.Tensor, residuals: torch.Tensor) -> torch.Tensor:
            return projected_change(
                keys.double(), residuals.double(), memory.projections[layer], memory.earlier_keys.get(layer), hparams.L2
            )

        editor.spread(edits, change)
        if sequence is not None:  # as the edited model has them, which is what later edits must leave alone
            fresh = {layer: editor.keys(edits, layer, by_group=True).double() for layer in hparams.layers}
            for layer, keys in fresh.items():
                earlier = memory.earlier_keys.get(layer)
                memory.earlier_keys[layer] = keys if earlier is None else torch.cat([earlier, keys], dim=1)
    return editor.model, originals if return_orig_weights else {}


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
