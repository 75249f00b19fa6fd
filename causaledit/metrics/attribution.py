"""Which hops of a case belong to which of its edits, in a metrics file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from causaledit.facts.text import normalise
from causaledit.metrics.published import asked_or_prompt, references_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from causaledit.facts.rewrites import Rewrite


def hops_by_edit(rewrites: Sequence[Rewrite], hops: list[list[Any]]) -> list[list[int]]:
    """Which hops belong to each edit: those that ask its question or, where none does, those with its answer.

    An answer alone does not tell: "Mexico City" is also called Mexico, and two edits may have one new answer. A hop
    that asks another edit's question is that one's.
    """
    asked = [{normalise(asked_or_prompt(p)) for p in hop} for hop in hops]
    by_question = []
    for read in rewrites:
        forms = {normalise(read.question), normalise(read.prompt.replace("{}", read.subject))} - {""}
        by_question.append([number for number, questions in enumerate(asked) if forms & questions])
    taken = {number for own in by_question for number in own}
    return [
        own or [number for number in range(len(hops)) if number not in taken and names_in(read, hops[number])]
        for read, own in zip(rewrites, by_question, strict=True)
    ]


def names_in(read: Rewrite, hop: list[Any]) -> dict[str, str]:
    """A hop's reference answers by their folded form, where the edit's new answer is one of them; else nothing."""
    references = {normalise(r): r for p in hop for r in references_of(p)}
    return references if read.target_new and normalise(read.target_new) in references else {}
