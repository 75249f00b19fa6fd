"""What the keys of published configuration files mean here, where we have no setting of the same name.

A method lists them in one table, `PUBLISHED_KEYS`, from which loading, the "did you mean" and docs/hparams.md come.
A key's entry is the name of our setting (the same thing under another name), or one of the classes below.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


@dataclass(frozen=True)
class Converted:
    """One of our settings, whose value is written in another way.

    Attributes:
        setting: Its name here.
        convert: Our value for the file's; raises HparamsError where there is none.
        reading: How a value is read, in words.
    """

    setting: str
    convert: Callable[[Any], Any]
    reading: str


@dataclass(frozen=True)
class Ignored:
    """Read, but not needed.

    Attributes:
        reason: Why not, in words.
        warn: Whether to warn, because the edit then differs from what other readers of the file would do.
    """

    reason: str
    warn: bool = False


@dataclass(frozen=True)
class OnlyAt:
    """Accepted with the values that ask for nothing, refused with any other.

    Attributes:
        values: The values that ask for nothing.
        reason: Why the others are refused, and what to do.
    """

    values: tuple[Any, ...]
    reason: str

    def accepts(self, value: Any) -> bool:
        """Whether a value asks for nothing. Files may write numbers as text, and 0 for false."""
        with contextlib.suppress(ValueError):
            value = float(value) if isinstance(value, str) else value
        return value in self.values


@dataclass(frozen=True)
class Refused:
    """Not possible here.

    Attributes:
        reason: Why, and what to do.
    """

    reason: str


PublishedKey = str | Converted | Ignored | OnlyAt | Refused


def key_rows(table: Mapping[str, PublishedKey]) -> list[tuple[str, str]]:
    """A table in words, `(key, meaning)` rows in its order, as docs/hparams.md shows it."""
    return [(key, _in_words(entry)) for key, entry in table.items()]


def _in_words(entry: PublishedKey) -> str:
    if isinstance(entry, str):
        return f"the same as `{entry}`"
    if isinstance(entry, Converted):
        return f"`{entry.setting}`: {entry.reading}"
    if isinstance(entry, Ignored):
        return f"{'ignored, with a warning' if entry.warn else 'read, not needed'}: {entry.reason}"
    if isinstance(entry, OnlyAt):
        values = ", ".join(_yaml(value) for value in entry.values)
        return f"only {values}: {entry.reason}"
    return f"refused: {entry.reason}"


def _yaml(value: Any) -> str:
    return {None: "null", False: "false", True: "true"}.get(value, str(value)) if value != 0 or value is False else "0"
