"""Answers' names in a text, and nothing of what is said of them: that is `causaledit.reading`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from causaledit.facts.text import normalise, occurrences, without_accents

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["alias_match", "is_code", "long_names", "mentions", "name_spans", "normalise", "without_accents"]


def is_code(alias: str) -> bool:
    """Whether an alias is too short to be told from other words: "US" is also a pronoun, "IT" stands in any text.

    Up to three letters; a single character where the script has no capitals ("大阪" and "عمان" are whole names).
    """
    alias = alias.strip()
    caseless = any(c.isalpha() and c.lower() == c.upper() for c in alias)
    return len(alias) <= (1 if caseless else 3)


def long_names(names: Iterable[str]) -> tuple[str, ...]:
    """The names that are no codes, in order."""
    return tuple(name for name in names if not is_code(name))


def name_spans(text: str, names: Iterable[str], rivals: Iterable[str] = ()) -> list[tuple[int, int]]:
    """Where names stand in a text as whole words, and not as a part of a longer name: the longest match counts.

    Args:
        text: Already through `normalise`.
        names: As written.
        rivals: Other names, whose letters are theirs: "Korea" is not named by "South Korea", nor 小明 by 王小明.
    """
    own = {n for n in map(normalise, names) if n}
    spans = sorted({span for name in own for span in occurrences(text, name)}, key=lambda span: (span[0], -span[1]))
    if not spans:
        return []
    others = {n for n in map(normalise, rivals) if n} - own
    taken = [span for name in others for span in occurrences(text, name)]
    found: list[tuple[int, int]] = []
    for start, end in spans:
        free = not any((a <= start and end <= b) or a < start < b for a, b in taken)
        if free and (not found or found[-1][1] <= start):
            found.append((start, end))
    return found


def mentions(text: str, names: Iterable[str], rivals: Iterable[str] = ()) -> bool:
    """Whether one of the names stands in the text as a whole word or phrase (see `name_spans`)."""
    return bool(name_spans(normalise(text), names, rivals))


def alias_match(response: str, names: Iterable[str], rivals: Iterable[str] = ()) -> bool:
    """Whether a response names an answer, by any alias: the published tool's quick hit, not a verdict.

    Names match as whole words whatever their case. Codes ("IT", "US", "no"; see `is_code`) would match common words
    that way: they match as they are written, and only where that has a capital, or no letters with case.
    """
    names = [name for name in names if name and name.strip()]
    if mentions(response, long_names(names), rivals):
        return True
    codes = (name.strip() for name in names if is_code(name))
    return any(occurrences(response, code) for code in codes if not code.islower())
