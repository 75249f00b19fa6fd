"""A model that carries facts in its prompts instead of in its weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from causaledit.errors import SaveError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from causaledit.facts.requests import EditRequest


class InContextModel:
    """A plain model with a text for the start of every prompt; everything else is the model's own.

    Calls, generation and attributes go to the model unchanged. The text takes effect wherever prompts are made
    through `models.chat.render_for` or `with_context`.

    Attributes:
        plain: The model, whose weights are never touched.
        edits: The facts, oldest first.
        in_context_prefix: The text that `models.chat` puts before prompts.
    """

    def __init__(self, plain: Any, edits: Sequence[EditRequest], prefix: str) -> None:
        self.plain = plain
        self.edits = tuple(edits)
        self.in_context_prefix = prefix

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.plain(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        if name == "plain" or name.startswith("__"):  # while this is being copied, there is no model yet
            raise AttributeError(name)
        return getattr(self.plain, name)

    def get_base_model(self) -> Any:
        """The plain model, by the name that wrappers of peft give it."""
        return self.plain

    def save_pretrained(self, *args: Any, **kwargs: Any) -> None:
        """Refuse: the weights are those of the unedited model, so there is nothing to save.

        Raises:
            SaveError: Always.
        """
        raise SaveError(
            "An in-context edit changes no weights, so there is no edited model to save: keep its text "
            "(`in_context_prefix`), or edit with a method that changes weights."
        )
