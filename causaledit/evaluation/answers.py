"""Answers' names in a text, and nothing of what is said of them: that is `causaledit.reading`."""

from __future__ import annotations

import re
import unicodedata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


def normalise(text: str) -> str:
    """Case, accents and spaces folded, so that "Côte d'Ivoire" matches "cote d'ivoire"."""
    return " ".join(without_accents(text.casefold()).split())


def without_accents(text: str) -> str:
    """Accents and compatibility forms folded, case kept."""
    return "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))


def _pattern(names: Iterable[str]) -> re.Pattern[str] | None:
    cleaned = sorted({normalise(n) for n in names if n and n.strip()}, key=len, reverse=True)
    if not cleaned:
        return None
    return re.compile(r"(?<!\w)(?:" + "|".join(re.escape(n) for n in cleaned) + r")(?!\w)")


def mentions(text: str, names: Iterable[str]) -> bool:
    """Whether one of the names stands in the text as a whole word or phrase."""
    pattern = _pattern(names)
    return bool(pattern and pattern.search(normalise(text)))


def alias_match(response: str, names: Iterable[str]) -> bool:
    """Whether a response names an answer, by any alias: the published tool's quick hit, not a verdict.

    Names match as whole words whatever their case. Codes of up to three letters ("IT", "US", "no") would match
    common words that way: they match as they are written, and only where that has a capital.
    """
    names = [name for name in names if name and name.strip()]
    codes = [name.strip() for name in names if len(name.strip()) <= 3 and name.strip().isascii()]
    if mentions(response, [name for name in names if name.strip() not in codes]):
        return True
    return any(
        re.search(rf"(?<!\w){re.escape(code)}(?!\w)", response)
        for code in codes
        if code.lower() != code or code.isdigit()
    )
