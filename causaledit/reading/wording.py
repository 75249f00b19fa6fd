"""Wordings as readable blocks: one regular expression from many lines."""

from __future__ import annotations

import re


def wordings(block: str) -> str:
    """Alternatives from a block: a new line or " | " separates two wordings, "#" starts a comment.

    Each wording is a regular expression in which a single space stands for itself.
    """
    lines = (line.split(" # ")[0].strip() for line in block.splitlines())
    found = [w.strip() for line in lines if line and not line.startswith("#") for w in line.split(" | ")]
    return "(?:" + "|".join(w for w in found if w) + ")"


def words(block: str) -> re.Pattern[str]:
    """A pattern for the wordings of a block as whole words."""
    return re.compile(rf"\b{wordings(block)}\b")


def word_set(block: str) -> frozenset[str]:
    """Single words, separated by white space."""
    return frozenset(block.split())


def pairs(block: str) -> dict[str, tuple[str, ...]]:
    """ "a: b, c" entries, separated by a new line or "|"; what stands before the colon is folded."""
    entries = (entry.split(":") for entry in re.split(r"\n|\|", block) if entry.strip())
    return {key.strip().casefold(): tuple(v.strip() for v in values.split(",")) for key, values in entries}
