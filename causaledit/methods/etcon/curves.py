"""What a trainer logs beside its loss, step by step."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback

if TYPE_CHECKING:
    from collections.abc import Sequence


class Curves(TrainerCallback):
    """Keeps the values that a trainer logs under some names.

    Attributes:
        found: Name → one value per log that had it, in order; names that never came are missing.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._names = tuple(names)
        self.found: dict[str, list[float]] = {}

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        """Read one log; the closing one, of the whole training, has none of the names."""
        for name in self._names:
            value = (logs or {}).get(name)
            if value is not None:
                self.found.setdefault(name, []).append(float(value))
