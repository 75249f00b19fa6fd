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
