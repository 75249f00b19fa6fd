"""The merge stage: narratives go into the cases, in the causal-enhanced MQuAKE form.

Every byte of a case's own text is kept; members are added to its edits. A case that lacks a narrative is left out and
reported, so that every case in the merged file is complete.
"""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Any

from causaledit.facts.text import normalise
from causaledit.narratives.cases import Problem
from causaledit.narratives.verbatim import with_fields
from causaledit.support.files import write_text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from causaledit.narratives.cases import ScaffoldCase, ScaffoldEdit
    from causaledit.narratives.templates import TemplateBank


def with_related_facts(cases: Sequence[ScaffoldCase], bank: TemplateBank) -> list[ScaffoldCase]:
    """Give edits of one case that share an entity each other's new facts, as sentences.

    Two narratives about one subject then do not contradict each other.
    """
    related = []
    for case in cases:
        edits = tuple(
            dataclasses.replace(
                edit,
                related=tuple(
                    bank.statement(other) for other in case.edits if other is not edit and _linked(edit, other)
                ),
            )
            for edit in case.edits
        )
        related.append(dataclasses.replace(case, edits=edits))
    return related


def _linked(a: ScaffoldEdit, b: ScaffoldEdit) -> bool:
    names = [{normalise(e.name) for e in (x.subject, x.new)} for x in (a, b)]
    return bool(names[0] & names[1])


def conflicts(cases: Sequence[ScaffoldCase]) -> list[str]:
    """Facts that the file changes in more than one way: such cases must not be edited in one batch."""
    wanted: dict[tuple[str, str], dict[str, Any]] = {}
    for case in cases:
        for edit in case.edits:
            fact = (normalise(edit.subject.name), edit.relation_id or normalise(edit.prompt))
            wanted.setdefault(fact, {}).setdefault(normalise(edit.new.name), (edit, case.case_id))
    return [
        f"{next(iter(news.values()))[0].cloze} … "
        + " / ".join(f"{edit.new.name} (case {case_id})" for edit, case_id in news.values())
        for news in wanted.values()
        if len(news) > 1
    ]


def merge(
    cases: Sequence[ScaffoldCase],
    narratives: Mapping[str, str],
    extras: Mapping[tuple[Any, int], Mapping[str, Any]] | None = None,
) -> tuple[str, list[Problem]]:
    """Put narratives (and extras) into the cases.

    Args:
        narratives: By `ScaffoldEdit.key`.
        extras: Further members by (case id, index of the edit): `rephrase_prompt`, `locality`, `learning_prompt`.

    Returns:
        The text of the merged file, and one problem per case that was left out.
    """
    texts, problems = [], []
    for case in cases:
        missing = [i for i, e in enumerate(case.edits, start=1) if not e.narrative and e.key not in narratives]
        if missing:
            which = ", ".join(map(str, missing))
            problems.append(Problem(f"case {case.case_id}", "merge", f"left out: no narrative for edit {which}"))
            continue
        additions = []
        for i, edit in enumerate(case.edits):
            article = {} if edit.narrative else {"article": narratives[edit.key]}
            additions.append({**article, **((extras or {}).get((case.case_id, i)) or {})})
        texts.append(with_fields(case.raw, additions))
    return "[\n " + ",\n ".join(texts) + "\n]\n" if texts else "[]\n", problems


def write_merged(path: str | Path, text: str) -> None:
    """Write the merged file, whole or not at all, after reading it back as JSON."""
    json.loads(text)
    write_text(path, text)
