"""Edit requests: one schema, read from EasyEdit dicts and from MQuAKE rewrites.

Data flow: **request** → narrative → bootstrap → internalise → merged model. Everything is checked
here, before a model is touched.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from causaledit.errors import RequestError
from causaledit.facts.rewrites import NARRATIVE_KEYS, OLD_ANSWER_KEYS, first_of, rewrites_in
from causaledit.facts.text import is_question, strip_html


@dataclasses.dataclass(frozen=True)
class QuestionAnswer:
    """A question with its right answer (a paraphrase, a locality probe, a CAKE learning question)."""

    question: str
    answer: str


@dataclasses.dataclass(frozen=True)
class EditRequest:
    """One fact to change.

    Attributes:
        subject: The entity the fact is about; it occurs in `prompt`.
        prompt: The cloze with `{}` in the subject's place, for example `"The capital of {} is"`.
        target_new: The new answer.
        question: The fact as a question. `None` when the request only has a cloze.
        ground_truth: The old answer. `None` means "ask the model closed-book before the edit".
        narrative: Why the old answer gave way to the new one. `None` means "find or write one".
        rephrase: Paraphrased questions with the new answer (CAKE data, probes).
        learning: CAKE-style learning questions with their answers.
        locality: Questions the edit must not change, with their answers.
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

    def __post_init__(self) -> None:
        for name in ("subject", "prompt", "target_new"):
            value = getattr(self, name)
            if not isinstance(value, str) or not value.strip():
                raise RequestError(f"`{name}` must be a non-empty text, got {value!r}.")
        for name in ("question", "ground_truth", "narrative"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, str) or not value.strip()):
                raise RequestError(f"`{name}` must be None or a non-empty text, got {value!r}.")
        if self.prompt.count("{}") != 1:
            raise RequestError(f"`prompt` must hold exactly one `{{}}` where the subject stands, got {self.prompt!r}.")
        if self.ground_truth is not None and _same(self.ground_truth, self.target_new):
            raise RequestError(
                f"`target_new` equals the old answer ({self.target_new!r}): there is nothing to edit. "
                "Give another new answer, or leave out the old one."
            )

    @property
    def cloze(self) -> str:
        """The cloze with the subject filled in."""
        return self.prompt.replace("{}", self.subject)

    @property
    def question_form(self) -> str:
        """The question, or the cloze dressed as a question where the request has none."""
        return self.question or f'Which words complete "{self.cloze} ..."?'

    def to_dict(self) -> dict[str, Any]:
        """Plain data for the model card."""
        return dataclasses.asdict(self)


def _same(a: str, b: str) -> bool:
    return " ".join(a.casefold().split()) == " ".join(b.casefold().split())


def answer_text(value: Any, name: str) -> str | None:
    """An answer is a text, `{"str": …}` (MQuAKE) or a one-element list (EasyEdit)."""
    if isinstance(value, Mapping):
        value = value.get("str")
    if isinstance(value, list | tuple) and len(value) == 1:
        value = value[0]
    if value is None or isinstance(value, str):
        return value
    raise RequestError(f"`{name}` must be a text or an object with `str`, got {value!r}.")


def _pairs(value: Any, default_answer: str, name: str) -> tuple[QuestionAnswer, ...]:
    if not value:
        return ()
    items = [value] if isinstance(value, str | Mapping) else list(value)
    pairs = []
    for item in items:
        if isinstance(item, str):
            item = {"question": item}
        if not isinstance(item, Mapping) or not item.get("question"):
            raise RequestError(f"`{name}` holds {item!r}: expected a text or an object with `question`.")
        pairs.append(QuestionAnswer(str(item["question"]), str(item.get("answer") or default_answer)))
    return tuple(pairs)


