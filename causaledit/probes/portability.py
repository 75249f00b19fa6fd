"""The portability protocol of Gao et al. (arXiv 2602.02028): what is asked, and the paper's own match.

Metrics: edit success (the fact's question, its rephrasings), locality, portability (a case's multi-hop questions as
they are; *unseen*: each in one of four other forms; *multi-fact*: questions whose answer has a part from each of
several edits). Everything is asked twice, for the answer alone and with reasoning, and the answer is to stand between
tags.

The forms are made by templates and drawn from the question's own text, so that every run and every method is asked the
same; the paper lets a model write them. A change of wording or of a draw raises `PORTABILITY_VERSION`.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from causaledit.facts.relations import RelationBank
from causaledit.facts.rewrites import text_in
from causaledit.facts.text import normalise

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from causaledit.mquake.cases import Case

PORTABILITY_VERSION = 1

Metric = Literal["edit_success", "locality", "portability"]
OPEN_TAG, CLOSE_TAG = "<answer>", "</answer>"
UNSEEN_FORMS = ("reworded", "cloze", "true_false", "choice4")

_ANSWER_ALONE = "{question}\nGive nothing but the answer, and put it between {open} and {close}."
_REASONED = "{question}\nThink it through step by step. At the end, put the answer between {open} and {close}."
_CHOOSE = "Choose one of the four: "
_FORMS = {
    "reworded": "A friend would like to know the following: “{question}” What do you tell them?",
    "cloze": "Fill the gap. The answer to the question “{question}” is ____.",
    "true_false": "True or false? The answer to the question “{question}” is {candidate}.",
    "choice4": "{question} " + _CHOOSE + "{options}",
}
_LETTERS = "ABCD"
_CITIES = ("Lyon", "Porto", "Kraków", "Gdańsk", "Osaka", "Toronto", "Perth", "Santiago", "Dakar", "Tunis")
# words of a question by which wrong options of the same kind are found, first match first
_KINDS = (
    ("country", ("country", "nation")),
    ("person", ("who", "whom", "person", "founder", "author", "politician")),
    ("company", ("company", "manufacturer", "employer")),
    ("city", ("city", "cities", "born", "birthplace", "capital", "where", "headquarters")),
)


class Kind(NamedTuple):
    """Which of the protocol's scores a question counts in.

    `form` is original, rephrased, unseen or multi_fact; `reasoned` says which of the two instructions it came with.
    """

    metric: str
    form: str
    reasoned: bool

    @property
    def key(self) -> str:
        """As it is written in files: `portability/unseen/reasoned`."""
        return f"{self.metric}/{self.form}/{'reasoned' if self.reasoned else 'direct'}"


@dataclass(frozen=True)
class PortabilityQuestion:
    """One question of the protocol.

    Attributes:
        kind: Where it counts.
        shape: The unseen form it was put into; empty for the others.
        question: As it is asked, without what says how to answer.
        prompt: The user message.
        parts: What counts as right: names of the answer, or of each of its parts, all of which must be right.
        rivals: Names of a wrong answer that it might give instead.
        edit: Which of the case's edits it is about; None for the case as a whole.
    """

    kind: Kind
    shape: str
    question: str
    prompt: str
    parts: tuple[tuple[str, ...], ...]
    rivals: tuple[str, ...] = ()
    edit: int | None = None


class _Asked(NamedTuple):
    """A question with its answers before it is put into a form."""

    question: str
    parts: tuple[tuple[str, ...], ...]
    rivals: tuple[str, ...] = ()


def portability_questions(case: Case) -> list[PortabilityQuestion]:
    """All questions of the protocol about a case, each for the answer alone and with reasoning.

    A case whose file gives `portability` (question, answer, answer_alias) is asked those multi-hop questions, any other
    its `questions`; one with `new_answer_parts` is a multi-fact case.
    """
    found: list[PortabilityQuestion] = []
    for index, edit in enumerate(case.edits):
        request = edit.request
        new = (request.target_new, *edit.new_aliases)
        old = (request.ground_truth or "", *edit.old_aliases)
        asked = _Asked(request.question_form, (new,), old)
        found += _both("edit_success", "original", asked, edit=index)
        for pair in request.rephrase:
            found += _both("edit_success", "rephrased", asked._replace(question=pair.question), edit=index)
        for pair in request.locality:
            if pair.answer:
                found += _both("locality", "original", _Asked(pair.question, ((pair.answer,),), new), edit=index)
    multi_fact = _parts(case.data.get("new_answer_parts"))
    if multi_fact:
        for question in case.questions:
            found += _both("portability", "multi_fact", _Asked(question, multi_fact))
        return found
    for asked in _multi_hop(case):
        found += _both("portability", "original", asked)
        found += _unseen(asked, case)
    return found


def _both(
    metric: Metric, form: str, asked: _Asked, *, shape: str = "", edit: int | None = None
) -> Iterator[PortabilityQuestion]:
    for reasoned, template in ((False, _ANSWER_ALONE), (True, _REASONED)):
        prompt = template.format(question=asked.question, open=OPEN_TAG, close=CLOSE_TAG)
        yield PortabilityQuestion(
            Kind(metric, form, reasoned), shape, asked.question, prompt, asked.parts, asked.rivals, edit
        )


def _multi_hop(case: Case) -> list[_Asked]:
    new, old = (case.new_answer, *case.new_answer_alias), (case.answer, *case.answer_alias)
    given = case.data.get("portability")
    if not isinstance(given, list):
        return [_Asked(question, (new,), old) for question in case.questions]
    found = []
    for entry in given:
        [names] = _parts([entry]) or [()]
        question = text_in(entry.get("question")) if isinstance(entry, dict) else ""
        if question and names:
            same = normalise(names[0]) == normalise(case.new_answer)
            found.append(_Asked(question, (names,), old if same else ()))
    return found


def _parts(value: Any) -> tuple[tuple[str, ...], ...]:
    """The names of each answer in a list of `{answer, answer_alias}`."""
    found = []
    for entry in value if isinstance(value, list) else ():
        if isinstance(entry, dict) and text_in(entry.get("answer")):
            aliases = entry.get("answer_alias")
            names = (text_in(alias) for alias in (aliases if isinstance(aliases, list) else ()))
            found.append((text_in(entry["answer"]), *(name for name in names if name)))
    return tuple(found)


# ---- unseen forms ------------------------------------------------------------------------------------
def _unseen(asked: _Asked, case: Case) -> Iterator[PortabilityQuestion]:
    """The question in the form that its own text draws."""
    [names] = asked.parts
    draw = _draws(asked.question)
    shape = UNSEEN_FORMS[draw[0] % len(UNSEEN_FORMS)]
    wrong = [asked.rivals[0]] if asked.rivals and asked.rivals[0] else []
    wrong += [name for name in _distractors(asked, case) if name not in wrong]
    fields = {"question": asked.question, "candidate": "", "options": ""}
    parts, rivals = asked.parts, asked.rivals
    if shape == "true_false":
        true = draw[1] % 2 == 0
        fields["candidate"] = names[0] if true else wrong[0]
        parts, rivals = ((("True",),), ("False",)) if true else ((("False",),), ("True",))
    elif shape == "choice4":
        options = [*wrong[:3]]
        place = draw[1] % 4
        options.insert(place, names[0])
        fields["options"] = " ".join(f"({x}) {text}" for x, text in zip(_LETTERS, options, strict=True))
        rivals = (wrong[0],)
    text = _FORMS[shape].format(**fields)
    yield from _both("portability", "unseen", _Asked(text, parts, rivals), shape=shape)


def _draws(text: str) -> bytes:
    return hashlib.sha256(f"{PORTABILITY_VERSION}|{normalise(text)}".encode()).digest()


def _distractors(asked: _Asked, case: Case) -> list[str]:
    """Wrong answers of the right one's kind, in an order that the question draws."""
    [names] = asked.parts
    right = {normalise(name) for name in (*names, *asked.rivals)}
    bank = RelationBank.bundled().names
    words = set(normalise(asked.question).replace("?", " ").split())
    own = [kind for kind, known in bank.items() if right & {normalise(name) for name in known}]
    cued = [kind for kind, cues in _KINDS if words.intersection(cues)]
    kind = next(iter((*own, *cued)), "")
    pool = list(_CITIES) if kind == "city" else list(bank.get(kind, ()))
    chain = [hop.answer for hop in (*case.hops, *case.old_hops)]
    draw = _draws(asked.question)[2]
    start = draw % len(pool) if pool else 0
    ordered = [*pool[start:], *pool[:start], *chain, *_CITIES]
    return [name for name in dict.fromkeys(ordered) if normalise(name) not in right]


