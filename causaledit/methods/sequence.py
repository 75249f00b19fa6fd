"""What the edits of one sequence share.

A host makes one `EditSequence` per model and passes it as `sequence=` to each edit that stays in the weights and
has the earlier ones below it. An edit without one is independent: it knows of no other edit, and no other edit
comes to know of it. A method that remembers nothing ignores it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

Memory = TypeVar("Memory")


class EditSequence:
    """The methods' memories of one sequence of edits, by method name."""

    def __init__(self) -> None:
        self._memories: dict[str, Any] = {}

    def memory(self, method: str, make: Callable[[], Memory]) -> Memory:
        """The method's memory, made by `make` at its first edit; written to by edits that succeeded."""
        return self._memories.setdefault(method, make())
