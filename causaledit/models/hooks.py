"""Looking into a forward pass and changing it, as context managers that leave nothing behind."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import nn


class _Reached(Exception):
    """Ends a forward pass whose rest nobody needs."""


def hidden(output: Any) -> torch.Tensor:
    """The hidden states in a module's output, which is a tensor or a tuple that starts with one."""
    return output if isinstance(output, torch.Tensor) else output[0]


def with_hidden(output: Any, states: torch.Tensor) -> Any:
    """The same output with other hidden states."""
    return states if isinstance(output, torch.Tensor) else (states, *output[1:])


@contextlib.contextmanager
def watched(module: nn.Module, look: Callable[[torch.Tensor, Any], None]) -> Iterator[None]:
    """Call `look(input, output)` at each pass through a module; both are detached from nothing."""

    def hook(_: nn.Module, args: tuple, kwargs: dict[str, Any], output: Any) -> None:
        look(args[0] if args else next(iter(kwargs.values())), output)

    handle = module.register_forward_hook(hook, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


@contextlib.contextmanager
def altered(module: nn.Module, change: Callable[[torch.Tensor], torch.Tensor]) -> Iterator[None]:
    """Replace a module's hidden states by `change(hidden states)`."""

    def hook(_: nn.Module, __: tuple, output: Any) -> Any:
        return with_hidden(output, change(hidden(output)))

    handle = module.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


@contextlib.contextmanager
def narrowed(module: nn.Module, select: Callable[[torch.Tensor], torch.Tensor]) -> Iterator[None]:
    """Let a module see `select(input)`: the output layer then works on the wanted positions alone."""
    handle = module.register_forward_pre_hook(lambda _, args: (select(args[0]), *args[1:]))
    try:
        yield
    finally:
        handle.remove()


@contextlib.contextmanager
def replayed(module: nn.Module, output: Any) -> Iterator[None]:
    """Let a module return a recorded output without computing anything."""
    missing = object()
    before = vars(module).get("forward", missing)  # accelerate may have put one there
    module.forward = lambda *args, **kwargs: output
    try:
        yield
    finally:
        if before is missing:
            del module.forward
        else:
            module.forward = before


def run_until(model: nn.Module, module: nn.Module, **inputs: Any) -> tuple[torch.Tensor, Any]:
    """Run the model up to and including a module, and return that module's input and output."""
    seen: list[Any] = []

    def look(received: torch.Tensor, output: Any) -> None:
        seen.extend((received, output))
        raise _Reached

    with watched(module, look), contextlib.suppress(_Reached):
        model(**inputs)
    return seen[0], seen[1]
