"""Exact restoration: snapshots by parameter name, and a merge that leaves no trace.

Adding an adapter's product to a weight and taking it off again does not give the same bits. Whatever
changes weights here keeps the originals and copies them back.
"""

from __future__ import annotations

import contextlib
import copy
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Iterator

    from peft import PeftModel
    from torch import nn


@torch.no_grad()
def restore(model: nn.Module, originals: dict[str, torch.Tensor]) -> None:
    """Copy a snapshot back, bit for bit."""
    for name, value in originals.items():
        parameter = model.get_parameter(name)
        parameter.copy_(value.to(parameter.device))


@contextlib.contextmanager
def preserved_state(model: Any) -> Iterator[None]:
    """Put back everything but weights that training changes on a model.

    That is: train/eval mode and dropout of each module, `requires_grad` of each parameter, padding ids, the
    generation configuration, cache use, and attributes trainers leave behind.
    """
    modes = [(module, module.training) for module in model.modules()]
    dropouts = [(module, module.p) for module in model.modules() if isinstance(module, torch.nn.Dropout)]
    grads = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    attributes = dict(vars(model))
    config = dict(vars(model.config))
    generation = dict(vars(model.generation_config)) if getattr(model, "generation_config", None) else None
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode
        for module, p in dropouts:  # trl sets them to 0 for good
            module.p = p
        for parameter, flag in grads:
            parameter.requires_grad_(flag)
            parameter.grad = None
        for name in set(vars(model)) - set(attributes):
            delattr(model, name)
        for name, value in attributes.items():
            if not name.startswith("_") and vars(model).get(name) is not value:
                setattr(model, name, value)
        vars(model.config).clear()
        vars(model.config).update(config)
        if generation is not None:
            vars(model.generation_config).clear()
            vars(model.generation_config).update(generation)


def snapshot_adapted(peft_model: PeftModel) -> dict[str, torch.Tensor]:
    """Copy the weights an adapter will be merged into, by their names in the plain model.

    Copies of GPU weights are kept in host memory, which is larger.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer

    originals = {}
    for name, module in peft_model.get_base_model().named_modules():
        if isinstance(module, BaseTunerLayer):
            for kind, value in module.get_base_layer().named_parameters(recurse=False):
                originals[f"{name}.{kind}"] = value.detach().to("cpu", copy=True)
    return originals


@contextlib.contextmanager
def merged_for_inference(peft_model: PeftModel) -> Iterator[None]:
    """Merge the active adapter for the block, and put the exact base weights back afterwards.

    Generating through merged weights is faster; un-merging by subtraction would leave rounding behind.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer

    layers = [m for m in peft_model.modules() if isinstance(m, BaseTunerLayer)]
    originals = [[(p, p.detach().clone()) for p in layer.get_base_layer().parameters()] for layer in layers]
    peft_model.merge_adapter()
    try:
        yield
    finally:
        peft_model.unmerge_adapter()
        with torch.no_grad():
            for parameters in originals:
                for parameter, value in parameters:
                    parameter.copy_(value)


def forget_adapter(model: nn.Module) -> None:
    """Take off what peft leaves on a model it has left, so that hosts see a plain one."""
    for name in ("peft_config", "_hf_peft_config_loaded"):
        if name in vars(model):
            delattr(model, name)


def without_adapter(edited: Any) -> Any:
    """A plain model with the base weights of a PeftModel that the caller keeps."""
    plain = copy.deepcopy(edited).unload()
    forget_adapter(plain)
    return plain


def deliver_adapter(peft_model: PeftModel, model: Any, *, merge: bool) -> tuple[Any, dict[str, torch.Tensor]]:
    """Merge a trained adapter into the weights and hand back the originals by name, or hand the adapter over.

    Args:
        peft_model: The trained adapter around `model`.
        model: The plain model; restored if merging fails.
        merge: False returns the PeftModel itself, with nothing to restore.
    """
    if not merge:
        for name in ("forward", "_original_forward"):  # accelerate's mixed-precision wrapper
            vars(peft_model).pop(name, None)
        return peft_model.eval(), {}
    originals = snapshot_adapted(peft_model)
    try:
        merged = peft_model.merge_and_unload()
    except BaseException:
        peft_model.unload()
        forget_adapter(model)
        restore(model, originals)
        raise
    forget_adapter(model)
    return merged, originals


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


@torch.no_grad()
def fingerprint(model: Any) -> tuple[int, ...]:
    """One number per parameter and buffer, from its bits: equal before and after an edit that was undone exactly.

    Cheap (one pass over the weights), and sums can cancel out: a guard for long runs, not a proof.
    """
    whole = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
    tensors = [t.detach() for t in (*model.parameters(), *model.buffers()) if not t.is_meta]
    sums = [t.contiguous().view(whole[t.element_size()]).sum(dtype=torch.int64) for t in tensors if t.numel()]
    return tuple(int(value) for value in sums)
