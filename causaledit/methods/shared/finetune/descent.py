"""Gradient descent that keeps every weight within ε of where it started."""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING, Any

import torch

from causaledit.errors import EditFailedError
from causaledit.methods.shared.tracking import step_log

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from causaledit.methods.call import Call
    from causaledit.methods.shared.finetune.hparams import FineTuneHyperParams
    from causaledit.methods.shared.tracking import StepLog
    from causaledit.support.costs import TokenCount
    from causaledit.support.progress import ProgressSink


class ConstrainedAdam:
    """AdamW on some weights, each kept within ±ε of its start (the L∞ constraint of FT).

    Weights of lower precision than float32 are trained as float32 copies, so that small steps are not rounded away.
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
        self.masters = [p if p.dtype == torch.float32 else p.detach().float() for p in self.parameters]
        self.norm_constraint = norm_constraint
        self.starts = [m.detach().clone() for m in self.masters] if norm_constraint is not None else []
        self.adam = torch.optim.AdamW(self.masters, lr=learning_rate, weight_decay=weight_decay)

    @torch.no_grad()
    def step(self, adjust: Callable[[], None] | None = None) -> None:
        """One update from the gradients on the parameters, which are then cleared.

        Args:
            adjust: Called after the update, while the gradients exist; what it writes into parameters stays.
        """
        for parameter, master in zip(self.parameters, self.masters, strict=True):
            master.grad = None if parameter.grad is None else parameter.grad.float()
        self.adam.step()
        if self.norm_constraint is not None:
            for master, start in zip(self.masters, self.starts, strict=True):
                master.clamp_(start - self.norm_constraint, start + self.norm_constraint)
        for parameter, master in zip(self.parameters, self.masters, strict=True):
            parameter.copy_(master)
        if adjust is not None:
            adjust()
            for parameter, master in zip(self.parameters, self.masters, strict=True):
                rounded = master.to(parameter.dtype)
                master.copy_(torch.where(parameter == rounded, master, parameter.float()))
        for parameter in self.parameters:
            parameter.grad = None


def train(
    parameters: Sequence[torch.nn.Parameter],
    losses: Callable[[int], Sequence[Callable[[], torch.Tensor]]],
    hparams: FineTuneHyperParams,
    call: Call,
    *,
    norm_constraint: float | None = None,
    **further: Any,
) -> None:
    """Descend as a method's hyper-parameters say, and put the losses into its report.

    Args:
        parameters: What is trained.
        losses: As for `descend`.
        norm_constraint: How far any single weight may move.
        **further: `penalties` and `adjust`, as for `descend`.

    Raises:
        EditFailedError: A loss is not finite.
    """
    optimizer = ConstrainedAdam(
        parameters,
        learning_rate=hparams.learning_rate,
        weight_decay=hparams.weight_decay,
        norm_constraint=norm_constraint,
    )
    subjects = [request.subject for request in call.report.requests]
    with step_log(hparams, parameters[0].device, stage="train", subjects=subjects) as log:
        call.report.losses["train"] = descend(
            optimizer,
            losses,
            stage="training",
            steps=hparams.steps,
            stop_loss=hparams.stop_loss,
            progress=call.progress,
            count=call.report.tally.tokens,
            log=log,
            **further,
        )


def descend(
    optimizer: ConstrainedAdam,
    losses: Callable[[int], Sequence[Callable[[], torch.Tensor]]],
    *,
    stage: str,
    steps: int,
    stop_loss: float,
    progress: ProgressSink,
    count: TokenCount,
    log: StepLog,
    penalties: Mapping[str, Callable[[], torch.Tensor]] | None = None,
    adjust: Callable[[int], None] | None = None,
) -> list[float]:
    """Take up to `steps` optimiser steps.

    Args:
        losses: For a step's number, its micro-batches: each call gives that part of the step's loss (parts
            add up), so that one graph at a time is in memory.
        stop_loss: Stop once a step's loss is below this.
        log: Gets each step's number, from 1, its loss and its penalties.
        penalties: Further loss terms of each step by name, counted neither in the history nor by the stop rule.
        adjust: Called with the step's number (from 1) after each update, while the gradients exist.

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
        values = {"loss": total}
        if total < stop_loss:  # the weights that gave this loss are good enough
            for parameter in optimizer.parameters:
                parameter.grad = None
            log(step + 1, values)
            break
        for name, penalty in (penalties or {}).items():
            term = penalty()
            term.backward()
            values[name] = float(term.detach())
        log(step + 1, values)
        optimizer.step(None if adjust is None else functools.partial(adjust, step + 1))
        progress.advance(loss=total, tokens=count.generated + count.trained - before)
    progress.finish()
    return history