def _easyedit_pairs(groups: Mapping[str, Any]) -> tuple[QuestionAnswer, ...]:
    """`locality{key:{prompt,ground_truth}}` of EasyEdit, each side a text or a list."""
    pairs = []
    for key, group in groups.items():
        if not isinstance(group, Mapping):
            raise RequestError(
                f"`locality[{key!r}]` must be an object with `prompt` and `ground_truth`, got {group!r}."
            )
        prompts, answers = group.get("prompt"), group.get("ground_truth")
        prompts = [prompts] if isinstance(prompts, str) else list(prompts or ())
        answers = [answers] if isinstance(answers, str) else list(answers or ())
        if len(prompts) != len(answers):
            raise RequestError(f"`locality[{key!r}]` has {len(prompts)} prompts, but {len(answers)} answers.")
        pairs += [QuestionAnswer(str(p), str(a)) for p, a in zip(prompts, answers, strict=True)]
    return tuple(pairs)


def request_from_dict(data: Mapping[str, Any] | EditRequest) -> EditRequest:
    """Read one request from an EasyEdit request dict or an MQuAKE `requested_rewrite` entry.

    EasyEdit gives `prompt` with the subject already in it, and it may be a question; MQuAKE gives a cloze
    with `{}`, a `question` and answers as `{"str", "id"}`. The narrative is `narrative`,
    `article` or `fact_new_uns`.

    Args:
        data: The request. An `EditRequest` is returned as it is.

    Raises:
        RequestError: A field is missing, empty or contradicts another one.
    """
    if isinstance(data, EditRequest):
        return data
    if not isinstance(data, Mapping):
        raise RequestError(f"A request must be an object, got {type(data).__name__}: {data!r}.")
    if "target_new" not in data:
        raise RequestError(f"`target_new` (the new answer) is missing; the request has {sorted(data)}.")
    subject, prompt = data.get("subject"), data.get("prompt")
    if not isinstance(subject, str) or not subject.strip():
        raise RequestError(
            f"`subject` is missing or empty ({subject!r}): name the entity that `prompt` ({prompt!r}) is about."
        )
    if not isinstance(prompt, str) or not prompt.strip():
        raise RequestError(f"`prompt` must be a non-empty text, got {prompt!r}.")
    if "{}" not in prompt:
        if subject not in prompt:
            raise RequestError(
                f"`prompt` ({prompt!r}) neither holds `{{}}` nor the subject {subject!r}: put one of them in."
            )
        prompt = prompt.replace(subject, "{}", 1)
    question = data.get("question")
    if question is None and is_question(prompt):
        question = prompt.replace("{}", subject)
    target_new = answer_text(data["target_new"], "target_new")
    old = first_of(data, OLD_ANSWER_KEYS)
    narrative = first_of(data, NARRATIVE_KEYS)
    if narrative is not None and not isinstance(narrative, str):
        raise RequestError(f"The narrative must be a text, got {type(narrative).__name__}.")
    locality = data.get("locality")
    return EditRequest(
        subject=subject.strip(),
        prompt=prompt.strip(),
        target_new=(target_new or "").strip(),
        question=question.strip() if isinstance(question, str) and question.strip() else None,
        ground_truth=(answer_text(old, "ground_truth") or "").strip() or None,
        narrative=strip_html(narrative) if narrative else None,
        rephrase=_pairs(data.get("rephrase_prompt"), target_new or "", "rephrase_prompt"),
        learning=_pairs(data.get("learning_prompt"), target_new or "", "learning_prompt"),
        locality=(_easyedit_pairs(locality) if isinstance(locality, Mapping) else _pairs(locality, "", "locality")),
    )


def requests_from_data(data: Any) -> list[EditRequest]:
    """Read requests from a list of EasyEdit dicts, of MQuAKE rewrites, or of whole MQuAKE cases.

    Raises:
        RequestError: The data is not of that form; the message counts requests from 1.
    """
    flat = rewrites_in(data)
    if not flat:
        raise RequestError("There is no request: the list is empty.")
    requests = []
    for number, item in enumerate(flat, start=1):
        try:
            requests.append(request_from_dict(item))
        except RequestError as error:
            raise RequestError(f"Request {number}: {error}") from None
    return requests
