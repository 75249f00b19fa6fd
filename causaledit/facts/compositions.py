"""Questions of two hops around an edited fact: on from its object, and to it from something that has its subject.

Onward: "the capital of the country that S is a citizen of" needs the edited fact, and then what is known of its new
object. Leading: "the capital of the country that X is a citizen of" needs that X leads to S, and then the edited fact.
Only the edit itself and the relation bank are read, so that a benchmark's own questions stay held out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from causaledit.facts.text import capitalised, normalise

if TYPE_CHECKING:
    from collections.abc import Sequence

    from causaledit.facts.relations import Relation, RelationBank
    from causaledit.facts.requests import EditRequest

Item = TypeVar("Item")

# "{}'s" behind a phrase of several words makes a question that nobody would ask
_POSSESSIVE = "{}'s"


@dataclass(frozen=True)
class Onward:
    """A question that goes on from the edited fact's object.

    Attributes:
        prompt: The question, about what the subject leads to; the object is not named.
        relation: The second hop's relation.
        hop: The same second hop, asked about the new object by name.
    """

    prompt: str
    relation: Relation
    hop: str


def onward_questions(request: EditRequest, bank: RelationBank) -> list[Onward]:
    """Every question of two hops that begins with the edited fact, one per second relation and wording in turn.

    Returns:
        No question where the bank does not know the edit's relation, or asks nothing about its kind of object.
    """
    first = bank.relation_of(request)
    if first is None:
        return []
    seconds = [r for r in bank.relations if first.object_kind in r.subject_kinds]
    per_relation = [
        [
            Onward(capitalised(prompt), second, _question(second).replace("{}", request.target_new))
            for phrase in first.object_phrases
            for prompt in _asked_about(second, phrase.replace("{}", request.subject))
        ]
        for second in seconds
    ]
    held_out = held_out_questions([request])
    return [item for item in in_turn(per_relation) if normalise(item.prompt) not in held_out]


def composed_questions(first: Relation, bank: RelationBank, name: str) -> list[str]:
    """The questions of two hops that begin with a relation of some subject."""
    return [
        capitalised(prompt)
        for second in bank.relations
        if first.object_kind in second.subject_kinds
        for prompt in _asked_about(second, first.object_phrases[0].replace("{}", name))[:2]
    ]


def leading_relations(request: EditRequest, bank: RelationBank) -> list[Relation]:
    """The relations whose object can be the edit's subject."""
    edited = bank.relation_of(request)
    return [r for r in bank.relations if edited and r.object_kind in edited.subject_kinds]


def leading_questions(request: EditRequest, bank: RelationBank, first: Relation, name: str) -> list[str]:
    """Questions for the edited fact about whatever `name` leads to by the relation `first`."""
    edited = bank.relation_of(request)
    if edited is None:
        return []
    asked = [
        capitalised(prompt)
        for phrase in first.object_phrases
        for prompt in _asked_about(edited, phrase.replace("{}", name))
    ]
    held_out = held_out_questions([request])
    return [prompt for prompt in dict.fromkeys(asked) if normalise(prompt) not in held_out]


def held_out_questions(requests: Sequence[EditRequest]) -> set[str]:
    """The normalised prompts that test edits: paraphrases, locality and what the requests hold out."""
    texts = [text for r in requests for text in (*(p.question for p in (*r.rephrase, *r.locality)), *r.held_out)]
    return {normalise(text) for text in texts}


def _question(relation: Relation) -> str:
    return f"{_word(relation)} is {relation.object_phrases[0]}?"


def _word(relation: Relation) -> str:
    return "Who" if relation.object_kind == "person" else "What"


def _asked_about(relation: Relation, phrase: str) -> list[str]:
    """The relation's questions about something that a phrase stands for, the plainest first."""
    wordings = [_question(relation), *relation.questions]
    return list(dict.fromkeys(w.replace("{}", phrase) for w in wordings if _POSSESSIVE not in w))


def in_turn(groups: Sequence[Sequence[Item]]) -> list[Item]:
    """The first of each group, then the second of each, and so on."""
    longest = max((len(group) for group in groups), default=0)
    return [group[i] for i in range(longest) for group in groups if i < len(group)]
