"""One question to two models: the one before the edit, and the edited one."""

from __future__ import annotations

import threading
from typing import Any, Self

from causaledit.errors import ModelError
from causaledit.models.loading import LoadedModel, load_model
from causaledit.models.saving import template_kwargs_of
from causaledit.probes.asking import Prober


class BeforeAndAfter:
    """Both models, ready to be asked.

    An adapter that stands on the base model itself is loaded once: it is switched off for the answer before the edit.

    Args:
        before: The model before the edit; None where the edited one is an adapter to be switched off.
        after: The edited model.
        template_kwargs: Further arguments of the chat template, in which the edit was made.
    """

    def __init__(
        self, before: LoadedModel | None, after: LoadedModel, template_kwargs: dict[str, Any] | None = None
    ) -> None:
        self._before, self._after = before, after
        self._template_kwargs = template_kwargs
        self._one_at_a_time = threading.Lock()

    @classmethod
    def load(cls, edited: str, base: str, *, own_base: bool, device: str = "auto") -> Self:
        """Load both.

        Args:
            edited: The folder of the edited model or adapter.
            base: The model before the edit.
            own_base: Whether `base` is the model that an adapter in `edited` stands on by itself.
            device: As in `load_model`.

        Raises:
            ModelError: One of them cannot be loaded.
        """
        after = load_model(edited, device=device, argument="MODEL")
        if own_base and hasattr(after.model, "disable_adapter"):
            return cls(None, after, template_kwargs_of(edited))
        try:
            before = load_model(base, device=device, argument="--base")
        except ModelError as error:
            raise ModelError(f"The model before the edit: {error} Another one can be given with --base.") from None
        return cls(before, after, template_kwargs_of(edited))

    def before(self, question: str, *, max_new_tokens: int) -> str:
        """The answer before the edit: greedy, in the chat format of the edit.

        Args:
            question: The user message.
            max_new_tokens: Maximum length of an answer, in tokens.

        Raises:
            ModelError: The question leaves no room for an answer in the model's context window.
        """
        if self._before is not None:
            return self._answer(self._before, question, max_new_tokens)
        adapted: Any = self._after.model
        with self._one_at_a_time, adapted.disable_adapter():
            return self._answer(self._after, question, max_new_tokens)

    def after(self, question: str, *, max_new_tokens: int) -> str:
        """The answer after the edit; as `before`."""
        with self._one_at_a_time:
            return self._answer(self._after, question, max_new_tokens)

    def _answer(self, loaded: LoadedModel, question: str, max_new_tokens: int) -> str:
        prober = Prober(loaded.tokenizer, max_new_tokens=max_new_tokens, template_kwargs=self._template_kwargs)
        try:
            prober.check_window(loaded.model, [question])
        except ModelError:
            raise ModelError("The question and an answer of this length exceed the model's context window.") from None
        [answer] = prober.ask(loaded.model, [question])
        return answer
