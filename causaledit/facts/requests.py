"""Edit requests: one schema, read from EasyEdit dicts and from MQuAKE rewrites.

Data flow: **request** → narrative → bootstrap → internalise → merged model. Everything is checked
here, before a model is touched.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from causaledit.errors import RequestError
from causaledit.facts.request_probes import QuestionAnswer, read_probe_groups, read_questions
from causaledit.facts.request_texts import (
    answer_text,
    clean_text,
    place_subject,
    read_answers,
    read_text,
)
from causaledit.facts.rewrites import NARRATIVE_KEYS, OLD_ANSWER_KEYS, first_of, rewrites_with_places
from causaledit.facts.text import is_question, strip_html, unwrapped

__all__ = [
    "EditRequest",
    "QuestionAnswer",
    "answer_text",
    "read_each",
    "refuse_doubles",
    "request_from_dict",
    "requests_from_data",
    "strip_html",
]

_TEXTS = ("subject", "prompt", "target_new", "question", "ground_truth", "narrative")

Read = TypeVar("Read")


@dataclasses.dataclass(frozen=True)
class EditRequest:
    """One fact to change. Its texts are normalised: composed characters, no spaces around them, single ones within.

    Attributes:
        subject: The entity the fact is about. Empty for a method that needs none.
        prompt: The cloze with `{}` in the subject's place, for example `"The capital of {} is"`; the plain cloze
            where there is no subject.
        target_new: The new answer.
        question: The fact as a question. `None` when the request only has a cloze.
        ground_truth: The old answer. `None` means "ask the model closed-book before the edit".
        narrative: Why the old answer gave way to the new one. `None` means "find or write one".
        rephrase: Paraphrased questions with the new answer (CAKE data, probes).
        learning: CAKE-style learning questions with their answers.
        locality: Questions the edit must not change, with their answers.
        target_aliases: Further names of the new answer.
        ground_truth_aliases: Further names of the old answer.
        held_out: Prompts that will test the edit: no method trains on them, whatever it makes up by itself.
    """

    subject: str
    prompt: str
    target_new: str
    question: str | None = None
    ground_truth: str | None = None
    narrative: str | None = None
    rephrase: tuple[QuestionAnswer, ...] = ()
    learning: tuple[QuestionAnswer, ...] = ()
    locality: tuple[QuestionAnswer, ...] = ()
    target_aliases: tuple[str, ...] = ()
    ground_truth_aliases: tuple[str, ...] = ()
    held_out: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in _TEXTS:
            value = getattr(self, name)
            if isinstance(value, str):
                object.__setattr__(self, name, clean_text(value))
        if isinstance(self.narrative, str):
            object.__setattr__(self, "narrative", unwrapped(self.narrative))
        if self.subject != "":
            read_text(self.subject, "subject")
        for name in ("prompt", "target_new"):
            read_text(getattr(self, name), name)
        for name in ("question", "ground_truth", "narrative"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, str) or not value):
                raise RequestError(f"`{name}` must be None or a non-empty text, got {value!r}.")
        if not self.subject and "{}" in self.prompt:
            raise RequestError(f"`prompt` ({self.prompt!r}) holds `{{}}`, but there is no `subject` to put there.")
        if self.subject and self.prompt.count("{}") != 1:
            raise RequestError(f"`prompt` must hold exactly one `{{}}` where the subject stands, got {self.prompt!r}.")
        if self.ground_truth is not None and _same(self.ground_truth, self.target_new):
            raise RequestError(
                f"`target_new` equals the old answer ({self.target_new!r}): there is nothing to edit. "
                "Give another new answer, or leave out the old one."
            )

    @property
    def cloze(self) -> str:
        """The cloze with the subject filled in, where there is one."""
        return self.prompt.replace("{}", self.subject)

    @property
    def question_form(self) -> str:
        """The question, or the cloze turned into one where the request has none."""
        return self.question or f'Which words complete "{self.cloze} ..."?'

    def to_dict(self) -> dict[str, Any]:
        """Plain data for the model card."""
        return dataclasses.asdict(self)


def _same(a: str, b: str) -> bool:
    return " ".join(a.casefold().split()) == " ".join(b.casefold().split())


def request_from_dict(data: Mapping[str, Any] | EditRequest, *, needs_subject: bool = True) -> EditRequest:
    """Read one request from an EasyEdit request dict or an MQuAKE `requested_rewrite` entry.

    EasyEdit gives `prompt` with the subject already in it, and it may be a question; MQuAKE gives a cloze
    with `{}`, a `question` and answers as `{"str", "id"}`; KnowEdit gives answers as nested lists with aliases.
    The narrative is `narrative`, `article` or `fact_new_uns`. `data` is left as it is.

    Args:
        data: The request. An `EditRequest` is returned as it is.
        needs_subject: Whether a request without a subject is refused; a method says so (`Method.needs_subject`).

    Raises:
        RequestError: A field is missing, empty or contradicts another field.
    """
    if isinstance(data, EditRequest):
        if needs_subject and not data.subject:
            raise RequestError(_no_subject(data.subject, data.prompt))
        return data
    if not isinstance(data, Mapping):
        raise RequestError(f"A request must be an object, got {type(data).__name__}: {data!r}.")
    if "target_new" not in data:
        raise RequestError(f"`target_new` (the new answer) is missing; the request has {sorted(map(str, data))}.")
    subject, prompt = _subject_and_prompt(data, needs_subject=needs_subject)
    question = data.get("question")
    if question is None and is_question(prompt):
        question = prompt.replace("{}", subject)
    new = read_answers(data["target_new"], "target_new")
    old = next((found for key in OLD_ANSWER_KEYS if (found := read_answers(data.get(key), key))), ())
    narrative = first_of(data, NARRATIVE_KEYS)
    if narrative is not None and not isinstance(narrative, str):
        raise RequestError(f"The narrative must be a text, got {type(narrative).__name__}.")
    locality = data.get("locality")
    if isinstance(locality, Mapping):
        kept = tuple(probe for group in read_probe_groups(locality, "locality").values() for probe in group)
    else:
        kept = read_questions(locality, "locality")
    return EditRequest(
        subject=subject,
        prompt=prompt,
        target_new=new[0] if new else "",
        question=question if isinstance(question, str) and question.strip() else None,
        ground_truth=old[0] if old else None,
        narrative=strip_html(narrative) if narrative else None,
        rephrase=read_questions(data.get("rephrase_prompt"), "rephrase_prompt", new or ("",)),
        learning=read_questions(data.get("learning_prompt"), "learning_prompt", new or ("",)),
        locality=kept,
        target_aliases=new[1:],
        ground_truth_aliases=old[1:],
        held_out=_held_out(data.get("held_out")),
    )


def _held_out(value: Any) -> tuple[str, ...]:
    if value is None:
        return ()
    if isinstance(value, str) or not isinstance(value, Sequence) or not all(isinstance(text, str) for text in value):
        raise RequestError(f"`held_out` must be a list of prompts, got {value!r}.")
    return tuple(value)


def _no_subject(subject: Any, prompt: Any) -> str:
    return f"`subject` is missing or empty ({subject!r}): name the entity that `prompt` ({prompt!r}) is about."


def _subject_and_prompt(data: Mapping[str, Any], *, needs_subject: bool) -> tuple[str, str]:
    """The subject and the prompt with `{}` in its place; no subject and the plain prompt where none is needed."""
    given: Any = data.get("subject")
    missing = given is None or (isinstance(given, str) and not clean_text(given))
    if (missing and needs_subject) or not (missing or isinstance(given, str)):
        raise RequestError(_no_subject(given, data.get("prompt")))
    prompt = read_text(data.get("prompt"), "prompt")
    if missing:
        return "", prompt
    subject = " ".join(clean_text(given).split())
    if "{}" not in prompt:
        prompt, subject = place_subject(prompt, subject)
        return subject, prompt
    # spaces around the subject stay with it, as when the two are put together by hand
    before, after = " " * given[:1].isspace(), " " * given[-1:].isspace()
    return subject, clean_text(prompt.replace("{}", f"{before}{{}}{after}"))


def read_each(data: Any, read: Callable[[Any], Read]) -> list[Read]:
    """Apply a reader to each request of a list; a whole MQuAKE case counts as its edits.

    Raises:
        RequestError: The data is no such list, or the reader refuses a request: the message then begins with the
            request's number, counted from 1, and says where in a case it is.
    """
    flat = rewrites_with_places(data)
    if not flat:
        raise RequestError("There are no requests: the list is empty.")
    found = []
    for number, (place, item) in enumerate(flat, start=1):
        try:
            found.append(read(item))
        except RequestError as error:
            raise RequestError(f"Request {number}{place}: {error}") from None
    return found


def requests_from_data(data: Any, *, needs_subject: bool = True) -> list[EditRequest]:
    """Read requests from a list of EasyEdit dicts, of MQuAKE rewrites, or of whole MQuAKE cases.

    Raises:
        RequestError: The data is not of that form; the message counts requests from 1.
    """
    return read_each(data, lambda item: request_from_dict(item, needs_subject=needs_subject))


def refuse_doubles(edits: Sequence[EditRequest], first: int = 1) -> None:
    """Two edits of one batch must not change the same fact.

    Args:
        first: The number of the batch's first request in the user's list.

    Raises:
        RequestError: Two have the same subject and prompt.
    """
    seen: dict[tuple[str, str], int] = {}
    for number, edit in enumerate(edits, start=first):
        if (earlier := seen.setdefault((edit.subject, edit.prompt), number)) != number:
            raise RequestError(
                f"Two requests of one batch, {earlier} and {number}, change the same fact (same subject and prompt, "
                f"{edit.cloze!r}): keep one."
            )
