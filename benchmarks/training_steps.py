"""How long a step of training takes: what benchmarks of steps share."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from causaledit.models.adapters import add_adapter, forget_adapter

if TYPE_CHECKING:
    from collections.abc import Callable


def seconds_per_step(model: Any, hparams: Any, train: Callable[[Any], Any]) -> float:
    """Let `train` take `max_steps` steps with a fresh adapter, and take that off again."""
    adapted = add_adapter(model, hparams)
    began = time.perf_counter()
    train(adapted)
    spent = time.perf_counter() - began
    adapted.unload()
    forget_adapter(model)
    return spent / hparams.max_steps


def fastest(rounds: int, ways: dict[str, Callable[[], float]]) -> dict[str, float]:
    """The least of each way's seconds over some rounds, in which the ways take turns."""
    found = [{name: measure() for name, measure in ways.items()} for _ in range(rounds)]
    return {name: min(seconds[name] for seconds in found) for name in ways}
