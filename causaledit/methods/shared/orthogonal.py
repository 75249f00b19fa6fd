"""Orthogonal edits: in a sequence, each edit's adapter keeps to input directions that earlier ones have left free.

Not in the paper. The update of a layer, ΔW = (α/r)·B·A, reads its input through the rows of A. With `orthogonal_edits`
these rows are kept orthogonal to those of the earlier edits' adapters (O-LoRA, arXiv 2310.14152, section 3.2, which
penalises what they have in common; here it is projected away after each optimiser step): a later edit then leaves the
layer's response to what an earlier one reads as it is.
"""

from __future__ import annotations

import contextlib
import logging
from typing import TYPE_CHECKING, Any

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch.optim.optimizer import register_optimizer_step_post_hook

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from causaledit.methods.method import EditSequence

logger = logging.getLogger(__name__)

# Earlier edits take up at most so much of a layer's input; then the oldest directions are free again.
LARGEST_SHARE = 0.5


class Directions:
    """The input directions of each layer that a sequence's adapters read (a `StoredMemory`)."""

    def __init__(self) -> None:
        self._taken: dict[str, list[torch.Tensor]] = {}  # per layer and edit, orthonormal rows [rank, inputs]

    def __len__(self) -> int:
        return max(map(len, self._taken.values()), default=0)

    def bases(self, rows: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """What is taken of each layer, beside the matrices that are to be cleared of it.

        Args:
            rows: By layer, A's weight, shape [rank, inputs].

        Returns:
            By layer, orthonormal rows, shape [directions, inputs]; layers without any are left out.
        """
        return {name: torch.cat(self._taken[name]).to(rows[name]) for name in rows if name in self._taken}

    @torch.no_grad()
    def take(self, rows: Mapping[str, torch.Tensor]) -> None:
        """Note the directions of an edit that was made; of a layer that is full the oldest are given up.

        Args:
            rows: As for `bases`.
        """
        full = False
        for name, matrix in rows.items():
            taken = self._taken.setdefault(name, [])
            taken.append(torch.linalg.qr(matrix.detach().float().cpu().T).Q.T.contiguous())
            while len(taken) > 1 and sum(map(len, taken)) > LARGEST_SHARE * matrix.shape[1]:
                del taken[0]
                full = True
        if full:
            logger.warning(
                "`orthogonal_edits`: half of a layer's inputs are taken; from here on each edit frees the directions "
                "of the oldest. A smaller `lora_rank` holds more edits apart."
            )

    def constants(self) -> dict[str, Any]:
        """See `StoredMemory`: there are none."""
        return {}

    def state(self) -> dict[str, Any]:
        """See `StoredMemory`."""
        return {"taken": {name: list(taken) for name, taken in self._taken.items()}}

    def load(self, constants: dict[str, Any], state: dict[str, Any]) -> None:
        """See `StoredMemory`."""
        self._taken = {name: list(taken) for name, taken in state["taken"].items()}


@contextlib.contextmanager
def kept_orthogonal(model: torch.nn.Module, hparams: Any, sequence: EditSequence | None) -> Iterator[None]:
    """For the block, in which an adapter is put on and trained, hold it apart from the sequence's earlier ones.

    Nothing is done for an independent edit, or without `orthogonal_edits`. What the edit reads is noted once the block
    has succeeded.

    Args:
        model: The plain network that the adapter is put on.
        hparams: The method's.
        sequence: Of the edit.
    """
    if sequence is None or not getattr(hparams, "orthogonal_edits", False):
        yield
        return
    directions = sequence.memory(f"{hparams.alg_name}: directions", Directions)
    trained: dict[str, torch.Tensor] = {}  # outlives the adapter, which is merged before the block ends
    bases: dict[str, torch.Tensor] = {}

    @torch.no_grad()
    def clear(*_: Any) -> None:
        if not trained:  # the first step: the adapter is on
            trained.update(_input_rows(model))
            bases.update(directions.bases(trained))
        for name, basis in bases.items():
            trained[name] -= (trained[name] @ basis.T) @ basis

    hook = register_optimizer_step_post_hook(clear)
    try:
        yield
    finally:
        hook.remove()
    directions.take(trained)


def _input_rows(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The A of each layer's trained adapter, by the layer's name."""
    return {
        name: adapter.weight
        for name, module in model.named_modules()
        if isinstance(module, BaseTunerLayer)
        for adapter in getattr(module, "lora_A", {}).values()
        if adapter.weight.requires_grad
    }
