"""ROME as a host calls it (arXiv 2202.05262)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from causaledit.errors import EditFailedError
from causaledit.methods.call import host_call
from causaledit.methods.rome import METHOD
from causaledit.methods.shared.locate_edit.editor import locate_edit
from causaledit.models.edited import WeightsEdit

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from causaledit.facts.requests import EditRequest
    from causaledit.methods.call import Call
    from causaledit.methods.rome.hparams import ROMEHyperParams
    from causaledit.methods.shared.locate_edit.editor import LocateEditor
    from causaledit.models.edited import Edited

# Below this cosine between the prompt's key and the direction of the change, the change would blow up.
SMALLEST_MATCH = 1e-6


def edit(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    edits: list[EditRequest],
    hparams: ROMEHyperParams,
    call: Call,
) -> Edited:
    """Write facts into one layer, one after the other, each as a change of rank one."""
    [layer] = hparams.layers
    editor, originals = locate_edit(model, tokenizer, edits, hparams, call)
    editor.prepare_spaces()
    for request in edits:
        editor.write(layer, rank_one_change(editor, request, layer))
    return WeightsEdit(model, originals)


apply_rome_to_model = host_call(METHOD)


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
            "change reaches the value: use another layer or fewer contexts. The model is as it was."
        )
    return (value.target.double() - output).outer(direction) / match
