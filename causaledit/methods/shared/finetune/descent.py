"""Gradient descent that keeps every weight within ε of where it started."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from causaledit.errors import EditFailedError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from causaledit.support.costs import TokenCount
    from causaledit.support.progress import ProgressSink


class ConstrainedAdam:
    """AdamW on float32 copies of some weights, each kept within ±ε of its start (the L∞ constraint of FT).

    The copies keep small steps alive in half-precision models.
    """

    def __init__(
        self,
        parameters: Sequence[torch.nn.Parameter],
        *,
        learning_rate: float,
        weight_decay: float,
        norm_constraint: float | None,
    ) -> None:
        self.parameters = list(parameters)
        for parameter in self.parameters:
            parameter.requires_grad_(True)
        self.masters = [p.detach().float().clone() for p in self.parameters]
        self.norm_constraint = norm_constraint
        self.starts = [m.clone() for m in self.masters] if norm_constraint is not None else []
        self.adam = torch.optim.AdamW(self.masters, lr=learning_rate, weight_decay=weight_decay)

    @torch.no_grad()
    def step(self) -> None:
        """One update from the gradients on the parameters, which are then cleared."""
        for parameter, master in zip(self.parameters, self.masters, strict=True):
            master.grad = None if parameter.grad is None else parameter.grad.float()
            parameter.grad = None
        self.adam.step()
        epsilon = self.norm_constraint
        for master, start in zip(self.masters, self.starts, strict=False):
            master.clamp_(start - epsilon, start + epsilon)
        for parameter, master in zip(self.parameters, self.masters, strict=True):
            parameter.copy_(master)


def descend(
    optimizer: ConstrainedAdam,
    losses: Callable[[int], Sequence[Callable[[], torch.Tensor]]],
    *,
    stage: str,
    steps: int,
    stop_loss: float,
    progress: ProgressSink,
    count: TokenCount,
) -> list[float]:
    """Take up to `steps` optimiser steps.

    Args:
        losses: For a step's number, its micro-batches: each call gives that part of the step's loss (parts
            add up), so that one graph at a time is in memory.
        stop_loss: Stop once a step's loss is below this.

    Returns:
        The loss of each step.

    Raises:
        EditFailedError: A loss is not finite.
    """
    history: list[float] = []
    progress.start(stage, steps)
    for step in range(steps):
        before, total = count.generated + count.trained, 0.0
        for part in losses(step):
            loss = part()
            total += float(loss.detach())
            if not math.isfinite(total):
                raise EditFailedError(
                    f"The loss became {total} at step {step + 1}: lower the learning rate. The model is restored."
                )
            loss.backward()
        history.append(total)
        if total < stop_loss:  # what it is at is good enough: no further update
            for parameter in optimizer.parameters:
                parameter.grad = None
            break
        optimizer.step()
        progress.advance(loss=total, tokens=count.generated + count.trained - before)
    progress.finish()
    return history
