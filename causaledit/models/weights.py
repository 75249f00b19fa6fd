"""Exact restoration: snapshots by parameter name, and a merge that leaves no trace.

Adding an adapter's product to a weight and taking it off again does not give the same bits. Whatever
changes weights here keeps the originals and copies them back.
"""

from __future__ import annotations

import contextlib
import hashlib
from typing import TYPE_CHECKING, Any

import torch

from causaledit.errors import one_line
from causaledit.models.sharded import reshard

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from torch import nn

_SUMMED_TOGETHER = 1 << 20  # numbers of a weight: an embedding as a whole would need twice its size once more


@torch.no_grad()
def restore(model: nn.Module, originals: dict[str, torch.Tensor]) -> None:
    """Copy a snapshot back, bit for bit."""
    for name, value in originals.items():
        set_back(model.get_parameter(name), value)


@torch.no_grad()
def set_back(parameter: torch.Tensor, value: torch.Tensor) -> None:
    """Give a parameter an earlier value, bit for bit, also where its type was changed since."""
    if parameter.dtype == value.dtype:
        parameter.copy_(value.to(parameter.device))
    else:
        parameter.data = value.to(parameter.device, copy=True)


@contextlib.contextmanager
def preserved_state(model: Any) -> Iterator[None]:
    """Put back everything but weights that training changes on a model.

    That is: train/eval mode and dropout of each module, `requires_grad` and gradient of each parameter, padding ids
    and cache use (of a composite model's parts too), the generation configuration, and attributes trainers leave
    behind. Inside, no parameter has a gradient.
    """
    reshard(model)
    modes = [(module, module.training) for module in model.modules()]
    dropouts = [(module, module.p) for module in model.modules() if isinstance(module, torch.nn.Dropout)]
    grads = [(parameter, parameter.requires_grad, parameter.grad) for parameter in model.parameters()]
    attributes = dict(vars(model))
    configs = [(config, dict(vars(config))) for config in _configurations(model)]
    generation = dict(vars(model.generation_config)) if getattr(model, "generation_config", None) else None
    for parameter, _, _ in grads:
        parameter.grad = None
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode
        for module, p in dropouts:  # trl sets them to 0 for good
            module.p = p
        for parameter, flag, grad in grads:
            parameter.requires_grad_(flag)
            parameter.grad = grad
        for name in set(vars(model)) - set(attributes):
            delattr(model, name)
        for name, value in attributes.items():
            if not name.startswith("_") and vars(model).get(name) is not value:
                setattr(model, name, value)
        for config, values in configs:
            vars(config).clear()
            vars(config).update(values)
        if generation is not None:
            vars(model.generation_config).clear()
            vars(model.generation_config).update(generation)


def _configurations(model: Any) -> list[Any]:
    """A model's configuration, its modules' and those nested in them: training writes into the text model's own."""
    from transformers import PretrainedConfig

    found: dict[int, Any] = {}
    left = [model.config, *(getattr(module, "config", None) for module in model.modules())]
    while left:
        config = left.pop()
        if isinstance(config, PretrainedConfig) and id(config) not in found:
            found[id(config)] = config
            left += vars(config).values()
    return list(found.values())


@torch.no_grad()
def fingerprint(model: Any) -> tuple[int, ...]:
    """One number per parameter and buffer, from its bits: equal before and after an edit that was undone exactly.

    Cheap (one pass over the weights), and sums can cancel out: a guard for long runs, not a proof.
    """
    whole = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
    tensors = [t.detach() for t in (*model.parameters(), *model.buffers()) if not t.is_meta]
    return tuple(_exact_sum(t.contiguous().view(-1).view(whole[t.element_size()])) for t in tensors if t.numel())


def _exact_sum(values: torch.Tensor) -> int:
    """The sum of a row of integers, of a part at a time: they are widened to eight bytes each to be added."""
    return int(sum(part.sum(dtype=torch.int64) for part in values.split(_SUMMED_TOGETHER)))


