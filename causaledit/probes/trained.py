"""Which probes an edit was trained on: their answers show what was learnt, not what follows from it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from causaledit.facts.text import normalise

if TYPE_CHECKING:
    from collections.abc import Iterable


class TrainedPrompts:
    """The user prompts that a method trained on; `in` asks whether a probe's prompt is one, but for case and spacing.

    Args:
        prompts: As in the method's report (`MethodReport.trained_prompts`).
    """

    def __init__(self, prompts: Iterable[str] = ()) -> None:
        self._texts = frozenset(map(normalise, prompts)) - {""}

    def __contains__(self, prompt: str) -> bool:
        return normalise(prompt) in self._texts
