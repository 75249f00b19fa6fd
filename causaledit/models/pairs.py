"""A model and its tokenizer, as a caller hands them over: told apart, and refused where they are something else."""

from __future__ import annotations

from typing import Any

from causaledit.errors import ModelError

_FIX = "give a causal LM of transformers and its tokenizer, in that order"


def check_pair(model: Any, tokenizer: Any) -> None:
    """Refuse what is no model or no tokenizer.

    Raises:
        ModelError: One of the two is something else, or they are the wrong way round.
    """
    if is_tokenizer(model) and is_model(tokenizer):
        raise ModelError(
            f"The model and the tokenizer are the wrong way round ({type(model).__name__} comes first): {_FIX}."
        )
    if not is_model(model):
        raise ModelError(f"The model is {_named(model)}: {_FIX}.")
    if not is_tokenizer(tokenizer):
        raise ModelError(f"The tokenizer is {_named(tokenizer)}: {_FIX}.")


def is_model(value: Any) -> bool:
    """Whether a value is a network with a configuration, or something around one."""
    return not isinstance(value, type) and all(hasattr(value, name) for name in ("named_parameters", "config"))


def is_tokenizer(value: Any) -> bool:
    """Whether a value turns texts into tokens and back."""
    return (
        not isinstance(value, type) and callable(value) and all(hasattr(value, n) for n in ("decode", "eos_token_id"))
    )


def _named(value: Any) -> str:
    if isinstance(value, type):
        return f"the class {value.__name__} itself"
    return "None" if value is None else f"of type {type(value).__name__}"
