"""Where a module draws at random while it is trained, and a block in which a model does not."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from torch.nn.modules.dropout import _DropoutNd

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import nn

# what the settings of a module's own randomness are called: `dropout`, `attn_dropout_p`, `layerdrop`, `jitter_noise`
_RANDOMNESS = ("drop", "jitter")


@contextlib.contextmanager
def in_eval_mode(model: nn.Module) -> Iterator[None]:
    """For the block the model is in evaluation mode; behind it, as it was."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)


def randomness_of(module: nn.Module) -> list[tuple[str, float]]:
    """A module's own settings by which it draws at random, those that are off left out.

    Many models (OPT, BLOOM, MPT) keep a number and call the function instead of having a dropout module.
    """
    return [
        (name, value)
        for name, value in vars(module).items()
        if isinstance(value, float | int) and not isinstance(value, bool) and value
        if (name == "p" and isinstance(module, _DropoutNd)) or any(word in name for word in _RANDOMNESS)
    ]
