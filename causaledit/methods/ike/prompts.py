"""The text of an in-context edit: demonstrations (see `demonstrations`), then the new facts."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from causaledit.facts.requests import EditRequest

FACT = "New fact: {cloze} {new}."


def fact_of(edit: EditRequest) -> str:
    """One new fact as a sentence."""
    return FACT.format(cloze=edit.cloze, new=edit.target_new)


def context_text(edits: Sequence[EditRequest], examples: Sequence[str], *, include_narrative: bool) -> str:
    """Everything that goes before a prompt."""
    facts = []
    for edit in edits:
        facts.append(fact_of(edit))
        if include_narrative and edit.narrative:
            facts.append(edit.narrative)
    return "\n".join([*examples, *facts])
