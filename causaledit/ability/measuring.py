"""Ability before and after edits: one object that measures the unedited model, then edited ones."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any

from causaledit.ability.bundled import bundled_text
from causaledit.ability.drift import TextDrift
from causaledit.ability.harness import run_tasks
from causaledit.ability.scores import Ability
from causaledit.models.network import network_of

if TYPE_CHECKING:
    from causaledit.ability.tasks import AbilityTasks

logger = logging.getLogger(__name__)


class AbilityMeter:
    """Measures an unedited model, and what edits left of its ability.

    Args:
        tasks: What is measured.
        model: The unedited model; left as it is.
        tokenizer: Its tokenizer.
        known: What an earlier process measured of the unedited model.
    """

    def __init__(self, tasks: AbilityTasks, model: Any, tokenizer: Any, known: Ability | None = None) -> None:
        self.tasks, self.tokenizer = tasks, tokenizer
        self.text = TextDrift(model, tokenizer, bundled_text()) if tasks.drift else None
        if known is None:
            began = time.perf_counter()
            scores = run_tasks(model, tokenizer, tasks)
            drift = self.text.before if self.text else None
            known = Ability(scores, drift, time.perf_counter() - began)
        self.before = known

    def after(self, model: Any) -> Ability | None:
        """Measure an edited model; None where its edits live elsewhere than in a network (facts in a prompt)."""
        if getattr(model, "in_context_prefix", None):  # what lm-eval asks would not be put behind it
            logger.warning("ability is not measured: the edits are in the prompt, not in the model")
            return None
        network = network_of(model)
        began = time.perf_counter()
        scores = run_tasks(network, self.tokenizer, self.tasks)
        drift = self.text.after(network) if self.text else None
        return Ability(scores, drift, time.perf_counter() - began)
