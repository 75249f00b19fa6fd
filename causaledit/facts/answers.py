"""Names in text: which answers a response mentions, hits by alias, and commits to.

A deterministic reading for training-time checks and for the efficacy benchmark. It knows aliases, and
that naming an answer is not the same as giving it: "not Rome but Paris" does not give Rome.
"""

from __future__ import annotations

import functools
import re
from typing import TYPE_CHECKING

from causaledit.facts.text import normalise, occurrences, sentences, whole_words, without_accents

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = [
    "alias_match",
    "commits_to",
    "is_code",
    "long_names",
    "mentions",
    "name_spans",
    "normalise",
    "without_accents",
]

# A sentence with one of these may name the old answer without giving it.
_SUPERSEDED = re.compile(
    r"\b(no longer|not|never|former|formerly|previous|previously|earlier|old|was|were|had been|used to|until|before|"
    r"ended|instead of|rather than|replaced|changed|switched|moved|from|out of date|outdated|once|originally|"
    r"in the past)\b|n['’]t\b",
    re.IGNORECASE,
)
_FINAL_LINE = re.compile(r"^\W*(?:final )?answer\W*:\s*(.+)$", re.IGNORECASE | re.MULTILINE)


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


@functools.lru_cache(maxsize=4096)
def _compiled(names: frozenset[str]) -> re.Pattern[str]:
    return re.compile(whole_words(names))


def _pattern(names: Iterable[str]) -> re.Pattern[str] | None:
    folded = frozenset(n for n in map(normalise, names) if n)
    return _compiled(folded) if folded else None


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


def commits_to(response: str, answer: Sequence[str], rival: Sequence[str] = ()) -> bool:
    """Whether a response commits to an answer rather than to its rival.

    The rules, in order: a closing `Answer: …` line decides alone; the answer must be named outside a
    direct negation ("not X"); after its last such mention no sentence may give the rival, and none may
    negate the answer. A sentence that marks the rival as superseded ("it used to be …") gives nothing.

    Args:
        response: The model's text.
        answer: The answer and its aliases.
        rival: The answer it must not fall back to (the old one) and its aliases. A rival name that
            contains an answer's name, or the reverse, is told apart by the longer match.
    """
    wanted = _pattern(answer)
    if wanted is None:
        return False
    other = _pattern(set(rival) - set(answer))
    if lines := _FINAL_LINE.findall(response):
        last = normalise(lines[-1])
        return _gives(last, wanted, other)
    given = False
    for sentence in map(normalise, sentences(response, [*answer, *rival])):
        names_rival = bool(other and other.search(_without_longer(sentence, wanted, other)))
        names_answer = bool(wanted.search(_without_longer(sentence, other, wanted) if other else sentence))
        if names_answer:
            given = _gives(sentence, wanted, other)
        elif names_rival and not _SUPERSEDED.search(sentence):
            given = False
    return given


def _gives(sentence: str, wanted: re.Pattern[str], other: re.Pattern[str] | None) -> bool:
    """Whether one sentence gives the answer: named, not denied, and not as history beside the rival."""
    if other:
        sentence = _without_longer(sentence, other, wanted)
        if other.search(_without_longer(sentence, wanted, other)) and _history(wanted).search(sentence):
            return False
    return bool(wanted.search(sentence)) and not _negated(sentence, wanted)


def _history(name: re.Pattern[str]) -> re.Pattern[str]:
    """ "formerly X", "from X to", "replaced X", "X used to be": X is what it was before."""
    before = r"\b(?:formerly|previously|once|replaced|replaces)\s+(?:the\s+)?" + name.pattern
    before += r"|\bfrom\s+(?:the\s+)?" + name.pattern + r"\s+to\b"
    after = name.pattern + r"\s+(?:used to be|was (?:once|formerly|previously|replaced)|(?:has|had) been)\b"
    return re.compile(f"{before}|{after}")


def _negated(sentence: str, wanted: re.Pattern[str]) -> bool:
    """ "not X", "no longer in X", "isn't the X": a negation right before the answer, and X not given after it."""
    negation = re.compile(
        r"(?:\bnot|\bno longer|\bnever|n['’]t|\brather than|\binstead of)\s+(?:(?!but\b)\w+\s+){0,3}?" + wanted.pattern
    )
    hits = list(negation.finditer(sentence))
    if not hits:
        return False
    rest = sentence[hits[-1].end() :]
    plain = wanted.search(sentence)
    return not wanted.search(rest) and (plain is None or plain.start() >= hits[0].start())


def _without_longer(sentence: str, longer: re.Pattern[str], shorter: re.Pattern[str]) -> str:
    """Blank out matches of `longer` that contain a match of `shorter` ("South Korea" holds "Korea")."""
    return longer.sub(
        lambda m: " " if shorter.search(m.group()) and not shorter.fullmatch(m.group()) else m.group(),
        sentence,
    )
