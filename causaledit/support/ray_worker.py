"""One process on Ray: it makes what it is told to, keeps it, and calls its methods."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from causaledit.errors import CausalEditError

if TYPE_CHECKING:
    from collections.abc import Callable


class RayWorker:
    """What a driver calls from another process; Ray makes an actor of it."""

    def __init__(self) -> None:
        self._tools: dict[str, Any] = {}

    def call(self, key: str, make: Callable[[], Any], method: str, *arguments: Any) -> dict[str, Any]:
        """Call a method of a tool, which is made where this process has none of that key.

        Errors come back as data: the driver decides what they mean, and says a reason once.

        Args:
            key: The tool's name here.
            make: Makes it.
            method: Its method.
            arguments: The method's.

        Returns:
            `result`, and `versions` where the tool was made; or what `as_data` says of an error.
        """
        from causaledit.support.costs import versions

        try:
            found: dict[str, Any] = {}
            if key not in self._tools:
                self._tools[key] = make()
                found["versions"] = versions()
            return {**found, "result": getattr(self._tools[key], method)(*arguments)}
        except Exception as error:
            return as_data(error)


def as_data(error: Exception) -> dict[str, Any]:
    """An error as plain data: `error`, the text; `ours`, whether it is one of ours; `kind`, the name of its class."""
    lines = str(error).strip().splitlines()
    text = str(error) if isinstance(error, CausalEditError) else f"{type(error).__name__}: {lines[0] if lines else ''}"
    return {"error": text, "ours": isinstance(error, CausalEditError), "kind": type(error).__name__}
