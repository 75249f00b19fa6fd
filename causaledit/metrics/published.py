"""Single values of published metrics files, read as they are: keys missing, `None`, a text in place of an object."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from causaledit.facts.rewrites import text_in

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True)
class Prediction:
    """One prediction object of a metrics file, read tolerantly.

    Attributes:
        question: The question behind the prompt, or the prompt.
        prompt: The user message.
        response: The model's whole turn; None where there is none.
        references: Reference answers.
    """

    question: str
    prompt: str
    response: str | None
    references: tuple[str, ...]


def read_prediction(prediction: Any, key: str = "pred") -> Prediction:
    """Read a prediction object, or the bare text that may stand in its place; `key` holds the response."""
    return Prediction(
        question=asked_or_prompt(prediction),
        prompt=prompt_of(prediction),
        response=response_of(prediction, key),
        references=tuple(references_of(prediction)),
    )


def as_list(value: Any) -> list[Any]:
    """The value where it is a list."""
    return value if isinstance(value, list) else []


def present(predictions: list[Any]) -> Iterator[tuple[int, Any]]:
    """Predictions with their places; an empty place was not asked (an open-book twin without a narrative)."""
    return ((place, prediction) for place, prediction in enumerate(predictions) if prediction is not None)


def hop_lists(value: Any) -> list[list[Any]]:
    """Predictions by hop of the chain."""
    return [as_list(hop) for hop in as_list(value)]


def references_of(prediction: Any) -> list[str]:
    """Reference answers without the empty ones and without repetitions."""
    value = prediction.get("ref") if isinstance(prediction, Mapping) else None
    values = value if isinstance(value, list) else [value]
    return list(dict.fromkeys(answer for answer in map(text_in, values) if answer))


def rivals_of(prediction: Any) -> tuple[str, ...]:
    """Answers that a prediction might give instead of its references; ours note them for multi-hop questions."""
    value = prediction.get("rivals") if isinstance(prediction, Mapping) else None
    return tuple(answer for answer in map(text_in, as_list(value)) if answer)


def prompt_of(prediction: Any) -> str:
    """The user message the model saw."""
    return text_in(prediction.get("prompt")) if isinstance(prediction, Mapping) else ""


def question_of(prediction: Any) -> str:
    """The question without cues, where the file has it."""
    if not isinstance(prediction, Mapping):
        return ""
    return text_in(prediction.get("q")) or text_in(prediction.get("question"))


def asked_or_prompt(prediction: Any) -> str:
    """The question without cues, else the prompt."""
    return question_of(prediction) or prompt_of(prediction)


def response_of(prediction: Any, key: str) -> str | None:
    """The model's whole turn, including a forced opening."""
    if not isinstance(prediction, Mapping):
        return prediction if isinstance(prediction, str) and key == "pred" else None
    value = prediction.get(key)
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if not isinstance(value, str):
        return None
    prefix = prediction.get("forced_prefix")
    if key == "pred" and isinstance(prefix, str) and not value.lstrip().startswith(prefix.strip()):
        return f"{prefix.rstrip()} {value.lstrip()}"
    return value