# ---- the paper's match -------------------------------------------------------------------------------
def tagged_answer(response: str) -> str | None:
    """What stands between the last pair of tags; None without one."""
    before, closed, _ = response.rpartition(CLOSE_TAG)
    _, opened, answer = before.rpartition(OPEN_TAG)
    return answer.strip() if closed and opened else None


def paper_match(response: str, question: PortabilityQuestion) -> bool:
    """The paper's hit: in lower case, the right answer stands in the tagged one or the reverse; no tags, no hit.

    Of a choice the letter counts as well as the text; of several parts, each must be named.
    """
    answer = tagged_answer(response)
    if not answer or not answer.strip(" .()"):
        return False
    said = answer.lower().strip(" .()")
    if question.shape == "choice4" and len(said) == 1:
        [names] = question.parts
        return said == _letter_of(question.question, names[0])
    several = len(question.parts) > 1

    def named(name: str) -> bool:
        return name.lower() in said or (not several and said in name.lower())

    return all(any(named(name) for name in names) for names in question.parts)


def _letter_of(question: str, answer: str) -> str:
    """The letter of the option that is the answer, not of one that begins with it; empty where there is none."""
    options = f"{question.rpartition(_CHOOSE)[2]} (E) "  # an option goes on to the next letter
    followed = zip(_LETTERS, f"{_LETTERS}E"[1:], strict=True)
    return next((here.lower() for here, after in followed if f"({here}) {answer} ({after}) " in options), "")


def without_tags(response: str) -> str:
    """The response as a judge reads it: the tagged answer on a line of its own."""
    return response.replace(OPEN_TAG, "\nAnswer: ").replace(CLOSE_TAG, "\n").strip()


def scores(hits: Sequence[tuple[str, bool]]) -> dict[str, dict[str, int]]:
    """Hits and totals by `Kind.key`, in the order in which they are first asked."""
    found: dict[str, dict[str, int]] = {}
    for key, hit in hits:
        entry = found.setdefault(key, {"hits": 0, "total": 0})
        entry["hits"] += hit
        entry["total"] += 1
    return found
