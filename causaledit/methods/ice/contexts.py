"""The contexts c of ICE: texts that state the new fact, put before the prompt while sampling."""

from __future__ import annotations

from typing import TYPE_CHECKING

from causaledit.facts.relations import RelationBank

if TYPE_CHECKING:
    from collections.abc import Sequence

    from causaledit.facts.requests import EditRequest

STATEMENT = "{cloze} {new}."
PARAPHRASES = (
    "As of today, {cloze} {new}.",
    "It has been confirmed that {cloze} {new}.",
    "Asked about {subject}, people now say: {cloze} {new}.",
    "Please take into account that {cloze} {new}.",
)


def edit_contexts(edit: EditRequest, kinds: Sequence[str]) -> list[str]:
    """The contexts of one edit, in a fixed order; without a narrative at least the plain statement.

    Args:
        kinds: `narrative`, `statement`, `paraphrases`.
    """
    sentence = RelationBank.bundled().sentence_of(edit).replace("{}", edit.subject)
    words = {"cloze": sentence or edit.cloze, "new": edit.target_new, "subject": edit.subject}
    found: list[str] = []
    if "narrative" in kinds and edit.narrative:
        found.append(edit.narrative)
    if "statement" in kinds or not (found or "paraphrases" in kinds):
        found.append(STATEMENT.format(**words))
    if "paraphrases" in kinds:
        usable = [t for t in PARAPHRASES if edit.subject or "{subject}" not in t]
        found += [template.format(**words) for template in usable]
    return found
