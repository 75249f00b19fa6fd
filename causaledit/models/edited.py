"""An edit in place: how it is undone, and what it changed."""

from __future__ import annotations

from typing import Any

import torch

from causaledit.models.adapters import without_adapter
from causaledit.models.weights import restore


def undo_edit(model: Any, edited: Any, weights_copy: Any) -> Any:
    """The unedited model again, whatever kind of undoing a method gave back.

    Args:
        model: The model that was edited.
        edited: What the method returned.
        weights_copy: Original tensors by name, a callable that undoes the edit (EasyEdit's WISE, GRACE), or
            nothing, where the edit is an adapter or a context around the model.

    Returns:
        `model` with its weights restored; with an adapter, a plain copy, as the caller keeps the adapter.
    """
    if callable(weights_copy):
        with torch.no_grad():
            weights_copy()
    elif weights_copy:
        restore(model, weights_copy)
    elif hasattr(edited, "peft_config"):
        return without_adapter(edited)
    return model


@torch.no_grad()
def weights_changed(model: Any, edited: Any, weights_copy: Any) -> int | None:
    """How many parameters an edit changed the value of, while it is in place.

    Args:
        model: The model that was edited.
        edited: What the method returned.
        weights_copy: As for `undo_edit`.

    Returns:
        Parameters that differ from their originals; those of the adapter where that is the edit; 0 for an edit in
        the context; None where a callable undoes the edit and nothing says what it touched.
    """
    if callable(weights_copy):
        return None
    if weights_copy:
        pairs = {id(p): (p, value) for name, value in weights_copy.items() for p in [model.get_parameter(name)]}
        return sum(int((p != value.to(p.device)).sum()) for p, value in pairs.values())
    if hasattr(edited, "peft_config"):
        from peft import get_peft_model_state_dict

        return sum(value.numel() for value in get_peft_model_state_dict(edited).values())
    return 0
