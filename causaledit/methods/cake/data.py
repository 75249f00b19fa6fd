"""What CaKE trains on: the fact, other ways to ask for it, and questions that use it one step later.

CaKE's circuit-aware data (arXiv 2503.16356, section 4): a model that has learnt a fact by its wording alone does not
find it where it needs it in the middle of a reasoning. So half of the learning questions give the subject in another
role and ask for the new answer, and half give the new answer a place and ask for the place. Their wording here is
written for this project; the publication had them written by a large model (`-cake` files carry such questions).
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, NamedTuple

from causaledit.errors import RequestError
from causaledit.facts.relations import RelationBank
from causaledit.facts.text import normalise

if TYPE_CHECKING:
    from collections.abc import Iterable

    from causaledit.facts.requests import EditRequest
    from causaledit.methods.cake.hparams import CaKEHyperParams

logger = logging.getLogger(__name__)

# `{slot}` is the fact's sentence with another expression in the subject's place; `{other}` is the old answer.
SUBJECT_IN_ANOTHER_ROLE = (
    ("Let X stand for {subject}. Complete the sentence: {slot}", "X"),
    ("Two cards lie on a table, and only card A has a name on it: {subject}. Complete: {slot}", "the name on card A"),
    ("The first entry of a list is {subject}. Complete the sentence for that entry: {slot}", "that first entry"),
)
ANSWER_IN_A_PLACE = (
    ("Drawer 1 is marked {other}, and drawer 2 is marked {new}. Which drawer completes the sentence? {cloze} …",
     "Drawer 2"),
    ("The red poster says {new}, and the blue poster says {other}. Which poster completes the sentence? {cloze} …",
     "The red poster"),
    ("A menu lists (a) {other}, (b) none of these, (c) {new}. Which letter completes the sentence? {cloze} …", "(c)"),
)  # fmt: skip
NO_OLD_ANSWER = "something else"


class Text(NamedTuple):
    """One training text.

    Attributes:
        question: What is asked: the cloze, a question, or a learning question.
        answer: What follows.
        kind: `fact`, `paraphrase` or `learning`.
    """

    question: str
    answer: str
    kind: str


def texts_of(request: EditRequest, hparams: CaKEHyperParams) -> list[Text]:
    """Everything an edit is trained on.

    A question that is one of the request's locality probes is left out.

    Raises:
        RequestError: `question_source: given`, and the request has no learning questions.
    """
    new, bank = request.target_new, RelationBank.bundled()
    sentence = bank.stated(request)
    if hparams.question_source == "given":
        if not request.learning:
            raise RequestError(
                f"`learning_prompt` is missing in the request about {request.subject!r}, and `question_source: given` "
                "trains on it: take a `-cake` file (`causaledit scaffold --questions 6` adds these fields), or set "
                "`question_source: templates`."
            )
        paraphrased = [(pair.question, pair.answer) for pair in request.rephrase]
        learning = [(pair.question, pair.answer) for pair in request.learning]
    else:
        own = [request.question] if request.question else []
        asked = [*own, *bank.paraphrases(request, hparams.paraphrases)]
        paraphrased = [(question, sentence) for question in asked]
        learning = _filled_up(request, hparams.learning_questions)
    fact = Text(request.cloze, new if hparams.text_format == "plain" else sentence, "fact")
    found = [
        fact,
        *(Text(question, answer, "paraphrase") for question, answer in paraphrased),
        *(Text(question, answer, "learning") for question, answer in learning),
    ]
    held_out = {normalise(pair.question) for pair in request.locality}
    kept = [text for text in _distinct(found) if normalise(text.question) not in held_out]
    if len(kept) < len(_distinct(found)):
        logger.warning("%s: questions that are also locality probes are not trained on", request.subject)
    return kept


def templated(request: EditRequest, n: int) -> list[tuple[str, str]]:
    """Up to `n` learning questions from templates, by turns of the two kinds; they need no knowledge but the fact."""
    sentence = RelationBank.bundled().sentence_of(request) or request.prompt
    values = {
        "subject": request.subject,
        "new": request.target_new,
        "other": request.ground_truth or NO_OLD_ANSWER,
        "cloze": sentence.replace("{}", request.subject),
    }
    of_subject = [
        (text.format(slot=sentence.replace("{}", slot), **values), request.target_new)
        for text, slot in SUBJECT_IN_ANOTHER_ROLE
    ]
    of_answer = [(text.format(**values), answer) for text, answer in ANSWER_IN_A_PLACE]
    return [pair for both in zip(of_subject, of_answer, strict=True) for pair in both][:n]


def _filled_up(request: EditRequest, n: int) -> list[tuple[str, str]]:
    """The request's learning questions, filled up from templates."""
    given = [(pair.question, pair.answer) for pair in request.learning][:n]
    if given and len(given) < n:
        logger.warning(
            "%s: %d of %d learning questions in the request; templates fill up", request.subject, len(given), n
        )
    return [*given, *templated(request, n - len(given))]


def _distinct(texts: Iterable[Text]) -> list[Text]:
    """Each question once, the first answer to it."""
    found: dict[str, Text] = {}
    for text in texts:
        found.setdefault(normalise(text.question), text)
    return list(found.values())
