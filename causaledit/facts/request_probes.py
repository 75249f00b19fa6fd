"""Probes that come with an edit (paraphrases, locality, portability), in every form that data sets use."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from causaledit.errors import RequestError
from causaledit.facts.request_texts import clean_text, items, read_answers, read_text


@dataclasses.dataclass(frozen=True)
class QuestionAnswer:
    """A question with its right answer (a paraphrase, a locality probe, a CAKE learning question).

    Attributes:
        question: A question or the beginning of a sentence.
        answer: What is right.
        aliases: Further names of the answer, each as right.
    """

    question: str
    answer: str
    aliases: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("question", "answer"):
            object.__setattr__(self, name, clean_text(getattr(self, name)))

    @property
    def answers(self) -> tuple[str, ...]:
        """The answer and its aliases."""
        return (self.answer, *self.aliases)


def read_questions(value: Any, name: str, default_answers: tuple[str, ...] = ("",)) -> tuple[QuestionAnswer, ...]:
    """Questions as texts or as `{question, answer}` objects, one or a list; None stands for none.

    Args:
        value: What the request holds under `name`.
        default_answers: The answer, with its aliases, of a question that comes without one.

    Raises:
        RequestError: One of them is something else; the message says where.
    """
    if not value:
        return ()
    listed = items(value)
    found = []
    for i, item in enumerate([value] if listed is None else listed):
        place = name if listed is None else f"{name}[{i}]"
        if item is None:
            continue
        if not isinstance(item, str | Mapping) or (isinstance(item, Mapping) and not item.get("question")):
            raise RequestError(f"`{place}` is {item!r}: expected a text or an object with `question`.")
        question, answer = (item, None) if isinstance(item, str) else (item["question"], item.get("answer"))
        answers = read_answers(answer, f"{place}['answer']") or default_answers
        found.append(QuestionAnswer(read_text(question, place), answers[0], answers[1:]))
    return tuple(found)


def read_probe_groups(groups: Any, name: str) -> dict[str, tuple[QuestionAnswer, ...]]:
    """`{key: {"prompt", "ground_truth"}}` of EasyEdit, or `{key: [{"prompt", "ground_truth"}, …]}` of KnowEdit.

    Args:
        groups: What a request holds under `name` (`locality`, `portability`).

    Returns:
        The probes by key; a key without prompts has none.

    Raises:
        RequestError: A group has another form; the message names key, index and fix.
    """
    if groups is None:
        return {}
    if not isinstance(groups, Mapping):
        raise RequestError(f"`{name}` must be an object of groups, {{key: {{prompt, ground_truth}}}}, got {groups!r}.")
    return {str(key): _read_group(group, f"{name}[{key!r}]") for key, group in groups.items()}


def _read_group(group: Any, place: str) -> tuple[QuestionAnswer, ...]:
    if group is None:
        return ()
    if isinstance(group, Mapping):
        return read_probe(*group_sides(group, place), place)
    if (listed := items(group)) is None:
        raise RequestError(f"`{place}` must be an object with `prompt` and `ground_truth`, got {group!r}.")
    return tuple(probe for i, part in enumerate(listed) for probe in _read_group(part, f"{place}[{i}]"))


def group_sides(group: Any, place: str) -> tuple[Any, Any]:
    """The prompts and the answers of a group as they are.

    Raises:
        RequestError: It is not an object, or one of the two is missing.
    """
    if not isinstance(group, Mapping):
        raise RequestError(f"`{place}` must be an object with `prompt` and `ground_truth`, got {group!r}.")
    if missing := [side for side in ("prompt", "ground_truth") if side not in group]:
        raise RequestError(f"`{place}` lacks `{missing[0]}`; it has {sorted(map(str, group))}: add it.")
    return group["prompt"], group["ground_truth"]


def no_prompts(prompts: Any) -> bool:
    """Whether there is nothing to ask: None, or an empty list."""
    return prompts is None or items(prompts) == []


def read_probe(prompts: Any, answers: Any, place: str) -> tuple[QuestionAnswer, ...]:
    """The questions of one probe of one edit.

    Args:
        prompts: A text or a list of texts; None and `[]` ask nothing.
        answers: For a text, its answer, where a list holds aliases. For a list, one answer per prompt, where a list
            within the list holds aliases; extra brackets around the whole list are ignored.
        place: Its name in messages.

    Raises:
        RequestError: Prompts and answers do not fit together, or one is not a text.
    """
    if no_prompts(prompts):
        return ()
    if isinstance(prompts, str):
        asked, given, places = [prompts], [answers], [f"{place}['ground_truth']"]
        where = [f"{place}['prompt']"]
    else:
        if (listed := items(prompts)) is None:
            raise RequestError(f"`{place}['prompt']` must be a text or a list of texts, got {prompts!r}.")
        asked, given = listed, _answers_for(len(listed), answers, place)
        where = [f"{place}['prompt'][{i}]" for i in range(len(asked))]
        places = [f"{place}['ground_truth'][{i}]" for i in range(len(asked))]
    found = []
    for prompt, answer, at, answer_at in zip(asked, given, where, places, strict=True):
        question, names = read_text(prompt, at), read_answers(answer, answer_at)
        if not names:
            raise RequestError(
                f"`{answer_at}` is {answer!r}, but there is a prompt ({question!r}): give its answer, or leave the "
                "prompt out (None)."
            )
        found.append(QuestionAnswer(question, names[0], names[1:]))
    return tuple(found)


def _answers_for(count: int, answers: Any, place: str) -> list[Any]:
    """One answer, or list of aliases, for each of `count` prompts."""
    given = items(answers)
    while given is not None and len(given) == 1 != count and items(given[0]) is not None:
        given = items(given[0])
    if given is None:
        if count == 1:
            return [answers]
        raise RequestError(
            f"`{place}` has {count} prompts, but `ground_truth` is {answers!r}: give a list of {count} answers."
        )
    if len(given) != count:
        raise RequestError(
            f"`{place}` has {count} prompts, but {len(given)} answers: give one answer per prompt (aliases of one "
            "answer as a list within the list)."
        )
    return given
