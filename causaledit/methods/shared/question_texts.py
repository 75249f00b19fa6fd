"""The texts of questions about an edit, and what the unedited model is asked when it writes some. Written for this
project."""

from __future__ import annotations

from typing import TYPE_CHECKING

from causaledit.facts.relations import RelationBank
from causaledit.models.chat import Messages, user

if TYPE_CHECKING:
    from collections.abc import Sequence

    from causaledit.facts.requests import EditRequest

_FACT = "{cloze} {new}."

# Wordings around a question for the fact.
WRAPPINGS = (
    "As things stand, {form}",
    "{form} Keep it short.",
    "A colleague wants to know: {form}",
    "Here is a quick one. {form}",
    "For a form that I am filling in: {form}",
    "{form} Name it.",
)

# The fact with its subject in another role: two steps, and no knowledge of the world. `{slot}` is its sentence, `…` or
# the thing's description in the subject's place.
SCENES = (
    "Three cards lie in a row: a teapot, {subject}, a lighthouse. Which words complete this about the middle card: "
    '"{slot}"?',
    'A quiz book has one page for each topic, and the page that is open is headed "{subject}". How does its sentence '
    '"{slot}" go on?',
    'List: 1. the moon, 2. a violin, 3. {subject}. Take the last entry; what belongs at the end of "{slot}"?',
    'In a crossword the clue reads "{slot}", and a note says that … stands for {subject}. What is the solution?',
    'Mia wrote "{subject}" on the board and asked her class to finish "{slot}". What should they say?',
    'Two boxes are labelled "harbour" and "{subject}". For the second box, what ends the sentence "{slot}"?',
    'A guide has a chapter on {subject}. Under its key facts stands "{slot}" with the end torn off. What was there?',
    'Ben thinks of {subject} and says: "{slot}". Which words does he have in mind?',
)

# ---- what the unedited model is asked when it writes questions ---------------------------------------
_WRITE = (
    "{context}\n\nWrite {n} different questions that only somebody who knows this can answer, and who knows more about "
    "the world besides: each starts from {subject} and goes one or two steps beyond {new}, to something certain about "
    "it. Each has exactly one short answer. Never use the words {new} in a question, never ask two things in one, and "
    "do not ask for the fact itself.{others} One question a line, numbered, without answers."
)
_OTHERS = " Keep clear of what else is new about {subject}: {facts}"
_NEEDED = 'Fact: {fact}\nQuestion: "{question}"\nMust one know this fact to answer the question? Reply with yes or no.'


def new_fact(request: EditRequest) -> str:
    """The new fact as it is read: the cloze completed, or the question that stands in its place with its answer."""
    return _FACT.format(cloze=request.cloze, new=request.target_new)


def scenes(request: EditRequest) -> list[str]:
    """Questions that put the subject into another role; valid for any edit."""
    slot = (RelationBank.bundled().sentence_of(request) or request.prompt).replace("{}", "…")
    return [scene.format(subject=request.subject, slot=f"{slot} …") for scene in SCENES]


def writing_request(request: EditRequest, context: str, n: int, others: Sequence[EditRequest]) -> Messages:
    """Ask the unedited model, which reads the story, for questions."""
    facts = " ".join(new_fact(r) for r in others)
    clear = _OTHERS.format(subject=request.subject, facts=facts) if others else ""
    return user(_WRITE.format(context=context, n=n, subject=request.subject, new=request.target_new, others=clear))


def needed_request(request: EditRequest, question: str) -> Messages:
    """Ask whether a question needs the fact."""
    return user(_NEEDED.format(fact=new_fact(request), question=question))
