"""ROME as a host calls it (arXiv 2202.05262)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from causaledit.errors import EditFailedError
from causaledit.methods.shared.locate_edit.editor import locate_edit

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from causaledit.facts.requests import EditRequest
    from causaledit.methods.method import EditSequence
    from causaledit.methods.rome.hparams import ROMEHyperParams
    from causaledit.methods.shared.locate_edit.editor import LocateEditor, LocateEditReport
    from causaledit.support.progress import ProgressSink

# Below this cosine between the prompt's key and the direction of the change, the change would blow up.
SMALLEST_MATCH = 1e-6


def apply_rome_to_model(
    model: PreTrainedModel,
    tok: PreTrainedTokenizerBase,
    requests: list[Mapping[str, Any] | EditRequest],
    hparams: ROMEHyperParams,
    copy: bool = False,
    return_orig_weights: bool = False,
    keep_original_weight: bool = False,
    *,
    progress: ProgressSink | None = None,
    report: LocateEditReport | None = None,
    sequence: EditSequence | None = None,
    **kwargs: Any,
) -> tuple[Any, dict[str, torch.Tensor]]:
    """Write facts into one layer, one after the other, each as a change of rank one.

    Args:
        model: The network to edit. Changed in place unless `copy`.
        tok: Its tokenizer; left as it is.
        requests: EasyEdit dicts, MQuAKE rewrites or `EditRequest`s; left as they are.
        hparams: The configuration.
        copy: Edit a copy and leave `model` alone.
        return_orig_weights: Return the original tensor of the weight that changed, by name.
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
    [layer] = hparams.layers
    with locate_edit(model, tok, requests, hparams, copy=copy, progress=progress, report=report, sequence=sequence) as (
        editor,
        edits,
        originals,
    ):
        editor.prepare_spaces()
        for edit in edits:
            editor.write(layer, rank_one_change(editor, edit, layer))
    return editor.model, originals if return_orig_weights else {}


def rank_one_change(editor: LocateEditor, edit: EditRequest, layer: int) -> torch.Tensor:
    """Λ (C⁻¹k*)ᵀ with Λ = (v* − W k) / ((C⁻¹k*)ᵀ k) (ROME eq. 2).

    k* is the mean key over contexts (eq. 3). k is the key of the bare prompt, as in the paper's code: the changed
    layer then gives exactly v* in the sentence for which v* was optimised. With no sampled contexts k = k*.

    Returns:
        An `(out, in)` float64 matrix.
    """
    mean_key = editor.keys([edit], layer, by_group=False)
    direction = editor.solve(layer, mean_key)[:, 0]
    direction = direction / direction.norm()
    [value] = editor.values([edit], layer, at_projection=True)
    received, given = editor.bare([edit], editor.layout.projection_module(editor.model, layer))
    key, output = received[0].double(), given[0].double()
    match = direction @ key
    if abs(match) < SMALLEST_MATCH * key.norm():
        raise EditFailedError(
            f"The prompt's key in layer {layer} is at right angles to the mean key over contexts, so that no finite "
            "change reaches the value: take another layer or fewer contexts. The model is as it was."
        )
    return (value.target.double() - output).outer(direction) / match
