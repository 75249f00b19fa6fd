"""Errors a user can act on. Each message names the argument, its value and the fix.

The rule: bad input raises one of these before any compute is spent; something the method can work
around is a `logging` warning; a choice it made on its own is logged at INFO.
"""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


class CausalEditError(Exception):
    """Base of every error raised on purpose. `exit_code` is what the command line ends with."""

    exit_code = 1


class RequestError(CausalEditError, ValueError):
    """An edit request is unusable (subject, prompt, answers or narrative)."""

    exit_code = 2


class HparamsError(CausalEditError, ValueError):
    """A hyper-parameter file or value is unusable."""

    exit_code = 2


class ModelError(CausalEditError, ValueError):
    """A model, tokenizer or device is unusable."""

    exit_code = 2


class HostError(CausalEditError, RuntimeError):
    """The editing host (EasyEdit or the embedded one) cannot do what was asked."""

    exit_code = 2


class SaveError(CausalEditError, OSError):
    """A result cannot be written."""


class EditFailedError(CausalEditError, RuntimeError):
    """The edit itself went wrong (for example a loss that is not finite); the model was restored."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return `" Did you mean 'x'?"` for the known name nearest to `name`, or an empty string."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f" Did you mean {close[0]!r}?" if close else ""
