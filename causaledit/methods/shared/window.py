"""Whether what a method gives the model fits into its context window."""

from __future__ import annotations

from typing import TYPE_CHECKING

from causaledit.errors import RequestError
from causaledit.models.batches import context_window

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def check_length(model: PreTrainedModel, tokens: int, what: str) -> None:
    """Refuse a text that is longer than the model's context window; nothing is ever cut.

    Args:
        tokens: Its length, including what is to follow it.
        what: Its name in the message.

    Raises:
        RequestError: It is too long.
    """
    window = context_window(model)
    if window and tokens > window:
        raise RequestError(f"{what} has {tokens} tokens, and the model's context window is {window}: shorten it.")