def state_of(model: Any) -> dict[str, Any]:
    """What a method has to leave as it was in a model that others use after it; see `what_changed`."""
    return {
        "weights": fingerprint(model),
        "modules": [(name, type(module)) for name, module in model.named_modules()],
        "modes": [module.training for module in model.modules()],
        "hooks": [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules()],
        "flags": [parameter.requires_grad for parameter in model.parameters()],
    }


def what_changed(model: Any, before: Mapping[str, Any]) -> str | None:
    """The parts of a model's `state_of` that are others now, in words; None where it is as it was."""
    try:
        now = state_of(model)
    except RuntimeError as error:  # a device that has gone wrong
        return one_line(error)
    return ", ".join(name for name, value in now.items() if value != before[name]) or None


def structure_of(model: Any) -> Callable[[], None]:
    """Note how a model is put together; calling the result puts it together like that again.

    That is: every module in its place, with its type, its attributes, its hooks, and each parameter's `requires_grad`.
    What is in the tensors is not kept.
    """
    reshard(model)
    flags = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    modules = [(module, type(module), dict(vars(module))) for module in model.modules()]
    # modules, parameters and hooks are in dictionaries that others hold on to: they are refilled, not replaced
    insides = [
        (value, value.copy()) for _, _, own in modules for value in own.values() if isinstance(value, dict | set)
    ]

    def put_back() -> None:
        reshard(model)
        for inside, content in insides:
            inside.clear()
            inside.update(content)
        for module, kind, own in modules:
            if type(module) is not kind:
                module.__class__ = kind
            vars(module).clear()
            vars(module).update(own)
        for parameter, flag in flags:
            parameter.requires_grad_(flag)

    return put_back


@contextlib.contextmanager
def restructuring(model: Any) -> Iterator[Callable[[], None]]:
    """For a block that wraps or replaces modules; any exception (Ctrl-C too) puts the model together as it was.

    The block gets what does that, for an edit that is undone later.
    """
    put_back = structure_of(model)
    try:
        yield put_back
    except BaseException:
        put_back()
        raise


@contextlib.contextmanager
def rewriting(model: Any, names: Iterable[str]) -> Iterator[dict[str, torch.Tensor]]:
    """Snapshot parameters by name for a block that changes them; any exception (Ctrl-C too) puts them back.

    The snapshot lies in host memory and is what a host gets as `weights_copy`.
    """
    parameters = {name: model.get_parameter(name) for name in names}  # modules may be wrapped when they are restored
    originals = {name: parameter.detach().to("cpu", copy=True) for name, parameter in parameters.items()}
    try:
        yield originals
    except BaseException:
        for name, parameter in parameters.items():
            set_back(parameter, originals[name])
        raise


@torch.no_grad()
def revision_of(model: Any, without: Sequence[str] = ()) -> str:
    """A revision of a model: its configuration and every weight that counts.

    Each weight enters by name, shape, type and exact integer sums over its bits, which neither the device nor the
    number of threads changes. It tells revisions apart; it is no cryptographic hash.

    Args:
        without: Name prefixes of parameters that do not count.
    """
    digest = hashlib.sha256()
    config = {k: v for k, v in model.config.to_dict().items() if isinstance(v, int | float) or k == "model_type"}
    config = {k: v for k, v in config.items() if k not in ("use_cache",) and not k.endswith("token_id")}
    digest.update(repr(sorted(config.items())).encode())
    bits = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
    for name, value in model.named_parameters():
        if name.startswith(tuple(without)) and without:
            continue
        flat = value.detach().contiguous().view(-1).view(bits[value.element_size()])
        sums = [_exact_sum(flat[::step]) for step in (1, 7, 11)]
        digest.update(repr((name, tuple(value.shape), str(value.dtype), sums)).encode())
    return digest.hexdigest()
