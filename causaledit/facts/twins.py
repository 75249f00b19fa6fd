"""Names that differ only in spelling, for messages: "there is no X" does not help a reader who sees an X."""

from __future__ import annotations

import unicodedata
from typing import TYPE_CHECKING

from causaledit.facts.text import SIGNS, without_accents

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    Folds = list[tuple[str, Callable[[str], str]]]


def difference(a: str, b: str) -> str | None:
    """The only difference between two texts, such as "spaces"; None where they are equal or differ in words."""
    if a == b:
        return None
    folds: Folds = [
        ("accents", without_accents),
        ("capital letters", str.casefold),
        ("full-width or other compatibility characters", lambda s: unicodedata.normalize("NFKC", s)),
        ("invisible characters", lambda s: "".join(c for c in s if unicodedata.category(c) != "Cf")),
        ("the kind of hyphen, apostrophe or quotation mark", lambda s: s.translate(SIGNS)),
        ("spaces (a no-break space, for example)", lambda s: " ".join(s.split())),
        ("the Unicode form of letters (NFC or NFD)", lambda s: unicodedata.normalize("NFC", s)),
    ]
    if not _same(a, b, folds):
        return None
    for fold in tuple(folds):  # the coarse ones first, so that the most precise ones remain
        rest = [f for f in folds if f is not fold]
        if rest and _same(a, b, rest):
            folds = rest
    return " and ".join(name for name, _ in reversed(folds))


def _same(a: str, b: str, folds: Folds) -> bool:
    for _, fold in reversed(folds):
        a, b = fold(a), fold(b)
    return a == b


def twin_of(name: str, names: Iterable[str]) -> str:
    """A sentence, with a space before it, about the name that differs from `name` only in spelling; else empty."""
    for other in names:
        if what := difference(name, other):
            return f" There is {other!r}, which differs only in {what}."
    return ""


def twin_file(path: Path) -> str:
    """As `twin_of`, for a file that was not found and the files beside it."""
    try:
        beside = [entry.name for entry in path.parent.iterdir()]
    except OSError:
        return ""
    return twin_of(path.name, beside)
