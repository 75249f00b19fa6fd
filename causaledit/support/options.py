"""Dataclass fields that are also options of the command line: default, help and bounds are defined once."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


def option(
    default: Any = dataclasses.MISSING,
    help_text: str = "",
    *,
    flag: str | None = None,
    min: float | None = None,
    max: float | None = None,
    envvar: str | None = None,
    from_text: Callable[[str], Any] | None = None,
    to_text: Callable[[Any], str] | None = None,
    choices: tuple[str, ...] | None = None,
    of: tuple[str, tuple[str, ...]] | None = None,
) -> Any:
    """A dataclass field with what the command line says about it.

    Args:
        default: The default; without it, the option is required.
        help_text: One sentence.
        flag: Its flag, where that is not `--` and the field's name; `--yes/--no` gives both.
        min: Smallest value.
        max: Largest value.
        envvar: Environment variable that gives the value where the option does not.
        from_text: Reads the option's text, where the field is not a plain value.
        to_text: Writes the default for the help.
        choices: Values that there are, where options belong to some of them.
        of: Field and its values without which this one has no effect: given beside another value, it is refused. No
            values: that field must be given.
    """
    rules = {
        "help": help_text, "flag": flag, "min": min, "max": max, "envvar": envvar,
        "from_text": from_text, "to_text": to_text, "choices": choices, "of": of,
    }  # fmt: skip
    metadata = {name: value for name, value in rules.items() if value is not None}
    return dataclasses.field(default=default, metadata=metadata)
