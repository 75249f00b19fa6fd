"""The layers below an adapter: what they make of a row is the same at every step, so it is computed once.

An adapter in the upper half of a model leaves the lower half as it was. In a plain training step its layers are run
anyway, which is a third and more of the step where rows come again and again.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import torch

from causaledit.models.batches import unwrapped
from causaledit.models.hooks import replayed, run_until
from causaledit.models.layout import decoder_layers
from causaledit.models.randomness import in_eval_mode, randomness_of
from causaledit.models.scoring import takes_packed_rows

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import nn

# Rows beyond so many bytes are read anew each time.
MOST_BYTES = 512 * 2**20
# Two passes of one model differ by rounding alone.
TOLERANCE = 1e-2


class FrozenLayers:
    """Rows of tokens as they leave the frozen layers of a model, kept by row.

    Args:
        layers: The layers, from the first on; nothing in them may change as long as this lives.
        most_bytes: How much is kept.
    """

    def __init__(self, layers: Sequence[nn.Module], most_bytes: int = MOST_BYTES) -> None:
        self._layers = list(layers)
        self._most_bytes = most_bytes
        self._bytes = 0
        self._kept: dict[tuple[int, ...], torch.Tensor] = {}

    def __len__(self) -> int:
        """How many rows are kept."""
        return len(self._kept)

    def get(self, row: Sequence[int]) -> torch.Tensor | None:
        """A row's `(tokens, hidden)` states, if they are kept."""
        return self._kept.get(tuple(row))

    def keep(self, row: Sequence[int], states: torch.Tensor) -> None:
        """Keep a row's `(tokens, hidden)` states, where there is room."""
        size = states.numel() * states.element_size()
        if tuple(row) not in self._kept and self._bytes + size <= self._most_bytes:
            self._kept[tuple(row)] = states
            self._bytes += size

    def end_with(self, layer: nn.Module | None) -> bool:
        """Whether `layer` is the last of them."""
        return self._layers[-1] is layer

    @torch.no_grad()
    def read(self, model: Any, **inputs: Any) -> torch.Tensor:
        """The states behind the frozen layers, whose pass ends there.

        Args:
            model: The model that they are of.
            **inputs: Of its forward pass.

        Raises:
            TypeError: The layers return more than hidden states.
        """
        output = run_until(unwrapped(model), self._layers[-1], **inputs)[1]
        if not isinstance(output, torch.Tensor):
            raise TypeError("its layers return more than hidden states")
        return output

    @contextlib.contextmanager
    def skipped(self, states: torch.Tensor) -> Iterator[None]:
        """For the block the frozen layers compute nothing, and the next one receives `states`."""
        with contextlib.ExitStack() as stack:
            for layer in self._layers:
                stack.enter_context(replayed(layer, states))
            yield


def frozen_layers(model: Any) -> FrozenLayers | None:
    """The layers before the first one with a trained parameter.

    None where there are none, where rows are not packed, where something else below is trained or draws at random, or
    where a short row shows that the layers above take more from them than hidden states.

    Args:
        model: With its adapter on.
    """
    plain = unwrapped(model)
    path = decoder_layers(plain)
    if path is None or not takes_packed_rows(model):
        return None
    layers = list(plain.get_submodule(path))
    trained = {id(p) for p in plain.parameters() if p.requires_grad}
    first = next((i for i, layer in enumerate(layers) if any(id(p) in trained for p in layer.parameters())), 0)
    above = [module for layer in layers[first:] for module in layer.modules()]
    trained -= {id(p) for module in above for p in module.parameters(recurse=False)}
    inside = {id(module) for module in above}
    if not first or trained or any(randomness_of(module) for module in plain.modules() if id(module) not in inside):
        return None
    found = FrozenLayers(layers[:first])
    return found if _serves(plain, found) else None


def last_below(model: Any, first: int) -> nn.Module | None:
    """The layer before layer `first`; None where there is none, or where rows are not packed."""
    path = decoder_layers(unwrapped(model)) if first and takes_packed_rows(model) else None
    return None if path is None else unwrapped(model).get_submodule(f"{path}.{first - 1}")


@torch.no_grad()
def _serves(plain: Any, layers: FrozenLayers) -> bool:
    """Whether a short row is read alike with the layers and without them."""
    tokens = torch.arange(1, 5, device=plain.device)[None] % plain.get_input_embeddings().weight.shape[0]
    try:
        with in_eval_mode(plain):  # what is above may draw
            whole = plain(input_ids=tokens, use_cache=False).logits
            states = layers.read(plain, input_ids=tokens, use_cache=False)
            with layers.skipped(states):
                again = plain(input_ids=tokens, use_cache=False).logits
    except (TypeError, ValueError, RuntimeError, AttributeError, KeyError, IndexError):
        return False
    return bool(torch.allclose(whole.float(), again.float(), rtol=TOLERANCE, atol=TOLERANCE))
