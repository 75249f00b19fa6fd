"""Whether two edits change the same fact, as far as their texts tell."""

from __future__ import annotations

from typing import TYPE_CHECKING

from causaledit.facts.relations import RelationBank
from causaledit.facts.text import normalise

if TYPE_CHECKING:
    from causaledit.facts.requests import EditRequest


def fact_keys(request: EditRequest) -> frozenset[str]:
    """What names the fact that an edit changes: its cloze, its question, and its subject with the bank's relation.

    Two edits change the same fact if they have one of these in common, however they word the rest.
    """
    relation = RelationBank.bundled().relation_of(request) if request.subject else None
    asked = [request.cloze, request.question or "", f"{request.subject}\n{relation.name}" if relation else ""]
    return frozenset(normalise(text) for text in asked if text)


def same_fact(a: EditRequest, b: EditRequest) -> bool:
    """Whether two edits change the same fact."""
    return not fact_keys(a).isdisjoint(fact_keys(b))
