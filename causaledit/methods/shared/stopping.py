"""Callbacks that look at an edit while it is trained: whether the fact is learnt, and whether a step went too far."""

from __future__ import annotations

import contextlib
import functools
import logging
from typing import TYPE_CHECKING, Any

import torch
from transformers import TrainerCallback

from causaledit.methods.shared.processes import agreed
from causaledit.models.frozen import frozen_layers
from causaledit.models.randomness import in_eval_mode
from causaledit.models.scoring import mean_log_probabilities
from causaledit.models.sharded import rows_apart
from causaledit.support.launch import launched

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from peft import PeftModel

    from causaledit.methods.shared.preservation import PreservationSet
    from causaledit.models.frozen import FrozenLayers

logger = logging.getLogger(__name__)

EVERY = 4


@contextlib.contextmanager
def evaluating(model: Any) -> Iterator[None]:
    """For the block the model has no dropout and no gradients, and all processes read the same rows."""
    with in_eval_mode(model), torch.no_grad(), rows_apart(model, apart=False):
        yield


class FactStop(TrainerCallback):
    """Stops training once the student says the new facts by itself.

    Args:
        model: The student.
        rows: Rows of trl's SFTTrainer whose completions are the facts.
        wanted: Mean log-probability per token, over all rows, at which the facts count as learnt.
        every: It is looked at after so many steps.
    """

    def __init__(self, model: PeftModel, rows: Sequence[dict[str, Any]], wanted: float, every: int = EVERY) -> None:
        self.model = model
        self.wanted = wanted
        self.every = every
        lengths = [sum(row["completion_mask"]) for row in rows]
        self.contexts = [row["input_ids"][:-n] for row, n in zip(rows, lengths, strict=True)]
        self.facts = [row["input_ids"][-n:] for row, n in zip(rows, lengths, strict=True)]

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Look, and stop."""
        if state.global_step % self.every:
            return
        with evaluating(self.model):
            found = mean_log_probabilities(self.model, self.contexts, self.facts)
        mean = agreed(sum(found) / len(found), self.model.device)
        logger.debug("step %d: log p of the new facts %.3f", state.global_step, mean)
        if mean >= self.wanted:
            control.should_training_stop = True


class TrustRegion(TrainerCallback):
    """Takes back a step that takes the student much farther from the model before the edit, on questions kept aside.

    Args:
        model: The student; its trainable weights are what a step changes.
        held_out: Questions that are kept aside (one of them may be trained with its answer begun), with the answers of
            the model before the edit; in a sequence it holds the edits before this one.
        most: By how much a step may raise the mean KL(before‖student) over their answers, in nats a token.

    Attributes:
        taken_back: How many steps were.
    """

    def __init__(self, model: PeftModel, held_out: PreservationSet, most: float) -> None:
        self.model = model
        self.held_out = held_out
        self.most = most
        self.taken_back = 0
        self._kl: float | None = None
        self._before: list[torch.Tensor] = []

    @functools.cached_property
    def _below(self) -> FrozenLayers | None:
        """The layers below the adapter, which make the same of the questions after every step."""
        return frozen_layers(self.model) if launched() == 1 else None

    def _distance(self) -> float:
        with evaluating(self.model):
            return agreed(float(self.held_out.next_loss(self.model, below=self._below)), self.model.device)

    def _weights(self) -> list[torch.nn.Parameter]:
        return [weight for weight in self.model.parameters() if weight.requires_grad]

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Remember the weights."""
        if self._kl is None:
            self._kl = self._distance()
        self._before = [weight.detach().clone() for weight in self._weights()]

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Keep the step, or put the weights back."""
        found = self._distance()
        if self._kl is not None and found > self._kl + self.most:
            with torch.no_grad():
                for weight, before in zip(self._weights(), self._before, strict=True):
                    weight.copy_(before)
            self.taken_back += 1
            logger.info("step %d is taken back: KL %.3f after %.3f", state.global_step, found, self._kl)
        else:
            self._kl = found
